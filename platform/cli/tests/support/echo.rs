//! `echo.v1.EchoService` without generated code, for tests: a server that describes itself.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use serde_json::{Value, json};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{
    Code, Status, Streaming,
    body::Body,
    codec::EnabledCompressionEncodings,
    metadata::{KeyAndValueRef, MetadataMap},
    server::{Grpc, NamedService, StreamingService},
};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower_service::Service;

#[path = "../../src/call/codec.rs"]
mod codec;
#[path = "descriptors.rs"]
mod descriptors;

use codec::DynamicCodec;
pub(crate) use descriptors::descriptors;

type BoxFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;
type Answers = Pin<Box<dyn Stream<Item = Result<DynamicMessage, Status>> + Send>>;

/// Serves `echo.v1.EchoService` as `instance`.
#[derive(Debug, Clone)]
pub(crate) struct Echo {
    pool: DescriptorPool,
    instance: String,
}

impl Echo {
    pub(crate) fn new(instance: String) -> Self {
        let pool = DescriptorPool::decode(&*descriptors()).expect("protox encodes it well");
        Self { pool, instance }
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "echo.v1.EchoService";
}

impl Service<Request<Body>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = self.pool.get_service_by_name(Self::NAME);
        let service = service.expect("the proto has it");
        let name = request.uri().path().rsplit('/').next().unwrap_or_default();
        let Some(method) = service.methods().find(|method| method.name() == name) else {
            let unknown = Status::unimplemented("no such method").into_http();
            return Box::pin(std::future::ready(Ok(unknown)));
        };
        let decoded = method.input();
        let handler = Handler {
            method,
            instance: self.instance.clone(),
        };
        Box::pin(async move {
            // Every kind of call is two streams on the wire.
            let mut grpc = Grpc::new(DynamicCodec { decoded }).apply_compression_config(
                EnabledCompressionEncodings::default(),
                EnabledCompressionEncodings::default(),
            );
            Ok(grpc.streaming(handler, request).await)
        })
    }
}

/// The echo service, with reflection `R` and health `H` beside it.
#[derive(Debug, Clone)]
pub(crate) struct Served<R, H> {
    pub(crate) echo: Echo,
    pub(crate) reflection: R,
    pub(crate) health: H,
}

impl<R, H> Service<Request<Body>> for Served<R, H>
where
    R: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    R::Future: Send + 'static,
    H: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    H::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Generated services are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        if path.starts_with("/grpc.reflection.") {
            Box::pin(self.reflection.call(request))
        } else if path.starts_with("/grpc.health.") {
            Box::pin(self.health.call(request))
        } else {
            self.echo.call(request)
        }
    }
}

/// One call of one method.
struct Handler {
    method: MethodDescriptor,
    instance: String,
}

impl StreamingService<DynamicMessage> for Handler {
    type Response = DynamicMessage;
    type ResponseStream = Answers;
    type Future = BoxFuture<tonic::Response<Answers>, Status>;

    fn call(&mut self, request: tonic::Request<Streaming<DynamicMessage>>) -> Self::Future {
        let (method, instance) = (self.method.clone(), self.instance.clone());
        Box::pin(async move {
            let (metadata, _, requests) = request.into_parts();
            answers(&method, instance, &metadata, requests)
                .await
                .map(tonic::Response::new)
        })
    }
}

async fn answers(
    method: &MethodDescriptor,
    instance: String,
    metadata: &MetadataMap,
    mut requests: Streaming<DynamicMessage>,
) -> Result<Answers, Status> {
    let output = method.output();
    let message = move |value: Value| {
        let message = DynamicMessage::deserialize(output.clone(), value);
        message.map_err(|error| Status::internal(error.to_string()))
    };
    if method.name() == "Chat" {
        let answer = move |request: Result<DynamicMessage, Status>| {
            let text = text(&request?);
            message(json!({ "text": text, "instance": &instance }))
        };
        return Ok(Box::pin(requests.map(answer)));
    }
    if method.name() == "Gather" {
        let mut texts = Vec::new();
        while let Some(request) = requests.message().await? {
            texts.push(text(&request));
        }
        return Ok(one(message(json!({ "texts": texts }))));
    }
    let request = requests.message().await?;
    let request = request.ok_or_else(|| Status::invalid_argument("no request"))?;
    match method.name() {
        "Repeat" => {
            let count = request.get_field_by_name("count");
            let count = count.and_then(|count| count.as_u32()).unwrap_or_default();
            let endless = if count == 0 { usize::MAX } else { 0 };
            let count = endless.max(usize::try_from(count).unwrap_or(usize::MAX));
            let text = text(&request);
            let answer = message(json!({ "text": text, "instance": instance }))?;
            let answers = tokio_stream::iter(std::iter::repeat_n(answer, count));
            Ok(Box::pin(answers.throttle(Duration::from_millis(1)).map(Ok)))
        }
        "Fail" => {
            let mut details = ErrorDetails::with_error_info("CROWDED", "echo", []);
            details.add_bad_request_violation("text", "must be shorter");
            let code = Code::FailedPrecondition;
            Err(Status::with_error_details(code, text(&request), details))
        }
        "Hang" => std::future::pending().await,
        "Die" => std::process::exit(3),
        _ => {
            let request = serde_json::to_value(&request);
            let request = request.map_err(|error| Status::internal(error.to_string()))?;
            Ok(one(message(json!({
                "text": request["text"],
                "instance": instance,
                "metadata": readable(metadata),
                "request": request,
            }))))
        }
    }
}

fn one(message: Result<DynamicMessage, Status>) -> Answers {
    Box::pin(tokio_stream::once(message))
}

fn text(request: &DynamicMessage) -> String {
    let text = request.get_field_by_name("text");
    text.and_then(|text| text.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn readable(metadata: &MetadataMap) -> Value {
    let pairs = metadata.iter().filter_map(|pair| match pair {
        KeyAndValueRef::Ascii(key, value) => {
            Some((key.to_string(), Value::from(value.to_str().ok()?)))
        }
        KeyAndValueRef::Binary(..) => None,
    });
    Value::Object(pairs.collect())
}

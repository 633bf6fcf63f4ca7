//! A service whose handlers the test writes, served over the in-memory network.

use std::{convert::Infallible, pin::Pin, sync::Arc, task};

use futures_util::future::BoxFuture;
use http::{Request as HttpRequest, Response as HttpResponse};
use tokio_stream::Stream;
use tonic::{
    Request, Response, Status, Streaming, body::Body, codec::CompressionEncoding, server::Grpc,
};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::{
    contract::{Access, Codec, Idempotency, MessageLimits, Method, Server, Validate, Violations},
    journal::Journal,
    server::{Inbound, Router, Stack},
    shutdown::Tasks,
    transport::{
        memory,
        server::{Handle, Limits, Listener},
    },
};

/// What all methods send and receive.
pub(super) type Message = Vec<u8>;

/// What a streaming handler answers with.
pub(super) type Messages = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;

/// A method of one message each way.
pub(super) const UNARY: &str = "/test.Probe/Unary";

/// A method of streams both ways.
pub(super) const STREAM: &str = "/test.Probe/Stream";

/// A method of a stream from the caller alone.
pub(super) const UP: &str = "/test.Probe/Up";

/// A method of a stream to the caller alone.
pub(super) const DOWN: &str = "/test.Probe/Down";

/// A method of one message each way, which has rules.
pub(super) const STAFF: &str = "/test.Probe/Staff";
pub(super) const MISTAKEN: &str = "/test.Probe/Mistaken";
/// A method for services alone.
pub(super) const INTERNAL: &str = "/test.Probe/Internal";
pub(super) const RULED: &str = "/test.Probe/Ruled";

/// A message that breaks two rules unless it is set right.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Ruled {
    /// At least 1.
    #[prost(uint32, tag = "1")]
    pub(super) quantity: u32,
    /// Not empty.
    #[prost(string, tag = "2")]
    pub(super) name: String,
}

impl Validate for Ruled {
    fn validate(&self, violations: &mut Violations) {
        if self.quantity == 0 {
            violations.add("quantity", "uint32.gte", "must be at least 1");
        }
        if self.name.is_empty() {
            violations.add("name", "string.min_len", "must not be empty");
        }
    }
}

type Unary =
    dyn Fn(Request<Message>) -> BoxFuture<'static, Result<Response<Message>, Status>> + Send + Sync;

type Bidi = dyn Fn(Request<Streaming<Message>>) -> BoxFuture<'static, Result<Response<Messages>, Status>>
    + Send
    + Sync;

/// The service.
#[derive(Clone)]
pub(super) struct Probe {
    unary: Arc<Unary>,
    stream: Arc<Bidi>,
    limits: MessageLimits,
}

impl Probe {
    /// Answers unary calls by `handler`.
    pub(super) fn unary<H, F>(handler: H) -> Self
    where
        H: Fn(Request<Message>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Response<Message>, Status>> + Send + 'static,
    {
        Self::new(
            Arc::new(move |request| Box::pin(handler(request))),
            Arc::new(|_| Box::pin(async { Err(Status::unavailable("not this one")) })),
        )
    }

    /// Answers streams by `handler`.
    pub(super) fn stream<H, F>(handler: H) -> Self
    where
        H: Fn(Request<Streaming<Message>>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Response<Messages>, Status>> + Send + 'static,
    {
        Self::new(
            Arc::new(|_| Box::pin(async { Err(Status::unavailable("not this one")) })),
            Arc::new(move |request| Box::pin(handler(request))),
        )
    }

    fn new(unary: Arc<Unary>, stream: Arc<Bidi>) -> Self {
        Self {
            unary,
            stream,
            limits: MessageLimits {
                receive_max: usize::MAX,
                send_max: usize::MAX,
            },
        }
    }
}

impl Server for Probe {
    const NAME: &'static str = "test.Probe";
    const METHODS: &'static [Method] = &[
        Method {
            path: UNARY,
            client_streaming: false,
            server_streaming: false,
            idempotency: Idempotency::Unknown,
            access: Access::Token,
            role: None,
        },
        Method {
            path: STREAM,
            client_streaming: true,
            server_streaming: true,
            idempotency: Idempotency::Unknown,
            access: Access::Token,
            role: None,
        },
        Method {
            path: STAFF,
            client_streaming: false,
            server_streaming: false,
            idempotency: Idempotency::Unknown,
            access: Access::Token,
            role: Some("staff"),
        },
        Method {
            path: MISTAKEN,
            client_streaming: false,
            server_streaming: false,
            idempotency: Idempotency::Unknown,
            access: Access::Public,
            role: Some("staff"),
        },
        Method {
            path: INTERNAL,
            client_streaming: false,
            server_streaming: false,
            idempotency: Idempotency::Unknown,
            access: Access::Internal,
            role: None,
        },
        Method {
            path: RULED,
            client_streaming: false,
            server_streaming: false,
            idempotency: Idempotency::Unknown,
            access: Access::Public,
            role: None,
        },
        Method {
            path: UP,
            client_streaming: true,
            server_streaming: false,
            idempotency: Idempotency::Unknown,
            access: Access::Public,
            role: None,
        },
        Method {
            path: DOWN,
            client_streaming: false,
            server_streaming: true,
            idempotency: Idempotency::Unknown,
            access: Access::Public,
            role: None,
        },
    ];
    const DESCRIPTORS: &'static [u8] = &[];

    fn with_limits(mut self, limits: MessageLimits) -> Self {
        self.limits = limits;
        self
    }
}

/// As generated code does it.
impl Service<HttpRequest<Inbound>> for Probe {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = tonic::codegen::BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Inbound>) -> Self::Future {
        let mut grpc = Grpc::new(ProstCodec::<Message, Message>::default())
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(self.limits.receive_max)
            .max_encoding_message_size(self.limits.send_max);
        if request.uri().path() == RULED {
            return Box::pin(async move {
                let echo = tower::service_fn(|request: Request<Ruled>| async move {
                    Ok(Response::new(request.into_inner()))
                });
                let mut grpc = Grpc::new(Codec::<Ruled, Ruled>::default());
                Ok(grpc.unary(echo, request).await)
            });
        }
        let Self { unary, stream, .. } = self.clone();
        Box::pin(async move {
            Ok(if [STREAM, UP, DOWN].contains(&request.uri().path()) {
                let handler = tower::service_fn(move |request| stream(request));
                grpc.streaming(handler, request).await
            } else {
                let handler = tower::service_fn(move |request| unary(request));
                grpc.unary(handler, request).await
            })
        })
    }
}

/// A server over the in-memory network.
pub(super) struct Served {
    pub(super) connector: memory::Connector,
    pub(super) listener: Handle,
    pub(super) stack: Stack,
}

impl Served {
    /// Serves `probe` with the limits as they ship.
    pub(super) fn probe(probe: Probe) -> Self {
        Self::new(Router::new().add(probe), Limits::default())
    }

    pub(super) fn new(services: Router, limits: Limits) -> Self {
        let (connector, incoming) = memory::network();
        let limits = limits.live();
        let stack = Stack::new(services, Arc::clone(&limits));
        let listener = Listener::memory(incoming, limits);
        let handle = listener.handle();
        let tasks = Tasks::new(Journal::new());
        let protocols = stack.protocols();
        let serving = listener.serve(stack.clone(), protocols, tasks.clone());
        tasks.spawn("listener", serving);
        Self {
            connector,
            listener: handle,
            stack,
        }
    }
}

//! The service under test: it answers as each request's definition says.

use std::{collections::VecDeque, time::Duration};

use futures_util::StreamExt as _;
use http::HeaderMap;
use prost::Message;
use prost_types::Any;
use tokio::time;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use gantry::{call, server::Trailers};

use crate::{
    headers,
    proto::{
        BidiStreamRequest, BidiStreamResponse, ClientStreamRequest, ClientStreamResponse,
        ConformancePayload, IdempotentUnaryRequest, IdempotentUnaryResponse, ServerStreamRequest,
        ServerStreamResponse, StreamResponseDefinition, UnaryRequest, UnaryResponse,
        UnaryResponseDefinition, UnimplementedRequest, UnimplementedResponse,
        conformance_payload::RequestInfo, conformance_service_server::ConformanceService,
        unary_response_definition::Response as Defined,
    },
};

/// The suite's service.
#[derive(Debug)]
pub struct Conformance;

type Answers<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ConformanceService for Conformance {
    async fn unary(
        &self,
        request: Request<UnaryRequest>,
    ) -> Result<Response<UnaryResponse>, Status> {
        let seen = Seen::of(&request).with(pack("UnaryRequest", request.get_ref()));
        let answer = unary(request.into_inner().response_definition, seen).await?;
        Ok(answer.map(|payload| UnaryResponse {
            payload: Some(payload),
        }))
    }

    async fn idempotent_unary(
        &self,
        request: Request<IdempotentUnaryRequest>,
    ) -> Result<Response<IdempotentUnaryResponse>, Status> {
        let seen = Seen::of(&request).with(pack("IdempotentUnaryRequest", request.get_ref()));
        let answer = unary(request.into_inner().response_definition, seen).await?;
        Ok(answer.map(|payload| IdempotentUnaryResponse {
            payload: Some(payload),
        }))
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<ClientStreamRequest>>,
    ) -> Result<Response<ClientStreamResponse>, Status> {
        let mut seen = Seen::of(&request);
        let mut requests = request.into_inner();
        let mut definition = None;
        while let Some(message) = requests.message().await? {
            if seen.requests.is_empty() {
                definition.clone_from(&message.response_definition);
            }
            seen.requests.push(pack("ClientStreamRequest", &message));
        }
        let answer = unary(definition, seen).await?;
        Ok(answer.map(|payload| ClientStreamResponse {
            payload: Some(payload),
        }))
    }

    type ServerStreamStream = Answers<ServerStreamResponse>;

    async fn server_stream(
        &self,
        request: Request<ServerStreamRequest>,
    ) -> Result<Response<Self::ServerStreamStream>, Status> {
        let seen = Seen::of(&request).with(pack("ServerStreamRequest", request.get_ref()));
        let definition = request.into_inner().response_definition.unwrap_or_default();
        let metadata = Metadata::of(&definition);
        let payloads = stream(definition, None, seen);
        let answers = payloads.map(|payload| {
            payload.map(|payload| ServerStreamResponse {
                payload: Some(payload),
            })
        });
        Ok(metadata.onto(Response::new(Box::pin(answers) as Answers<_>)))
    }

    type BidiStreamStream = Answers<BidiStreamResponse>;

    async fn bidi_stream(
        &self,
        request: Request<Streaming<BidiStreamRequest>>,
    ) -> Result<Response<Self::BidiStreamStream>, Status> {
        let mut seen = Seen::of(&request);
        let mut requests = request.into_inner();
        let Some(first) = requests.message().await? else {
            return Ok(Response::new(Box::pin(tokio_stream::empty())));
        };
        let definition = first.response_definition.clone().unwrap_or_default();
        let metadata = Metadata::of(&definition);
        seen.requests.push(pack("BidiStreamRequest", &first));
        let requests = if first.full_duplex {
            Some(requests)
        } else {
            while let Some(message) = requests.message().await? {
                seen.requests.push(pack("BidiStreamRequest", &message));
            }
            None
        };
        let payloads = stream(definition, requests, seen);
        let answers = payloads.map(|payload| {
            payload.map(|payload| BidiStreamResponse {
                payload: Some(payload),
            })
        });
        Ok(metadata.onto(Response::new(Box::pin(answers) as Answers<_>)))
    }

    async fn unimplemented(
        &self,
        _: Request<UnimplementedRequest>,
    ) -> Result<Response<UnimplementedResponse>, Status> {
        Err(Status::unimplemented(
            "left out on purpose, as the suite asks",
        ))
    }
}

/// What was seen of a call.
#[derive(Debug)]
struct Seen {
    headers: HeaderMap,
    timeout: Option<Duration>,
    requests: Vec<Any>,
}

impl Seen {
    fn of<T>(request: &Request<T>) -> Self {
        let deadline = call::with_current(|context| context.and_then(|context| context.deadline));
        // The server bounds every unary call; the suite asks for what the caller said.
        let said = request.metadata().contains_key("grpc-timeout");
        Self {
            headers: request.metadata().clone().into_headers(),
            timeout: deadline
                .filter(|_| said)
                .map(gantry::deadline::Deadline::remaining),
            requests: Vec::new(),
        }
    }

    fn with(mut self, request: Any) -> Self {
        self.requests.push(request);
        self
    }

    fn info(&self) -> RequestInfo {
        RequestInfo {
            request_headers: headers::from_http(&self.headers),
            timeout_ms: self
                .timeout
                .and_then(|timeout| i64::try_from(timeout.as_millis()).ok()),
            requests: self.requests.clone(),
        }
    }

    fn detail(&self) -> Any {
        pack("ConformancePayload.RequestInfo", &self.info())
    }
}

/// Headers and trailers of an answer.
#[derive(Debug)]
struct Metadata {
    headers: HeaderMap,
    trailers: HeaderMap,
}

impl Metadata {
    fn of(definition: &StreamResponseDefinition) -> Self {
        Self {
            headers: headers::to_http(&definition.response_headers),
            trailers: headers::to_http(&definition.response_trailers),
        }
    }

    fn onto<T>(self, mut response: Response<T>) -> Response<T> {
        *response.metadata_mut() = MetadataMap::from_headers(self.headers);
        response.extensions_mut().insert(Trailers(self.trailers));
        response
    }
}

/// One answer, or an error with what was seen as its last detail.
async fn unary(
    definition: Option<UnaryResponseDefinition>,
    seen: Seen,
) -> Result<Response<ConformancePayload>, Status> {
    let definition = definition.unwrap_or_default();
    time::sleep(Duration::from_millis(definition.response_delay_ms.into())).await;
    let metadata = Metadata {
        headers: headers::to_http(&definition.response_headers),
        trailers: headers::to_http(&definition.response_trailers),
    };
    let data = match definition.response {
        Some(Defined::Error(error)) => {
            // An error without an answer is trailers alone, so headers travel with them.
            let mut all = metadata.headers;
            all.extend(metadata.trailers);
            return Err(headers::to_status(&error, all, Some(seen.detail())));
        }
        Some(Defined::ResponseData(data)) => data,
        None => Vec::new(),
    };
    let payload = ConformancePayload {
        data,
        request_info: Some(seen.info()),
    };
    Ok(metadata.onto(Response::new(payload)))
}

/// The answers of a stream. With `requests`, each answer after the first waits for one.
fn stream(
    definition: StreamResponseDefinition,
    requests: Option<Streaming<BidiStreamRequest>>,
    seen: Seen,
) -> impl Stream<Item = Result<ConformancePayload, Status>> + Send {
    let state = Answering {
        pause: Duration::from_millis(definition.response_delay_ms.into()),
        data: definition.response_data.clone().into(),
        definition: Some(definition),
        requests,
        seen,
        answered: 0,
    };
    futures_util::stream::unfold(state, |mut state| async move {
        let answer = state.next().await.transpose()?;
        Some((answer, state))
    })
}

struct Answering {
    pause: Duration,
    data: VecDeque<Vec<u8>>,
    definition: Option<StreamResponseDefinition>,
    requests: Option<Streaming<BidiStreamRequest>>,
    seen: Seen,
    answered: usize,
}

impl Answering {
    async fn next(&mut self) -> Result<Option<ConformancePayload>, Status> {
        if self.definition.is_none() {
            return Ok(None);
        }
        if self.answered > 0
            && let Some(requests) = &mut self.requests
        {
            if let Some(message) = requests.message().await? {
                self.seen.requests = vec![pack("BidiStreamRequest", &message)];
            } else {
                self.requests = None;
                self.seen.requests.clear();
            }
        }
        let Some(data) = self.data.pop_front() else {
            return self.end();
        };
        time::sleep(self.pause).await;
        self.answered += 1;
        Ok(Some(ConformancePayload {
            data,
            request_info: self.info(),
        }))
    }

    /// All of it with the first answer; later ones tell only what came since.
    fn info(&self) -> Option<RequestInfo> {
        if self.answered == 1 {
            return Some(self.seen.info());
        }
        self.requests.as_ref().map(|_| RequestInfo {
            requests: self.seen.requests.clone(),
            ..RequestInfo::default()
        })
    }

    fn end(&mut self) -> Result<Option<ConformancePayload>, Status> {
        let definition = self.definition.take().unwrap_or_default();
        let Some(error) = definition.error else {
            return Ok(None);
        };
        let extra = (self.answered == 0).then(|| self.seen.detail());
        // The trailers are on the response already.
        Err(headers::to_status(&error, HeaderMap::new(), extra))
    }
}

fn pack(name: &str, message: &impl Message) -> Any {
    Any {
        type_url: format!("type.googleapis.com/connectrpc.conformance.v1.{name}"),
        value: message.encode_to_vec(),
    }
}

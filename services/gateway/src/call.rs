//! Makes calls of requests in other protocols, by bytes that are messages already.

use std::{
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::Stream;
use gantry::server::Calls;
use http::{HeaderMap, Request, Response, uri::PathAndQuery};
use tonic::{
    Status, Streaming,
    body::Body,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::BoxFuture,
    metadata::MetadataMap,
};
use tower::Service;

/// Begins a call with the messages of `requests`, for as long as `timeout` says. Dropping what it gives cancels the call.
///
/// # Errors
///
/// What the call was refused with before it answered.
pub(crate) async fn begin(
    calls: Calls,
    path: PathAndQuery,
    metadata: HeaderMap,
    timeout: Option<Duration>,
    requests: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<(MetadataMap, Streaming<Bytes>), Status> {
    let mut request = tonic::Request::new(requests);
    *request.metadata_mut() = MetadataMap::from_headers(metadata);
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    // Messages have passed the bounds of this process on their way here.
    let mut grpc = Grpc::new(Through(calls))
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    let response = grpc.streaming(request, path, Whole).await?;
    let (metadata, answers, _) = response.into_parts();
    Ok((metadata, answers))
}

/// Where the calls go: through the layers of this process.
#[derive(Debug)]
struct Through(Calls);

impl Service<Request<Body>> for Through {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let calls = self.0.clone();
        Box::pin(async move { Ok(calls.call(request).await) })
    }
}

/// Messages as they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole;

impl Codec for Whole {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Whole {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

impl Decoder for Whole {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

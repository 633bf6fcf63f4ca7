//! Makes calls of requests in other protocols, by bytes that are messages already.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::{FutureExt as _, Stream, stream};
use gantry::server::Calls;
use http::{Extensions, HeaderMap, Request, Response, uri::PathAndQuery};
use http_body::Frame;
use http_body_util::BodyExt as _;
use tonic::{
    Status, Streaming,
    body::Body,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::BoxFuture,
    metadata::MetadataMap,
};
use tower::Service;

/// What a message has that others then have not, until it is dropped.
pub(crate) type Holding = Box<dyn Send>;

/// What a call is made with.
pub(crate) struct Messages {
    stream: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
    single: Option<Single>,
}

impl Messages {
    /// One message, with what it holds of the room for bodies. It is not asked for before the call is
    /// let in.
    pub(crate) fn single(
        message: impl Future<Output = (Bytes, Option<Holding>)> + Send + 'static,
    ) -> Self {
        let single = Single::default();
        let held = single.clone();
        let message = message.map(move |(message, holding)| {
            *held.lock() = holding;
            message
        });
        Self {
            stream: Box::pin(stream::once(message)),
            single: Some(single),
        }
    }

    /// Any number, as they come.
    pub(crate) fn stream(messages: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self {
            stream: Box::pin(messages),
            single: None,
        }
    }
}

#[cfg(test)]
impl Messages {
    /// The same as a stream.
    pub(crate) fn into_stream(self) -> impl Stream<Item = Bytes> + Unpin {
        self.stream
    }
}

/// In the extensions of a call whose only message may still be on its way: what that holds, from when
/// it is there.
#[derive(Clone, Default)]
struct Single(Arc<Mutex<Option<Holding>>>);

impl Single {
    fn lock(&self) -> MutexGuard<'_, Option<Holding>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `message` with what it holds, until nobody keeps any of it.
    fn keep(&self, message: Bytes) -> Bytes {
        match self.lock().take() {
            Some(holding) => Bytes::from_owner(Kept {
                message,
                _holding: holding,
            }),
            None => message,
        }
    }
}

/// A message that counts as held.
struct Kept {
    message: Bytes,
    _holding: Holding,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.message
    }
}

/// `body`, once its message is there where it is the only one: a client that is slow to send it is
/// not a backend's business, which would be held up by it and judged for it.
///
/// # Errors
///
/// If the body breaks off.
pub(crate) async fn whole(extensions: &mut Extensions, mut body: Body) -> Result<Body, Status> {
    let Some(single) = extensions.remove::<Single>() else {
        return Ok(body);
    };
    // A message of a translation is one frame. In a box: calls of gRPC carry no room for it.
    let first = Box::pin(body.frame()).await.transpose()?;
    let first = first.map(|frame| frame.map_data(|message| single.keep(message)));
    Ok(Body::new(Begun { first, rest: body }))
}

/// A body whose first frame was taken.
struct Begun {
    first: Option<Frame<Bytes>>,
    rest: Body,
}

impl http_body::Body for Begun {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }
}

/// Begins a call with `messages`, for as long as `timeout` says. Dropping what it gives cancels the call.
///
/// # Errors
///
/// What the call was refused with before it answered.
pub(crate) async fn begin(
    calls: Calls,
    path: PathAndQuery,
    metadata: HeaderMap,
    timeout: Option<Duration>,
    messages: Messages,
) -> Result<(MetadataMap, Streaming<Bytes>), Status> {
    let mut request = tonic::Request::new(messages.stream);
    if let Some(single) = messages.single {
        request.extensions_mut().insert(single);
    }
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

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use http_body_util::StreamBody;

    use super::*;
    use crate::json::body_tests;

    /// Goal: what a client's message takes of the room for bodies is taken until the message is
    /// written, also where a backend does not read.
    /// Method: a message that is read, handed over, and kept; then let go of.
    #[tokio::test]
    async fn a_message_is_held_until_it_is_written() {
        let (bodies, mut allowance) = body_tests::bodies();
        allowance.share.grow(100_000, "it").unwrap();
        let message = Bytes::from(vec![0; 100_000]);
        let holding: Holding = Box::new(allowance.share);
        let messages = Messages::single(async move { (message, Some(holding)) });
        let mut extensions = Extensions::new();
        extensions.insert(messages.single.clone().unwrap());
        let frames = messages
            .into_stream()
            .map(|it| Ok::<_, Status>(Frame::data(it)));
        let body = Body::new(StreamBody::new(frames));
        let mut body = whole(&mut extensions, body).await.unwrap();
        let written = body.frame().await.unwrap().unwrap().into_data().unwrap();
        drop((body, extensions));
        assert_eq!(100_000, bodies.held());
        let rest = written.slice(50_000..);
        drop(written);
        assert_eq!(100_000, bodies.held(), "a part of it is there still");
        drop(rest);
        assert_eq!(0, bodies.held());
    }
}

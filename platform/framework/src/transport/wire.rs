//! A client for tests that sees frames, not results: what a call is, down to its reset.

use std::io;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::Code;

use crate::status::code_in;

/// One connection.
#[derive(Clone)]
pub(crate) struct Wire {
    send: SendRequest<Bytes>,
    /// Whether and how the connection has ended.
    ended: tokio::sync::watch::Receiver<Option<Result<(), String>>>,
}

/// A call whose head is sent.
pub(crate) struct Sent {
    pub(crate) requests: SendStream<Bytes>,
    pub(crate) response: ResponseFuture,
}

/// Everything a call answered with.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) data: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl Wire {
    pub(crate) async fn over<I>(io: I) -> Self
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (send, connection) = h2::client::handshake(io).await.expect("a server");
        let (tell, ended) = tokio::sync::watch::channel(None);
        #[allow(clippy::disallowed_methods)]
        drop(tokio::spawn(async move {
            let result = connection.await.map_err(|error| error.to_string());
            tell.send_replace(Some(result));
        }));
        Self { send, ended }
    }

    /// A request for `path` as gRPC clients make it.
    pub(crate) fn request(path: &str) -> Request<()> {
        Request::post(format!("http://memory{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("a valid request")
    }

    pub(crate) async fn send(&self, request: Request<()>) -> Result<Sent, h2::Error> {
        let mut send = self.send.clone().ready().await?;
        let (response, requests) = send.send_request(request, false)?;
        Ok(Sent { requests, response })
    }

    /// A whole unary call.
    pub(crate) async fn call(
        &self,
        request: Request<()>,
        message: &[u8],
    ) -> Result<Reply, h2::Error> {
        let mut sent = self.send(request).await?;
        sent.requests.send_data(framed(message), true)?;
        sent.reply().await
    }

    /// A whole unary call of any message.
    pub(crate) async fn send_message(
        &self,
        path: &str,
        message: &impl prost::Message,
    ) -> Result<Reply, h2::Error> {
        let mut sent = self.send(Self::request(path)).await?;
        let message = prefixed(0, &message.encode_to_vec());
        sent.requests.send_data(message, true)?;
        sent.reply().await
    }

    /// Waits until the connection has ended.
    pub(crate) async fn ended(&mut self) -> Result<(), String> {
        let ended = self.ended.wait_for(Option::is_some).await;
        ended.expect("the task tells").clone().expect("waited for")
    }
}

impl Sent {
    /// Reads the answer to its end.
    pub(crate) async fn reply(self) -> Result<Reply, h2::Error> {
        let (head, mut body) = self.response.await?.into_parts();
        let mut data = BytesMut::new();
        while let Some(piece) = body.data().await {
            let piece = piece?;
            data.put(&*piece);
            body.flow_control().release_capacity(piece.len())?;
        }
        Ok(Reply {
            status: head.status,
            headers: head.headers,
            data: data.freeze(),
            trailers: body.trailers().await?.unwrap_or_default(),
        })
    }

    /// Waits for the head of the answer.
    pub(crate) async fn open(self) -> Result<(SendStream<Bytes>, RecvStream), h2::Error> {
        let response = self.response.await?;
        Ok((self.requests, response.into_body()))
    }
}

impl Reply {
    /// The code, from the trailers or, without a body, from the headers.
    pub(crate) fn code(&self) -> Option<Code> {
        code_in(&self.trailers).or_else(|| code_in(&self.headers))
    }

    pub(crate) fn message(&self) -> String {
        let value = self
            .trailers
            .get("grpc-message")
            .or(self.headers.get("grpc-message"));
        let text = value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        text.replace("%20", " ")
    }
}

/// The wire form of a `BytesValue` of `content`.
pub(crate) fn framed(content: &[u8]) -> Bytes {
    let mut message = Vec::new();
    prost::Message::encode(&content.to_vec(), &mut message).expect("a vector grows");
    prefixed(0, &message)
}

/// `message` behind its prefix.
pub(crate) fn prefixed(flags: u8, message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(flags);
    bytes.put_u32(u32::try_from(message.len()).expect("a test's message"));
    bytes.put(message);
    bytes.freeze()
}

/// Reads until the other side closes; an error is a close as well.
pub(crate) async fn until_closed(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(io, &mut read).await?;
    Ok(read)
}

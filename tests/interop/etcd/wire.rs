//! Calls of etcd's methods with their own messages: client libraries hide too much of them.

use std::time::Duration;

use prost::Message;
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

/// Longest wait for an answer; leases end within it.
const ANSWER: Duration = Duration::from_secs(15);

/// Largest answer taken.
const MESSAGE_MAX: usize = 64 * 1024 * 1024;

/// A connection to one server.
#[derive(Debug, Clone)]
pub(super) struct Wire(Channel);

/// A call under way both ways.
#[derive(Debug)]
pub(super) struct Duplex<A, B> {
    requests: tokio::sync::mpsc::Sender<A>,
    answers: Streaming<B>,
}

impl Wire {
    pub(super) async fn connect(url: &str) -> Self {
        let endpoint = Endpoint::from_shared(url.to_owned()).expect("an address");
        Self(endpoint.connect().await.expect("a server that listens"))
    }

    async fn grpc(&self) -> Grpc<Channel> {
        let mut grpc = Grpc::new(self.0.clone()).max_decoding_message_size(MESSAGE_MAX);
        grpc.ready().await.expect("a connection");
        grpc
    }

    /// One question, one answer.
    pub(super) async fn ask<A, B>(&self, method: &str, request: A) -> Result<B, Status>
    where
        A: Message + 'static,
        B: Message + Default + 'static,
    {
        let codec = ProstCodec::<A, B>::default();
        let mut grpc = self.grpc().await;
        let call = grpc.unary(Request::new(request), path(method), codec);
        let answered = timeout(ANSWER, call).await.expect("an answer in time");
        answered.map(tonic::Response::into_inner)
    }

    /// A stream both ways, which begins with a request: before that, nothing need be answered.
    pub(super) async fn open<A, B>(&self, method: &str, first: A) -> Result<Duplex<A, B>, Status>
    where
        A: Message + 'static,
        B: Message + Default + 'static,
    {
        let codec = ProstCodec::<A, B>::default();
        let (requests, receiver) = tokio::sync::mpsc::channel(16);
        requests.send(first).await.expect("room for one");
        let mut grpc = self.grpc().await;
        let outgoing: std::pin::Pin<Box<dyn Stream<Item = A> + Send>> =
            Box::pin(ReceiverStream::new(receiver));
        let call = grpc.streaming(Request::new(outgoing), path(method), codec);
        let answers = timeout(ANSWER, call).await.expect("an answer in time")?;
        Ok(Duplex {
            requests,
            answers: answers.into_inner(),
        })
    }
}

impl<A, B> Duplex<A, B> {
    pub(super) async fn send(&self, request: A) {
        let sent = self.requests.send(request).await;
        assert!(sent.is_ok(), "the stream has ended");
    }

    /// The next answer; none where the stream ends or nothing comes.
    pub(super) async fn next(&mut self) -> Option<Result<B, Status>> {
        timeout(ANSWER, self.answers.next()).await.ok().flatten()
    }
}

fn path(method: &str) -> PathAndQuery {
    let path = format!("/etcdserverpb.{method}");
    path.parse().expect("a path")
}

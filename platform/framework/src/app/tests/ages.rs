//! A service whose connections age while it is called.

use std::{
    collections::HashSet,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::task::JoinSet;
use tonic::{Code, body::Body, codegen::BoxFuture};
use tower::Service;

use super::probe::IDENTITY;
use crate::{
    app::{App, BoxError, testing},
    caller::Peer,
    client::Channel,
    contract::{self, Access, Idempotency, MessageLimits, Method},
    server::Inbound,
    status,
};

const COUNT: &str = "/test.Counter/Count";
/// An empty message.
const EMPTY: Bytes = Bytes::from_static(&[0; 5]);

/// Counts its calls, each of which takes a moment; nobody says that twice is once.
#[derive(Clone, Default)]
struct Counter {
    calls: Arc<AtomicUsize>,
    /// The other ends of its connections.
    peers: Arc<Mutex<HashSet<String>>>,
}

impl contract::Server for Counter {
    const NAME: &'static str = "test.Counter";
    const METHODS: &'static [Method] = &[Method {
        path: COUNT,
        client_streaming: false,
        server_streaming: false,
        idempotency: Idempotency::Unknown,
        access: Access::Public,
        role: None,
    }];
    const DESCRIPTORS: &'static [u8] = &[];

    fn with_limits(self, _: MessageLimits) -> Self {
        self
    }
}

impl Service<Request<Inbound>> for Counter {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Inbound>) -> Self::Future {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let peer = format!("{:?}", request.extensions().get::<Peer>());
        self.peers.lock().unwrap().insert(peer);
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let mut trailers = HeaderMap::new();
            trailers.insert(&status::GRPC_STATUS, HeaderValue::from_static("0"));
            let frames = [Frame::data(EMPTY), Frame::trailers(trailers)];
            let frames = frames.map(Ok::<_, Infallible>);
            let mut response = Response::new(Body::new(StreamBody::new(
                futures_util::stream::iter(frames),
            )));
            let kind = HeaderValue::from_static("application/grpc");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            Ok(response)
        })
    }
}

async fn count(mut channel: Channel) -> Option<Code> {
    let request = Request::post(COUNT)
        .header(header::CONTENT_TYPE, "application/grpc")
        .body(Body::new(Full::new(EMPTY)))
        .unwrap();
    let response = channel.call(request).await.ok()?;
    let ended = response.into_body().collect().await.ok()?;
    status::code_in(ended.trailers()?)
}

/// Goal: connections that end of age lose no call and repeat none, though nobody may try one again.
/// Method: over real sockets, connections of a second, five hundred calls a second for three and a
/// half.
#[tokio::test]
async fn connections_that_age_lose_no_call() {
    let counter = Counter::default();
    let served = counter.clone();
    let start = async move |app: &mut App<()>| -> Result<(), BoxError> {
        app.serve(served);
        Ok(())
    };
    let toml = "[limits]\nconnection_age_max = '1s'";
    let service = testing::Service::start(IDENTITY, toml, start)
        .await
        .unwrap();
    let channel: Channel = service.client();
    let mut calls = JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_millis(2));
    for _ in 0..1_750 {
        tick.tick().await;
        calls.spawn(count(channel.clone()));
    }
    let made = calls.len();
    let ended = calls.join_all().await;
    assert_eq!(vec![Some(Code::Ok); made], ended);
    assert_eq!(1_750, made);
    assert_eq!(1_750, counter.calls.load(Ordering::SeqCst));
    // One for each second, give or take a tenth.
    let peers = counter.peers.lock().unwrap().clone();
    assert!(peers.len() >= 3, "{peers:?}");
    drop(channel);
    service.stop().await;
}

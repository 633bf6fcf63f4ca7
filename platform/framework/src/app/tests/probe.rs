//! A service with one stream that never ends.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, StreamBody};
use tonic::{Code, body::Body, codegen::BoxFuture};
use tower::Service;

use crate::{
    app::{App, BoxError, Identity, testing},
    client::Channel,
    contract::{self, Access, Idempotency, MessageLimits, Method},
    server::Inbound,
    status,
};

pub(super) const IDENTITY: Identity = Identity {
    name: "probe",
    version: "1.2.3",
    description: "Hangs.",
};

pub(super) const HANG: &str = "/test.Probe/Hang";

#[derive(Clone)]
pub(super) struct Probe;

impl contract::Server for Probe {
    const NAME: &'static str = "test.Probe";
    const METHODS: &'static [Method] = &[Method {
        path: HANG,
        client_streaming: false,
        server_streaming: true,
        idempotency: Idempotency::Unknown,
        access: Access::Public,
        role: None,
    }];
    const DESCRIPTORS: &'static [u8] = &[];

    fn with_limits(self, _: MessageLimits) -> Self {
        self
    }
}

impl Service<Request<Inbound>> for Probe {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Inbound>) -> Self::Future {
        let never = futures_util::stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>();
        let mut response = Response::new(Body::new(StreamBody::new(never)));
        let kind = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        Box::pin(std::future::ready(Ok(response)))
    }
}

/// Serves the probe.
pub(super) async fn start(app: &mut App<()>) -> Result<(), BoxError> {
    app.serve(Probe);
    Ok(())
}

/// A probe that runs, with `toml` as its configuration.
pub(super) async fn running(toml: &str) -> testing::Service {
    testing::Service::start(IDENTITY, toml, start)
        .await
        .unwrap()
}

/// Opens the stream that never ends.
pub(super) async fn hang(
    channel: &mut Channel,
) -> Response<impl http_body::Body<Data = Bytes> + use<>> {
    let request = Request::post(HANG)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Body::empty())
        .unwrap();
    channel.call(request).await.unwrap()
}

/// The code in the trailers of a stream, once it ends.
pub(super) async fn ends_with<B>(response: Response<B>) -> Option<Code>
where
    B: http_body::Body<Data = Bytes>,
{
    let ended = response.into_body().collect().await.ok()?;
    status::code_in(ended.trailers()?)
}

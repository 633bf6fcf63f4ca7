//! What is not gRPC: which protocol a request speaks, and who answers that.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use bytes::Bytes;
use gantry::{BoxError, config::Live, limit::rate::Limiter, status::Refusal};
use http::{Method, Request, Response, Version, header, uri::Authority};
use http_body_util::BodyExt as _;
use tonic::{body::Body, codegen::BoxFuture};
use tower::Service;

use crate::{
    catalogue::Catalogue,
    config::Http,
    connect::{self, Connect},
    cors,
    json::{Bodies, Failure, Incoming, Json, unsupported},
    stale::Stale,
    unread, web,
};

/// Answers every request that is not gRPC; clones share everything.
#[derive(Debug, Clone)]
pub struct Edge {
    catalogue: Catalogue,
    config: Live<Http>,
    bodies: Bodies,
    json: Json,
    connect: Connect,
    stale: Stale,
}

impl Edge {
    /// Answers for what `catalogue` has, and for what went and `stale` may have answers of. Clients are
    /// told apart by `limiter`.
    #[must_use]
    pub fn new(catalogue: Catalogue, config: Live<Http>, limiter: Limiter, stale: Stale) -> Self {
        let bodies = Bodies::new(config.clone(), limiter);
        Self {
            json: Json::new(
                catalogue.clone(),
                config.clone(),
                bodies.clone(),
                stale.clone(),
            ),
            connect: Connect::new(config.clone(), bodies.clone()),
            bodies,
            catalogue,
            config,
            stale,
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if let Err(failure) = check_http(&request) {
            return failure.answer(None);
        }
        let cors = cors::Asked::of(&request, &self.config.load().origins);
        if let Some(preflight) = cors.preflight(&request) {
            return preflight;
        }
        let is_shared = request.version() >= Version::HTTP_2;
        let (request, unread) = unread::lend(request);
        let mut response = self.answer_own(request).await;
        if is_shared {
            // Others have requests on it.
            response.headers_mut().remove(header::CONNECTION);
        }
        if response.status().is_success() {
            response = response.map(|body| unread.before_end_of(body));
        } else if !response.headers().contains_key(header::CONNECTION) {
            unread.take().await;
        }
        cors.allow(response.headers_mut());
        response
    }

    /// Answers as if there were no browsers.
    async fn answer_own(&self, request: Request<Incoming>) -> Response<Body> {
        match web::Kind::of(request.headers()) {
            Some(Ok(kind)) => {
                let (head, body) = request.into_parts();
                let is_single = self.catalogue.takes_one(head.uri.path()).await;
                let pace = self.bodies.allow(&head).pace;
                return web::answer(kind, head, body, pace, is_single).await;
            }
            Some(Err(())) => {
                let text =
                    "content-type: expected application/grpc-web, alone or with -text or +proto";
                return unsupported(text);
            }
            None => {}
        }
        let path = request.uri().path();
        let api = self.catalogue.api().await;
        if let Some(api) = api {
            if let Some(method) = api.method(path) {
                return self.connect.answer(method, request).await;
            }
            if let Some(method) = api.gone.method(path) {
                return if self.stale.is_wanted(path) {
                    self.connect.answer(method, request).await
                } else {
                    connect::gone(method)
                };
            }
        }
        if connect::is_said(request.headers()) {
            return connect::unknown(path);
        }
        self.json.answer(request).await
    }
}

/// Refuses what nobody may ask of a server, whatever the path.
fn check_http(request: &Request<Incoming>) -> Result<(), Failure> {
    if request.method() == Method::CONNECT {
        let text = "the gateway is no proxy: it does not answer CONNECT";
        return Err(Refusal::Unimplemented.status(text).into());
    }
    // RFC 9112, section 3.2. HTTP/2 has it in `:authority`.
    if request.version() == Version::HTTP_11 {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let host = hosts.next().filter(|_| hosts.next().is_none());
        let is_one =
            host.is_some_and(|it| it.is_empty() || Authority::try_from(it.as_bytes()).is_ok());
        if !is_one {
            let text = "expected exactly one, as HTTP/1.1 wants it";
            return Err(Failure::of_header("host", text).with_header(header::CONNECTION, "close"));
        }
    }
    Ok(())
}

impl<B> Service<Request<B>> for Edge
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let edge = self.clone();
        Box::pin(async move { Ok(edge.answer(request).await) })
    }
}

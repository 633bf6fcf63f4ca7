//! What is not gRPC: which protocol a request speaks, and who answers that.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use bytes::Bytes;
use gantry::{BoxError, config::Live};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tonic::{body::Body, codegen::BoxFuture};
use tower::Service;

use crate::{
    catalogue::Catalogue,
    config::Http,
    connect::{self, Connect},
    cors,
    json::{Held, Incoming, Json, unsupported},
    unread, web,
};

/// Answers every request that is not gRPC; clones share everything.
#[derive(Debug, Clone)]
pub struct Edge {
    catalogue: Catalogue,
    config: Live<Http>,
    json: Json,
    connect: Connect,
}

impl Edge {
    /// Answers for what `catalogue` has.
    #[must_use]
    pub fn new(catalogue: Catalogue, config: Live<Http>) -> Self {
        let held = Held::default();
        Self {
            json: Json::new(catalogue.clone(), config.clone(), held.clone()),
            connect: Connect::new(config.clone(), held),
            catalogue,
            config,
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let cors = cors::Asked::of(&request, &self.config.load().origins);
        if let Some(preflight) = cors.preflight(&request) {
            return preflight;
        }
        let (request, unread) = unread::lend(request);
        let mut response = self.answer_own(request).await;
        if response.status().is_success() {
            response = response.map(|body| unread.before_end_of(body));
        } else {
            unread.take().await;
        }
        cors.allow(response.headers_mut());
        response
    }

    /// Answers as if there were no browsers.
    async fn answer_own(&self, request: Request<Incoming>) -> Response<Body> {
        match web::Kind::of(request.headers()) {
            Some(Ok(kind)) => return web::answer(kind, request).await,
            Some(Err(())) => {
                let text =
                    "content-type: expected application/grpc-web, alone or with -text or +proto";
                return unsupported(text);
            }
            None => {}
        }
        let path = request.uri().path();
        let api = self.catalogue.api().await;
        let method = api.and_then(|api| api.method(path).cloned());
        if let Some(method) = method {
            return self.connect.answer(&method, request).await;
        }
        if connect::is_said(request.headers()) {
            return connect::unknown(path);
        }
        self.json.answer(request).await
    }
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

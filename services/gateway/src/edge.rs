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
    json::{Held, Json},
};

/// Answers every request that is not gRPC; clones share everything.
#[derive(Debug, Clone)]
pub struct Edge {
    json: Json,
}

impl Edge {
    /// Answers for what `catalogue` has.
    #[must_use]
    pub fn new(catalogue: Catalogue, config: Live<Http>) -> Self {
        Self {
            json: Json::new(catalogue, config, Held::default()),
        }
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
        let json = self.json.clone();
        Box::pin(async move { Ok(json.answer(request).await) })
    }
}

//! Counts calls against the quotas of their method.
//!
//! It stands within the token, as a quota may be of whom that speaks for, and around the room in the
//! method: a call beyond its quota takes nobody's place there and waits in no line. What costs callers
//! nothing of their quota is a call that was refused before: without a token, too late, or by a process that
//! is overloaded.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::Either;
use http::{Request, Response};
use tonic::Status;
use tower::Service;

use crate::{
    auth::Identity,
    contract::Method,
    limit::rate::{Caller, Counted, Limiter},
};

/// Lets calls of one method in as their quotas do.
#[derive(Debug, Clone)]
pub(super) struct Rate<S> {
    inner: S,
    /// Nobody where calls are not counted.
    counted: Option<Arc<Counted>>,
}

impl<S> Rate<S> {
    /// Counts calls of `method` by the quotas of `limiter`; never those by which others see how the
    /// process is.
    pub(super) fn new(inner: S, method: &'static Method, limiter: Option<&Limiter>) -> Self {
        let limiter = limiter.filter(|_| !method.is_for_operation());
        let counted = limiter.map(|limiter| Arc::new(limiter.follow(method.full_name())));
        Self { inner, counted }
    }

    fn admit<Q>(&self, request: &Request<Q>) -> Result<(), Status> {
        let Some(counted) = &self.counted else {
            return Ok(());
        };
        let (extensions, headers) = (request.extensions(), request.headers());
        counted.admit(|limiter| Caller {
            address: limiter.client(extensions, headers),
            headers,
            identity: extensions
                .get::<Identity>()
                .map(|identity| identity.subject.as_str()),
        })
    }
}

impl<S, Q, B> Service<Request<Q>> for Rate<S>
where
    S: Service<Request<Q>, Response = Response<B>, Error = Infallible>,
    B: Default,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response<B>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        match self.admit(&request) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(refused) => Either::Right(ready(Ok(refused.into_http()))),
        }
    }
}

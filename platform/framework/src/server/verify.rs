//! Asks a call for its token, where its method wants to know who calls.
//!
//! It stands within the deadline, so that waiting for keys is part of the call's time, and around
//! the handler: no message is read, no stream begun before it is known who asks, and that they have
//! the role which the method wants.
//!
//! Who may ask from outside a gateway decides first, by the descriptions that it reads while it runs.
//! Here it is decided again by those that were compiled in, which cannot be missing or old.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures_util::future::Either;
use http::{HeaderMap, HeaderValue, Request, Response, header::VIA};
use tonic::{Status, codegen::BoxFuture};
use tower::Service;

use crate::{
    auth::{Denied, Identity, Verifier},
    contract::{Access, Method},
};

/// What the names of gateways begin with, by which they say in `via` that a call passed them.
pub const GATEWAYS: &str = "gantry-";

/// Whether a call with these headers passed a gateway: a hop is its protocol, then its name.
pub(super) fn is_from_outside(headers: &HeaderMap) -> bool {
    let values = headers.get_all(VIA).iter().map(HeaderValue::as_bytes);
    let mut hops = values.flat_map(|value| value.split(|byte| *byte == b','));
    hops.any(|hop| {
        let words = hop.split(u8::is_ascii_whitespace);
        let name = words.filter(|word| !word.is_empty()).nth(1);
        name.is_some_and(|name| name.starts_with(GATEWAYS.as_bytes()))
    })
}

/// Lets calls of one method in.
#[derive(Debug, Clone)]
pub(super) struct Verify<S> {
    inner: S,
    /// Who judges tokens; nobody where the method wants none.
    tokens: Option<Verifier>,
    /// The role that tokens must carry.
    role: Option<&'static str>,
    /// Whether it is for services alone.
    is_internal: bool,
}

impl<S> Verify<S> {
    /// Calls of `method` need a token that `tokens` accepts, where it is one that wants to know who
    /// calls.
    pub(super) fn new(inner: S, method: &'static Method, tokens: Option<&Verifier>) -> Self {
        let tokens = tokens.filter(|_| method.wants_token()).cloned();
        Self {
            inner,
            tokens,
            role: method.role,
            is_internal: method.access == Access::Internal,
        }
    }
}

impl<S, Q, B> Service<Request<Q>> for Verify<S>
where
    S: Service<Request<Q>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    Q: Send + 'static,
    B: Default,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Either<S::Future, BoxFuture<Response<B>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Q>) -> Self::Future {
        if self.is_internal && is_from_outside(request.headers()) {
            return Either::Right(Box::pin(async { Ok(refusal(Denied::Internal)) }));
        }
        let Some(tokens) = self.tokens.clone() else {
            // A handler that wants to know who calls finds out that nobody was proved. One that
            // leaves that to a role does not look.
            return match self.role {
                None => Either::Left(self.inner.call(request)),
                Some(_) => Either::Right(Box::pin(async { Ok(refusal(Denied::Unverified)) })),
            };
        };
        let role = self.role;
        let mut inner = self.inner.clone();
        let identified = tokens.identify(request.headers());
        Either::Right(Box::pin(async move {
            match identified.await {
                Ok(identity) => {
                    if let Some(Err(refused)) = role.map(|role| identity.require_role(role)) {
                        return Ok(refused.into_http());
                    }
                    request.extensions_mut().insert::<Identity>(identity);
                    inner.call(request).await
                }
                Err(denied) => Ok(refusal(denied)),
            }
        }))
    }
}

fn refusal<B: Default>(denied: Denied) -> Response<B> {
    Status::from(denied).into_http()
}

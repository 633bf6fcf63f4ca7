//! Does to calls what is to be done to them on purpose, next to the handler.

use std::{convert::Infallible, pin::pin, sync::Arc};

use http::{HeaderValue, Request, Response, header};
use tokio::time;
use tonic::{body::Body, codegen::BoxFuture};

use super::{Inbound, deadline::Bounds, dispatch::Handler};
use crate::{
    config::Live,
    contract::MessageLimits,
    fault::{Config, Drawn, End, Met},
    policy::Policy,
    status,
    telemetry::platform::Injected,
};

/// A handler whose calls meet faults, where some are on.
pub(super) struct Faulty {
    inner: Arc<dyn Handler>,
    policy: Live<Policy>,
    bounds: Arc<Bounds>,
}

impl Faulty {
    /// Has the calls of `inner` meet what is switched on, or else what `policy` says.
    pub(super) fn new(inner: Arc<dyn Handler>, policy: Live<Policy>, bounds: Arc<Bounds>) -> Self {
        Self {
            inner,
            policy,
            bounds,
        }
    }

    /// What becomes of a call, if anything is done to it, and why.
    fn draw(&self, request: &Request<Inbound>) -> Option<(Drawn, Why)> {
        let path = request.uri().path();
        let switched = self
            .bounds
            .faults
            .find(path.strip_prefix('/').unwrap_or(path));
        let draw = |config: &Config| {
            let drawn = config.draw(request.headers(), fastrand::f64);
            (!drawn.is_nothing()).then_some(drawn)
        };
        if let Some(met) = switched {
            return draw(&met.config).map(|drawn| (drawn, Why::Switched(met)));
        }
        self.policy.read(|policy| {
            let drawn = policy.fault.is_on().then(|| draw(&policy.fault));
            let why = || Why::Policy(self.policy.clone(), policy.fault.clone());
            drawn.flatten().map(|drawn| (drawn, why()))
        })
    }

    fn count(&self, drawn: Drawn) {
        let delay = drawn.delay.map(|_| Injected::Delay);
        let end = drawn.end.map(|end| match end {
            End::Fail(_) => Injected::Fail,
            End::Abort => Injected::Abort,
            End::Drop => Injected::Drop,
        });
        for fault in delay.into_iter().chain(end) {
            self.bounds.injected.inject(fault);
        }
    }
}

impl Handler for Faulty {
    fn call(
        &self,
        request: Request<Inbound>,
        limits: MessageLimits,
    ) -> BoxFuture<Response<Body>, Infallible> {
        let Some((drawn, why)) = self.draw(&request) else {
            return self.inner.call(request, limits);
        };
        self.count(drawn);
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let mut end = drawn.end;
            let mut over = pin!(why.over());
            if let Some(delay) = drawn.delay {
                // Cancel-safe: both only wait.
                tokio::select! {
                    biased;
                    () = over.as_mut() => end = None,
                    () = time::sleep(delay) => {}
                }
            }
            match end {
                Some(End::Fail(code)) => return Ok(status::injected(code).into_http()),
                Some(End::Abort) => return Ok(broken_off()),
                Some(End::Drop) => over.await,
                None => {}
            }
            inner.call(request, limits).await
        })
    }

    fn receive_max(&self) -> usize {
        self.inner.receive_max()
    }
}

/// Why something is done to a call.
enum Why {
    /// An operator wants it.
    Switched(Met),
    /// The policy of its method does, as it was.
    Policy(Live<Policy>, Config),
}

impl Why {
    /// Completes when it holds no more.
    async fn over(self) {
        let (policy, met) = match self {
            Self::Switched(met) => return met.over().await,
            Self::Policy(policy, met) => (policy, met),
        };
        let mut changes = policy.subscribe();
        while changes.borrow_and_update().fault == met {
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// An answer that begins and ends without a status.
fn broken_off() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

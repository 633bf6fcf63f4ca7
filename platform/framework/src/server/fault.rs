//! Does to calls what is to be done to them on purpose, next to the handler.

use std::{convert::Infallible, sync::Arc};

use http::{HeaderValue, Request, Response, header};
use tokio::time;
use tonic::{body::Body, codegen::BoxFuture};

use super::{Inbound, deadline::Bounds, dispatch::Handler};
use crate::{
    config::Live,
    contract::MessageLimits,
    fault::{Drawn, End},
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

    fn draw(&self, request: &Request<Inbound>) -> Drawn {
        let path = request.uri().path();
        let switched = self
            .bounds
            .faults
            .find(path.strip_prefix('/').unwrap_or(path));
        if let Some(config) = switched {
            return config.draw(request.headers(), fastrand::f64);
        }
        self.policy.read(|policy| {
            if policy.fault.is_on() {
                policy.fault.draw(request.headers(), fastrand::f64)
            } else {
                Drawn::default()
            }
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
        let drawn = self.draw(&request);
        if drawn.is_nothing() {
            return self.inner.call(request, limits);
        }
        self.count(drawn);
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            if let Some(delay) = drawn.delay {
                time::sleep(delay).await;
            }
            Ok(match drawn.end {
                Some(End::Fail(code)) => status::injected(code).into_http(),
                Some(End::Abort) => broken_off(),
                Some(End::Drop) => std::future::pending().await,
                None => return inner.call(request, limits).await,
            })
        })
    }

    fn receive_max(&self) -> usize {
        self.inner.receive_max()
    }
}

/// An answer that begins and ends without a status.
fn broken_off() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

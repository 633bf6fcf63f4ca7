//! The server's whole stack in one readable function.
//!
//! ```text
//! transport::server ──▶ Stack ── path ──▶ layers of that method ──▶ generated service
//! ```
//!
//! [`layered`] is the order in which a call passes the layers. Each method has its own, so that
//! what is per method (facts, metric handles, limits) is bound once and looked up never.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::{
    contract::Method,
    transport::server::{Handle, LiveLimits},
};

mod deadline;
mod dispatch;
mod messages;
mod protocol;
mod rescue;
mod router;
mod trailers;

use deadline::Deadline;
use dispatch::Dispatch;
use protocol::Protocol;
use rescue::Rescue;

pub use router::{DescriptorError, Router};
pub use trailers::Trailers;

/// How long ended calls and their connections may take to say so.
const FAREWELL: Duration = Duration::from_secs(1);

/// The layers of one method around its handler, outermost first.
type Layered = Rescue<Protocol<Deadline<Dispatch>>>;

/// The body of an answer that passed all layers.
type Answer = rescue::Rescued<deadline::Bounded<dispatch::Answered>>;

/// A request's body as generated services see it.
pub type Inbound = messages::Measured<deadline::Received<Incoming>>;

/// Puts the layers around a handler.
///
/// From the outside in: errors and panics become a status, so that whoever measures sees one for
/// every call; what is not gRPC goes before it costs more; the deadline counts from here, so
/// waiting below is part of it; next to the handler messages are measured as they pass.
fn layered(
    method: &'static Method,
    handler: Arc<dyn dispatch::Handler>,
    shared: &Bounds,
) -> Layered {
    let dispatch = Dispatch::new(handler, Arc::clone(&shared.limits));
    // Here, outermost first: process gate, authentication, rate limit, concurrency per method.
    let deadline = Deadline::new(
        dispatch,
        method,
        Arc::clone(&shared.limits),
        shared.end.clone(),
    );
    let protocol = Protocol::new(deadline);
    Rescue::new(protocol, method)
}

/// What all methods share.
#[derive(Debug)]
struct Bounds {
    limits: LiveLimits,
    /// Calls in flight end now, as UNAVAILABLE.
    end: CancellationToken,
}

/// Every service of a process behind all layers; clones share them.
#[derive(Debug, Clone)]
pub struct Stack {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    methods: HashMap<&'static str, Layered>,
    services: HashSet<&'static str>,
    bounds: Bounds,
}

impl Stack {
    /// Puts the layers around every method of `router`. `limits` are read anew for each call.
    #[must_use]
    pub fn new(router: Router, limits: LiveLimits) -> Self {
        let bounds = Bounds {
            limits,
            end: CancellationToken::new(),
        };
        let methods = router.routes.into_iter();
        let methods = methods
            .map(|(method, handler)| (method.path, layered(method, handler, &bounds)))
            .collect();
        Self {
            shared: Arc::new(Shared {
                methods,
                services: router.services,
                bounds,
            }),
        }
    }

    /// Ends every call in flight, and those that still arrive, with UNAVAILABLE and a pushback of
    /// zero: come back at once, elsewhere.
    pub fn end_calls(&self) {
        self.shared.bounds.end.cancel();
    }

    /// Drains `listener`, which serves this stack: nothing new is accepted, and calls in flight
    /// have until `bound`. Those that remain are ended with a status, and what does not close
    /// then is cut.
    pub async fn drain(&self, listener: &Handle, bound: Duration) {
        listener.drain();
        if timeout(bound, listener.closed()).await.is_ok() {
            return;
        }
        self.end_calls();
        if timeout(FAREWELL, listener.closed()).await.is_err() {
            listener.cut();
            listener.closed().await;
        }
    }
}

impl Service<Request<Incoming>> for Stack {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = <Layered as Service<Request<Incoming>>>::Future;

    // Always: whatever cannot be taken is answered with a status.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let path = request.uri().path();
        if let Some(method) = self.shared.methods.get(path) {
            return method.clone().call(request);
        }
        let unknown = router::unimplemented(path, &self.shared.services);
        layered(&router::UNKNOWN, unknown, &self.shared.bounds).call(request)
    }
}

#[cfg(test)]
mod tests;

//! The innermost layer: hands a call to its handler, with the message limits of the moment.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use tonic::{body::Body, codegen::BoxFuture};
use tower::Service;

use super::{
    Inbound,
    deadline::{Bounds, Received},
    messages::Measured,
    trailers::Trailing,
    wire::Wire,
};
use crate::contract::MessageLimits;

/// A generated service with its type forgotten. Its future is passed on as it was made: boxed
/// once, by the generated code.
pub(super) trait Handler: Send + Sync {
    /// Begins a call.
    fn call(
        &self,
        request: Request<Inbound>,
        limits: MessageLimits,
    ) -> BoxFuture<Response<Body>, Infallible>;

    /// Largest message it can take, whatever the configuration says.
    fn receive_max(&self) -> usize {
        usize::MAX
    }
}

/// The body of a handler's answer, measured and with its trailers.
pub(super) type Answered = Measured<Trailing<Body>>;

/// Calls the handler of one method.
#[derive(Clone)]
pub(super) struct Dispatch {
    handler: Arc<dyn Handler>,
    bounds: Arc<Bounds>,
}

impl fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatch").finish_non_exhaustive()
    }
}

impl Dispatch {
    pub(super) fn new(handler: Arc<dyn Handler>, bounds: Arc<Bounds>) -> Self {
        Self { handler, bounds }
    }
}

impl Service<Request<Received<Wire>>> for Dispatch {
    type Response = Response<Answered>;
    type Error = Infallible;
    type Future = Dispatching;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Received<Wire>>) -> Self::Future {
        let limits_now = self.bounds.limits.load();
        let receive_max = limits_now
            .receive_message_max
            .as_usize()
            .min(self.handler.receive_max());
        let send_max = limits_now.send_message_max.as_usize();
        let limits = MessageLimits {
            receive_max,
            // Measured on the way out, where exceeding it gets the right code.
            send_max: usize::MAX,
        };
        let held = &self.bounds.held;
        let held_max = limits_now.receive_bytes_max.as_usize();
        let request = request.map(|body| Measured::held(body, receive_max, held, held_max));
        Dispatching {
            future: self.handler.call(request, limits),
            send_max,
        }
    }
}

/// A call in its handler, on the way to response headers.
pub(super) struct Dispatching {
    future: BoxFuture<Response<Body>, Infallible>,
    send_max: usize,
}

impl fmt::Debug for Dispatching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatching").finish_non_exhaustive()
    }
}

impl Future for Dispatching {
    type Output = Result<Response<Answered>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(response) = ready!(self.future.as_mut().poll(cx));
        let send_max = self.send_max;
        let response = Trailing::of(response);
        Poll::Ready(Ok(response.map(|body| Measured::new(body, send_max))))
    }
}

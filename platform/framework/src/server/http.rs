//! Answers requests that are not gRPC, beside the stack of those that are.
//!
//! ```text
//! Stack ──gRPC──▶ layers of the method ──▶ generated service
//!   │                  ▲
//!   └──else──▶ Http ───┘ Calls: what a translation makes of a request passes the same layers
//! ```

use std::{
    convert::Infallible,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time;
use tonic::{body::Body, codegen::BoxFuture};
use tower::Service;

use super::{Stack, deadline::Bounds, wire::Wire};
use crate::{
    BoxError,
    call::TraceContext,
    caller::Peer,
    limit::client::Forwarded,
    telemetry::http::{Route, Server, ServerRequest},
    transport::server::Writing,
};

/// Who answers, and what measures it.
#[derive(Clone)]
pub(super) struct Http {
    handler: Handler,
    observed: Server,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

/// A handler with its type forgotten.
pub(super) type Handler = Arc<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>;

/// An answer on its way.
type Answering = BoxFuture<Response<Body>, Infallible>;

/// Answers requests that are not gRPC; every tower service that cannot fail is one.
pub trait HttpService: Clone + Send + Sync + 'static {
    /// Begins to answer.
    fn answer(self, request: Request<Incoming>) -> BoxFuture<Response<Body>, Infallible>;
}

impl<S, B> HttpService for S
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn answer(mut self, request: Request<Incoming>) -> Answering {
        let answer = self.call(request);
        Box::pin(async move { Ok(answer.await?.map(Body::new)) })
    }
}

/// Forgets the type of `service`.
pub(super) fn handler(service: impl HttpService) -> Handler {
    Arc::new(move |request| service.clone().answer(request))
}

/// Makes calls to what this process serves, as if they had come over the wire. It is in the
/// extensions of every request that is not gRPC.
#[derive(Debug, Clone)]
pub struct Calls {
    stack: Stack,
    trace: TraceContext,
    peer: Option<Peer>,
    writing: Option<Writing>,
    forwarded: Forwarded,
}

impl Calls {
    /// Makes one call. `request` is gRPC in all but its transport: its path is the method's, its
    /// headers are the metadata, `grpc-timeout` among them, its body is framed. It belongs to the
    /// trace of the request it was made of, and comes from the same peer by the same way.
    ///
    /// Dropping the future, or the body it answers with, cancels the call.
    pub async fn call(&self, mut request: Request<Body>) -> Response<Body> {
        self.trace.inject(request.headers_mut());
        let extensions = request.extensions_mut();
        if let Some(peer) = self.peer {
            extensions.insert(peer);
        }
        if let Some(writing) = &self.writing {
            extensions.insert(writing.clone());
        }
        extensions.insert(self.forwarded.clone());
        let request = request.map(Wire::from);
        let Ok(response) = self.stack.grpc(request).await;
        response.map(Body::new)
    }
}

impl Http {
    pub(super) fn new(handler: Handler) -> Self {
        Self {
            handler,
            observed: Server::default(),
        }
    }

    /// Answers traced and measured, within the bounds of the process.
    pub(super) fn answer(&self, stack: &Stack, mut request: Request<Incoming>) -> Serving {
        let extensions = request.extensions();
        let peer = extensions.get::<Peer>().copied();
        let writing = extensions.get::<Writing>().cloned();
        let forwarded = Forwarded::of(request.headers());
        let observed = self
            .observed
            .start(request.method(), request.headers(), peer);
        request.extensions_mut().insert(Calls {
            stack: stack.clone(),
            trace: observed.trace().clone(),
            peer,
            writing,
            forwarded,
        });
        let (handler, bounds) = (Arc::clone(&self.handler), Arc::clone(stack.bounds()));
        Serving {
            answer: Box::pin(async move { Ok(bounded(handler, request, &bounds).await) }),
            observed: Some(observed),
        }
    }
}

/// The head of the answer, in time. What follows it is bounded by the calls that it comes from.
async fn bounded(handler: Handler, request: Request<Incoming>, bounds: &Bounds) -> Response<Body> {
    let longest = bounds.limits.load().unary_deadline_max;
    // Begun within: it may panic before it is polled.
    let answer = AssertUnwindSafe(async move { handler(request).await }).catch_unwind();
    // Cancel-safe: an answer that comes too late is dropped.
    tokio::select! {
        answered = time::timeout(longest, answer) => match answered {
            Ok(Ok(Ok(response))) => response,
            Ok(Err(_)) => {
                tracing::error!("handler panicked");
                empty(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Err(_) => empty(StatusCode::GATEWAY_TIMEOUT),
        },
        () = bounds.end.cancelled() => empty(StatusCode::SERVICE_UNAVAILABLE),
    }
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A request on its way to the head of its answer.
pub(super) struct Serving {
    answer: Answering,
    observed: Option<ServerRequest>,
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").finish_non_exhaustive()
    }
}

impl Future for Serving {
    type Output = Result<Response<Answered>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let observed = this.observed.as_mut().expect("polled after it was ready");
        let answer = this.answer.as_mut();
        let Ok(response) = ready!(observed.span().in_scope(|| answer.poll(cx)));
        let route = response.extensions().get::<Route>();
        observed.answered(response.status(), route);
        let observed = this.observed.take();
        Poll::Ready(Ok(response.map(|body| Answered {
            body: Some(body),
            observed,
        })))
    }
}

/// The stream of an answer, observed to its end; one that panics fails.
pub struct Answered {
    body: Option<Body>,
    observed: Option<ServerRequest>,
}

impl fmt::Debug for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answered").finish_non_exhaustive()
    }
}

impl http_body::Body for Answered {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let (Some(body), Some(observed)) = (&mut this.body, &this.observed) else {
            return Poll::Ready(None);
        };
        let poll = || observed.span().in_scope(|| Pin::new(body).poll_frame(cx));
        let frame = match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(frame) => ready!(frame).map(|frame| frame.map_err(BoxError::from)),
            Err(_) => Some(Err("handler panicked".into())),
        };
        if !matches!(frame, Some(Ok(_))) {
            this.body = None;
            this.observed = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

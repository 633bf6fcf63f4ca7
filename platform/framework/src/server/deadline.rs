//! Fixes when a call ends at the latest, and ends it then.
//!
//! Here a call gets its [`call::Context`]. The handler runs within it, and so does the stream it
//! answers with. At the deadline, or when the process can wait no longer, whatever of the two is
//! there is dropped and the caller gets a status; so is what was started by [`call::spawn`]. The
//! request's stream fails from that moment, wherever the handler took it.
//!
//! A call that is answered at once never touches a timer: it is set when the handler first waits.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tower::Service;

use super::messages::Held;
use crate::{
    BoxError,
    call::{self, Arrival, TraceContext},
    caller::{Criticality, Peer},
    config::Live,
    contract::Method,
    deadline::{self as wire, MalformedTimeout},
    fault::Faults,
    policy::Policy,
    retry::PREVIOUS_ATTEMPTS,
    status::{self, Refusal, chain},
    telemetry::platform::InjectedFaults,
    transport::server::{LiveLimits, Writing},
};

/// Ends the calls of one method in time.
#[derive(Debug, Clone)]
pub(super) struct Deadline<S> {
    inner: S,
    method: &'static Method,
    policy: Live<Policy>,
    bounds: Arc<Bounds>,
}

/// What bounds the calls of all methods.
#[derive(Debug)]
pub(super) struct Bounds {
    /// Cap unary calls and messages.
    pub(super) limits: LiveLimits,
    /// What operators have calls meet.
    pub(super) faults: Faults,
    pub(super) injected: InjectedFaults,
    /// What is held of large messages.
    pub(super) held: Arc<Held>,
    /// Whether callers are strangers, and nobody is trusted.
    pub(super) strangers: bool,
    /// Once cancelled, calls in flight end as UNAVAILABLE.
    pub(super) end: CancellationToken,
}

impl<S> Deadline<S> {
    /// Calls end at their deadline, or after the time of `policy` if that is earlier, unary ones
    /// where it has none after that of `bounds`; all of them once `bounds` say so.
    pub(super) fn new(
        inner: S,
        method: &'static Method,
        policy: Live<Policy>,
        bounds: Arc<Bounds>,
    ) -> Self {
        Self {
            inner,
            method,
            policy,
            bounds,
        }
    }

    /// When a call must have ended, of which the policy says that it takes `longest`.
    fn deadline(
        &self,
        arrival: &Arrival,
        longest: Option<Duration>,
    ) -> Result<Option<wire::Deadline>, MalformedTimeout> {
        let asked = arrival.asked?;
        let usual = || {
            let unary = self.method.is_unary();
            unary.then(|| self.bounds.limits.load().unary_deadline_max)
        };
        let cap = longest.or_else(usual);
        let timeout = match (asked, cap) {
            (Some(asked), Some(cap)) => Some(asked.min(cap)),
            (asked, cap) => asked.or(cap),
        };
        Ok(timeout.and_then(|timeout| wire::Deadline::since(arrival.at, timeout)))
    }
}

impl<S, Q, B> Service<Request<Q>> for Deadline<S>
where
    S: Service<Request<Received<Q>>, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<Bounded<B>>;
    type Error = Infallible;
    type Future = Ending<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Q>) -> Self::Future {
        // Given by whoever observes the call, further out.
        let arrival = request.extensions_mut().remove::<Arrival>();
        let arrival =
            arrival.unwrap_or_else(|| Arrival::now(request.headers(), TraceContext::root(false)));
        let said = |policy: &Policy| (policy.timeout(), policy.criticality);
        let (longest, criticality) = self.policy.read(said);
        let deadline = match self.deadline(&arrival, longest) {
            Ok(deadline) => deadline,
            Err(malformed) => {
                return Ending::refused(Refusal::MalformedHeader.status(malformed.to_string()));
            }
        };
        if deadline.is_some_and(wire::Deadline::has_passed) {
            return Ending::refused(expired());
        }
        // A caller that does not read keeps the stream from being polled; below it is not seen.
        let writing = request.extensions().get::<Writing>();
        if let (Some(deadline), Some(writing)) = (deadline, writing) {
            writing.not_beyond(deadline.instant(), arrival.at);
        }
        let trusted = !self.bounds.strangers && writing.is_some_and(Writing::is_trusted);
        let headers = request.headers();
        let context = Arc::new(call::Context {
            method: self.method,
            peer: request.extensions().get::<Peer>().copied(),
            deadline,
            trace: arrival.trace,
            previous_attempts: previous_attempts(headers),
            criticality: Criticality::of(headers, trusted, criticality),
            ended: call::Ended::default(),
        });
        request.extensions_mut().insert(Arc::clone(&context));
        let request = request.map(|body| Received::new(body, Arc::clone(&context)));
        Ending {
            future: Some(self.inner.call(request)),
            open: Some(Open {
                context,
                bounds: Arc::clone(&self.bounds),
                alarm: None,
            }),
            refused: None,
        }
    }
}

fn previous_attempts(headers: &HeaderMap) -> u32 {
    headers
        .get(&PREVIOUS_ATTEMPTS)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .unwrap_or(0)
}

pub(super) fn expired() -> Status {
    Refusal::DeadlineExceeded.status("deadline exceeded")
}

pin_project! {
    /// A call on its way to response headers, or refused and without a future.
    #[derive(Debug)]
    pub struct Ending<F> {
        #[pin]
        future: Option<F>,
        open: Option<Open>,
        refused: Option<Status>,
    }
}

impl<F> Ending<F> {
    fn refused(status: Status) -> Self {
        Self {
            future: None,
            open: None,
            refused: Some(status),
        }
    }
}

impl<F, B> Future for Ending<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<Bounded<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(status) = this.refused.take() {
            return Poll::Ready(Ok(status.into_http()));
        }
        let future = this.future.as_mut().as_pin_mut();
        let (Some(future), Some(open)) = (future, this.open.as_mut()) else {
            panic!("polled after it was ready");
        };
        if let Poll::Ready(Ok(response)) = open.within(|| future.poll(cx)) {
            let open = this.open.take();
            return Poll::Ready(Ok(response.map(|body| Bounded {
                live: open.map(|open| Box::pin(Flowing { body, open })),
            })));
        }
        let status = ready!(open.poll_over(cx));
        this.future.set(None);
        *this.open = None;
        Poll::Ready(Ok(status.into_http()))
    }
}

/// The stream of an answer, which fails when its call is over.
#[derive(Debug)]
pub struct Bounded<B> {
    // Boxed: the layers outside move it several times each before it is read.
    live: Option<Pin<Box<Flowing<B>>>>,
}

pin_project! {
    #[derive(Debug)]
    #[project = Projected]
    struct Flowing<B> {
        #[pin]
        body: B,
        open: Open,
    }
}

impl<B> Default for Bounded<B> {
    fn default() -> Self {
        Self { live: None }
    }
}

impl<B> Body for Bounded<B>
where
    B: Body<Data = Bytes, Error = Status>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(live) = &mut this.live else {
            return Poll::Ready(None);
        };
        let Projected { body, open } = live.as_mut().project();
        // A stream that always has something to send never waits, and would never see its alarm.
        let status = if open.overran() {
            expired()
        } else if let Poll::Ready(frame) = open.within(|| body.poll_frame(cx)) {
            let ended = match &frame {
                Some(Ok(frame)) => frame.is_trailers(),
                Some(Err(_)) | None => true,
            };
            if ended {
                this.live = None;
            }
            return Poll::Ready(frame);
        } else {
            ready!(open.poll_over(cx))
        };
        this.live = None;
        Poll::Ready(Some(Err(status)))
    }

    fn is_end_stream(&self) -> bool {
        self.live
            .as_ref()
            .is_none_or(|live| live.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

/// A call in flight; dropping it ends the call, and with it what was spawned for it.
#[derive(Debug)]
struct Open {
    context: Arc<call::Context>,
    bounds: Arc<Bounds>,
    alarm: Option<Pin<Box<Alarm>>>,
}

pin_project! {
    /// Wakes a call that waits for longer than it may.
    #[derive(Debug)]
    struct Alarm {
        #[pin]
        deadline: Option<Sleep>,
        #[pin]
        end: WaitForCancellationFutureOwned,
    }
}

impl Open {
    /// Polls something of this call.
    fn within<T>(&self, poll: impl FnOnce() -> T) -> T {
        let _entered = call::enter(Arc::clone(&self.context));
        poll()
    }

    /// Whether a stream's deadline has passed. Unary answers have nothing to overrun with.
    fn overran(&self) -> bool {
        self.context.method.server_streaming
            && self
                .context
                .deadline
                .is_some_and(wire::Deadline::has_passed)
    }

    /// Ready once the call may go on no longer, with what its caller is told.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let alarm = self.alarm.get_or_insert_with(|| {
            let deadline = self.context.deadline;
            Box::pin(Alarm {
                deadline: deadline.map(|deadline| sleep_until(deadline.instant())),
                end: self.bounds.end.clone().cancelled_owned(),
            })
        });
        let mut alarm = alarm.as_mut().project();
        if let Some(deadline) = alarm.deadline.as_mut().as_pin_mut()
            && deadline.poll(cx).is_ready()
        {
            return Poll::Ready(expired());
        }
        ready!(alarm.end.poll(cx));
        Poll::Ready(status::draining())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.context.ended.set();
    }
}

pin_project! {
    /// A request's stream, which fails once its call has ended.
    #[derive(Debug)]
    pub struct Received<B> {
        #[pin]
        body: B,
        context: Arc<call::Context>,
        #[pin]
        ended: Option<WaitForCancellationFutureOwned>,
    }
}

impl<B> Received<B> {
    fn new(body: B, context: Arc<call::Context>) -> Self {
        Self {
            body,
            context,
            ended: None,
        }
    }
}

impl<B> Body for Received<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        if this.context.ended.is_over() {
            return Poll::Ready(Some(Err(over(this.context))));
        }
        match this.body.poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(broken))),
            Poll::Pending => {
                // A single request is read by the handler itself and ends with it; a stream may
                // be read by a task that does not know that the call is over.
                if !this.context.method.client_streaming {
                    return Poll::Pending;
                }
                if this.ended.is_none() {
                    let ended = this.context.ended.token().cancelled_owned();
                    this.ended.set(Some(ended));
                }
                let ended = this.ended.as_pin_mut().expect("set above");
                ready!(ended.poll(cx));
                Poll::Ready(Some(Err(over(this.context))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The caller reset its stream, or its connection broke.
fn broken(error: impl Into<BoxError>) -> Status {
    let error = error.into();
    tracing::debug!(error = %chain(&*error), "request stream broke off");
    Refusal::CallerGone.status("the caller's stream broke off")
}

/// Why a request's stream ends before its time.
fn over(context: &call::Context) -> Status {
    if context.deadline.is_some_and(wire::Deadline::has_passed) {
        expired()
    } else {
        Refusal::CallerGone.status("the call has ended")
    }
}

//! The calls of one connection: counted, run as tasks, and reset when their callers do not read.
//!
//! Nobody asks an answer's stream for more while its caller makes no room for what is there. Such
//! a call would neither end nor see its deadline, so it is watched from here. A large piece is given
//! in smaller ones, as what was given once is held until it is read, by whatever bound, and its call
//! has ended for all who watch.
//!
//! ```text
//! hyper ──▶ Counted ──request, with Writing──▶ service
//!   │          └──────── Stream ────────┐
//!   └────▶ Executor ──▶ Watched (task) ◀┘
//! ```

use std::{
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header::CONNECTION};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::task::TaskTracker;
use tower::Service;

use super::{gate::Place, handle::Connection, limits::Limits};
use crate::caller::Peer;

/// One call in flight; dropping the last of it counts the call as ended.
#[derive(Debug)]
struct Stream {
    connection: Arc<Connection>,
    /// Pieces of data handed over; odd while the newest waits for room at the caller.
    pieces: AtomicU64,
    patience: OnceLock<Patience>,
    /// Whether we ended it, by an answer to its end or a reset of our own; else the peer did.
    finished: AtomicBool,
}

/// How long the caller waits, as it says itself.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// From here on giving up is no surprise.
    half: Instant,
    end: Instant,
}

impl Stream {
    fn finish(&self) {
        self.finished.store(true, Ordering::Relaxed);
    }

    /// Which piece waits for room, if one does.
    fn waiting(&self) -> Option<u64> {
        let pieces = self.pieces.load(Ordering::Relaxed);
        (pieces % 2 == 1).then_some(pieces)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.usage.end();
        // Who has had an answer has had work for something, and may want no more of it.
        if *self.finished.get_mut() || *self.pieces.get_mut() > 0 {
            return;
        }
        // A caller stops waiting at its deadline, as we do: whose clock is first is chance, and
        // nobody is made to work for nothing by it.
        if self
            .patience
            .get()
            .is_none_or(|patience| Instant::now() < patience.half)
        {
            self.connection.abandon();
        }
    }
}

/// The call as its connection knows it; in the extensions of each request. It says how long an answer
/// may wait for its caller to read.
#[derive(Debug, Clone)]
pub struct Writing {
    stream: Arc<Stream>,
}

impl Writing {
    /// Whether the connection proves that its peer belongs to the system: by a client certificate, or,
    /// in plaintext, by being on this machine.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.stream.connection.trusted
    }

    /// Resets the call if it waits for its caller at `deadline`. The first one given holds. A caller
    /// that gives up halfway from `arrival` to there or later has only stopped waiting in time.
    ///
    /// A call that does not wait is not touched: it sees for itself what time it is.
    pub fn not_beyond(&self, deadline: Instant, arrival: Instant) {
        let half = arrival + deadline.saturating_duration_since(arrival) / 2;
        // Given twice, it is by two layers that both know the one deadline.
        let _ = self.stream.patience.set(Patience {
            half,
            end: deadline,
        });
    }
}

/// From the service to the executor, which hyper calls one after the other for each call.
type Slot = Arc<Mutex<Option<Arc<Stream>>>>;

/// What serves the calls of a connection, and what runs them.
pub(super) fn of<S>(
    service: S,
    connection: Arc<Connection>,
    place: Arc<Place>,
    open: TaskTracker,
    limits: &Limits,
) -> (Counted<S>, Executor) {
    let slot = Slot::default();
    let peer = connection.peer;
    let counted = Counted {
        service,
        connection,
        place,
        peer,
        piece_max: limits.send_buffer.as_usize(),
        slot: Arc::clone(&slot),
    };
    let executor = Executor {
        open,
        stall_max: limits.write_stall_max,
        slot,
    };
    (counted, executor)
}

/// Counts the calls of a connection, and hands each its peer.
pub(super) struct Counted<S> {
    service: S,
    connection: Arc<Connection>,
    place: Arc<Place>,
    peer: Peer,
    piece_max: usize,
    slot: Slot,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Counted<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone,
    B: Body<Data = Bytes>,
{
    type Response = Response<Offered<B>>;
    type Error = S::Error;
    type Future = Serving<S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if self.connection.usage.begin() {
            self.place.requested();
        }
        let stream = Arc::new(Stream {
            connection: Arc::clone(&self.connection),
            pieces: AtomicU64::new(0),
            patience: OnceLock::new(),
            finished: AtomicBool::new(false),
        });
        // Calls of HTTP/1.1 are no tasks: the connection itself is what waits for its caller.
        let http1 = request.version() != Version::HTTP_2;
        if http1 {
            self.connection.http1.store(true, Ordering::Release);
        } else {
            let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
            *slot = Some(Arc::clone(&stream));
        }
        let extensions = request.extensions_mut();
        extensions.insert(self.peer);
        extensions.insert(Writing {
            stream: Arc::clone(&stream),
        });
        Serving {
            // Always ready, as `Listener::serve` demands.
            future: self.service.clone().call(request),
            stream: Some(stream),
            http1,
            piece_max: self.piece_max,
        }
    }
}

pin_project! {
    /// A call on its way to response headers.
    pub(super) struct Serving<F> {
        #[pin]
        future: F,
        stream: Option<Arc<Stream>>,
        http1: bool,
        piece_max: usize,
    }
}

impl<F, B, E> Future for Serving<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<Offered<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.future.poll(cx));
        let stream = this.stream.take().expect("polled after it was ready");
        // Whether it fails or is all in its head, nobody is asked for more.
        if response
            .as_ref()
            .map_or(true, |it| it.body().is_end_stream())
        {
            stream.finish();
        }
        let mut response = response?;
        // Closed after an answer that says so, no request is lost on its way here.
        if *this.http1 && stream.connection.last_answer.load(Ordering::Acquire) {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        let piece_max = *this.piece_max;
        Poll::Ready(Ok(response.map(|body| Offered {
            body,
            stream,
            rest: Bytes::new(),
            piece_max,
        })))
    }
}

pin_project! {
    /// An answer's stream, which notes when what it gave was taken: when it is asked for more.
    pub(super) struct Offered<B> {
        #[pin]
        body: B,
        stream: Arc<Stream>,
        // What is left of a piece that is larger than one may be.
        rest: Bytes,
        piece_max: usize,
    }
}

impl<B: Body<Data = Bytes>> Body for Offered<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let pieces = &this.stream.pieces;
        // One task polls and reads, so the two steps need not be one.
        if this.stream.waiting().is_some() {
            pieces.fetch_add(1, Ordering::Relaxed);
        }
        let mut frame = if this.rest.is_empty() {
            ready!(this.body.as_mut().poll_frame(cx))
        } else {
            Some(Ok(Frame::data(mem::take(this.rest))))
        };
        if let Some(Ok(frame)) = &mut frame
            && let Some(data) = frame.data_mut()
            && data.len() > *this.piece_max
        {
            let rest = data.split_off(*this.piece_max);
            // Pieces share what they are of. The last two may still be unread when the call has ended,
            // and must not keep all of it.
            let are_last = rest.len() > *this.piece_max && rest.len() <= 2 * *this.piece_max;
            *this.rest = if are_last {
                Bytes::copy_from_slice(&rest)
            } else {
                rest
            };
        }
        let goes_on = match &frame {
            Some(Ok(frame)) if frame.is_data() => {
                pieces.fetch_add(1, Ordering::Relaxed);
                !this.rest.is_empty() || !this.body.is_end_stream()
            }
            // Trailers, a failure, or an end without either.
            _ => false,
        };
        if !goes_on {
            this.stream.finish();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest + body.lower());
        if let Some(upper) = body.upper() {
            hint.set_upper(rest + upper);
        }
        hint
    }
}

/// Runs each call of a connection as a task that the listener waits for when it drains.
#[derive(Clone)]
pub(super) struct Executor {
    open: TaskTracker,
    stall_max: Duration,
    slot: Slot,
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = slot.take();
        drop(slot);
        let call = Watched {
            // Boxed once, here: a task is moved several times before it runs and once when it
            // ends, and what is in it is large.
            call: Box::pin(call),
            stream,
            stall_max: self.stall_max,
            alarm: None,
        };
        // A name and a record per call would cost more than the call: the connection is the
        // owner, and the tracker joins them. A panic is answered below, by the service.
        #[allow(clippy::disallowed_methods)]
        drop(tokio::spawn(self.open.track_future(call)));
    }
}

/// A call that is dropped, and so reset, when its caller makes no room for too long.
struct Watched<F> {
    call: Pin<Box<F>>,
    stream: Option<Arc<Stream>>,
    stall_max: Duration,
    alarm: Option<Alarm>,
}

/// Rings for one piece of data.
struct Alarm {
    piece: u64,
    sleep: Pin<Box<Sleep>>,
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.call.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some((stream, piece)) = this
            .stream
            .as_ref()
            .and_then(|stream| Some((stream, stream.waiting()?)))
        else {
            this.alarm = None;
            return Poll::Pending;
        };
        let alarm = match &mut this.alarm {
            Some(alarm) if alarm.piece == piece => alarm,
            alarm => {
                let stalled = Instant::now() + this.stall_max;
                let end = stream.patience.get().map(|patience| patience.end);
                let at = end.map_or(stalled, |end| stalled.min(end));
                alarm.insert(Alarm {
                    piece,
                    sleep: Box::pin(sleep_until(at)),
                })
            }
        };
        ready!(alarm.sleep.as_mut().poll(cx));
        // By us, and not the peer.
        stream.finish();
        tracing::debug!(peer = %stream.connection.peer, "call reset: its caller does not read");
        Poll::Ready(())
    }
}

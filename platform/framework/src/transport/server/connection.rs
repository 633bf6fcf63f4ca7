//! The life of one connection: handshakes, requests, and the ways it ends.
//!
//! ```text
//! accepted ──TLS──▶ preface ──first request──▶ serving ──GOAWAY──▶ leaving ──▶ closed
//!     └───────── first_request_timeout ──────┘     age, idle, drain,   grace
//!                                                  place given away,
//!                                                  short of memory
//! ```
//!
//! HTTP/1.1 has no GOAWAY: whoever closes between two requests may meet the next one on its way,
//! and then it is lost. There, the next answer says that it is the last (`connection: close`), and
//! only who asks for nothing for a while is closed unannounced.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::task::TaskTracker;
use tower::Service;

use super::{
    Protocols,
    accept::Accepted,
    calls::{self, Executor},
    gate::{Place, Refused},
    handle::{Connection, Listed, Shared},
    limits::Limits,
    line::Notice,
    outflow::Outflow,
};
use crate::{BoxError, config::Size, status, transport::stall::Stall};

/// The least that hyper takes as the size of a buffer of HTTP/1.1.
const HTTP1_BUFFER_MIN: usize = 8_192;
/// How long a peer without a call may take to read that it must go.
const FAREWELL: Duration = Duration::from_secs(1);
/// Where connections are to become fewer, how long each is let be, and over what time they go after
/// that.
const THINNED: Duration = Duration::from_secs(10);
/// How long a peer of HTTP/1.1 has for a request whose answer says that it is the last.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// A connection that was let in.
pub(super) struct Opened {
    pub(super) accepted: Accepted,
    pub(super) at: Instant,
    pub(super) place: Arc<Place>,
    pub(super) listed: Listed,
    pub(super) shared: Arc<Shared>,
    pub(super) limits: Arc<Limits>,
    pub(super) protocols: Protocols,
    /// Whatever a draining listener waits for.
    pub(super) open: TaskTracker,
}

/// Serves one connection until it is closed, by whichever side.
pub(super) async fn run<S, B>(opened: Opened, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let cut = opened.listed.connection.cut.clone();
    // Dropping the connection resets its streams, and their handlers with them.
    let _ = cut.run_until_cancelled(serve(opened, service)).await;
}

async fn serve<S, B>(opened: Opened, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let Opened {
        accepted,
        at,
        place,
        listed,
        shared,
        limits,
        protocols,
        open,
    } = opened;
    let connection = &listed.connection;
    let first_request = at + limits.first_request_timeout;
    let mut notice = place.notice();
    let greeting = greet(accepted, first_request, protocols, &shared, &limits);
    // Cancel-safe: what is dropped is closed.
    let greeted = tokio::select! {
        biased;
        greeted = greeting => greeted,
        _ = notice.wait_for(|notice| matches!(notice, Notice::Leave | Notice::Cut)) => None,
    };
    let Some(mut io) = greeted else {
        return;
    };
    if protocols == Protocols::Http1And2 {
        // Nobody watches a call of HTTP/1.1: its connection has no other.
        io = Box::new(Stall::new(io, limits.write_stall_max));
    }
    let io = Outflow::new(io, Arc::clone(&connection.usage));
    let held = Arc::clone(&place);
    let (service, executor) = calls::of(service, Arc::clone(connection), held, open, &limits);
    let builder = http(&limits, protocols, executor);
    let mut http = pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut clock = Clock::new(at, first_request, protocols, &limits);
    // Not marked as seen: that the place is given away, said meanwhile, is heeded below.
    clock.thin(*notice.borrow() == Notice::Thin);
    let mut drain = pin!(shared.drain.cancelled());
    let mut timer = pin!(sleep_until(clock.next()));
    loop {
        // The connection itself comes first: what it can do now, it does before it ends.
        let tick = tokio::select! {
            biased;
            ended = http.as_mut() => return judge(ended, connection, &shared),
            () = drain.as_mut(), if clock.serving() => clock.drain(connection),
            // Its sender is the place's, which is held until the end.
            Ok(()) = notice.changed() => clock.heed(*notice.borrow_and_update(), connection),
            () = timer.as_mut() => clock.tick(connection),
        };
        match tick {
            Tick::Stay => {}
            Tick::Linger => place.keep(),
            Tick::Leave(reason) => {
                if let Some(reason) = reason {
                    shared.gate.count_refused(reason);
                }
                http.as_mut().graceful_shutdown();
            }
            Tick::Cut => return,
        }
        timer.as_mut().reset(clock.next());
    }
}

/// Options of the socket, and TLS where it is on; `None` if the peer did not get that far.
async fn greet(
    accepted: Accepted,
    until: Instant,
    protocols: Protocols,
    shared: &Shared,
    limits: &Limits,
) -> Option<Box<dyn Io>> {
    let stream = match accepted {
        Accepted::Memory(stream) => return Some(Box::new(stream)),
        Accepted::Tcp(stream, _) => stream,
    };
    if let Err(error) = set_options(&stream, limits) {
        // The peer is gone already; the next read says so.
        tracing::debug!(%error, "cannot set the options of a connection");
    }
    let Some(tls) = &shared.tls else {
        return Some(Box::new(stream));
    };
    let reason = match timeout_at(until, tls.acceptor(protocols).accept(stream)).await {
        Ok(Ok(stream)) => return Some(Box::new(stream)),
        Ok(Err(error)) => {
            tracing::debug!(error = %status::chain(&error), "tls handshake failed");
            Refused::Handshake
        }
        Err(_) => Refused::FirstRequest,
    };
    shared.gate.count_refused(reason);
    None
}

pub(super) fn set_options(stream: &TcpStream, limits: &Limits) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let timeout = u32::try_from(limits.keepalive_timeout.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(stream, timeout)?;
    Ok(())
}

fn http(limits: &Limits, protocols: Protocols, executor: Executor) -> auto::Builder<Executor> {
    let mut builder = auto::Builder::new(executor);
    builder
        .http1()
        .timer(TokioTimer::new())
        // From one answer to the next head; the first head has a clock of ours, too.
        .header_read_timeout(limits.http1_idle_max)
        .max_buf_size(limits.header_list_max.as_usize().max(HTTP1_BUFFER_MIN));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_local_error_reset_streams(limits.streams_reset_max)
        .max_pending_accept_reset_streams(limits.streams_reset_pending_max)
        .initial_stream_window_size(as_u32(limits.stream_window))
        .initial_connection_window_size(as_u32(limits.connection_window))
        .max_send_buf_size(limits.send_buffer.as_usize())
        .max_header_list_size(as_u32(limits.header_list_max))
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    match protocols {
        Protocols::Http2 => builder.http2_only(),
        Protocols::Http1And2 => builder,
    }
}

/// Sizes of HTTP/2 are of 32 bits, and the limits' bounds are within them.
fn as_u32(size: Size) -> u32 {
    u32::try_from(size.as_u64()).unwrap_or(u32::MAX)
}

/// Notes why a connection ended, where that says something about the peer.
fn judge(ended: Result<(), BoxError>, connection: &Connection, shared: &Shared) {
    let Err(error) = ended else {
        return;
    };
    let peer = connection.peer;
    tracing::debug!(%peer, error = %status::chain(&*error), "connection failed");
    let broke_protocol = error
        .source()
        .and_then(|source| source.downcast_ref::<h2::Error>())
        .is_some_and(|error| !error.is_io());
    if broke_protocol {
        shared.gate.count_refused(Refused::Protocol);
    }
}

/// What a connection runs on.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// When a connection must be looked at next, and what is due then.
struct Clock {
    opened: Instant,
    first_request: Option<Instant>,
    age: Instant,
    /// When it counts as old already, where connections are to become fewer.
    thinned: Option<Instant>,
    grace: Duration,
    /// How long a peer that had calls may take nothing of its last answer, and not go either. What it
    /// reads leaves here in lumps, as large as the buffers on the way.
    last_answer: Duration,
    idle_tick: Duration,
    idle_next: Instant,
    /// Calls seen, and ticks in a row that saw no other and none open.
    idle_calls: u64,
    idle_ticks: u32,
    leaving: bool,
    /// Whether it is cut even though nobody drains, once it takes nothing.
    unawaited: bool,
    /// What its peer had taken when that was last asked.
    taken: u64,
    /// Whether it has had the time for its last answer, which starts once it is clear that it has no
    /// call.
    patient: bool,
    protocols: Protocols,
    /// When it is told to go, where until then only answers say that it is.
    goodbye: Option<Instant>,
    /// When it is cut, unless calls of its last moments are still in flight.
    farewell: Option<Instant>,
    /// When it is cut.
    end: Option<Instant>,
}

/// What a moment asks for.
enum Tick {
    Stay,
    /// Stay for a call that came as the connection was told to go.
    Linger,
    Leave(Option<Refused>),
    Cut,
}

/// Idleness is looked for this many times within its limit, so that calls need no clock.
const IDLE_TICKS: u32 = 8;

impl Clock {
    fn new(at: Instant, first_request: Instant, protocols: Protocols, limits: &Limits) -> Self {
        // Connections opened together must not all come back together (gRFC A9).
        let jitter = 0.9 + 0.2 * fastrand::f64();
        let idle_tick = limits.connection_idle_max / IDLE_TICKS;
        Self {
            opened: at,
            thinned: None,
            first_request: Some(first_request),
            age: at + limits.connection_age_max.mul_f64(jitter),
            grace: limits.connection_age_grace,
            last_answer: limits.write_stall_max,
            idle_tick,
            idle_next: at + idle_tick,
            idle_calls: 0,
            idle_ticks: 0,
            leaving: false,
            unawaited: false,
            taken: 0,
            patient: false,
            protocols,
            goodbye: None,
            farewell: None,
            end: None,
        }
    }

    fn serving(&self) -> bool {
        !self.leaving
    }

    /// The process drains. Calls in flight end in their own time or by whoever bounds the drain;
    /// a peer that never sent a request is not waited for.
    fn drain(&mut self, connection: &Connection) -> Tick {
        self.leaving = true;
        if self.may_tell(connection) {
            Tick::Leave(None)
        } else {
            Tick::Stay
        }
    }

    /// Whether connections are to become fewer. Not all at once: those who come back would, too.
    fn thin(&mut self, thin: bool) {
        let from = Instant::now().max(self.opened + THINNED);
        self.thinned = thin.then(|| from + THINNED.mul_f64(fastrand::f64()));
    }

    /// Others want the place, or connections are to become fewer. Read after what the peer had sent: a
    /// call that came is not given up.
    fn heed(&mut self, notice: Notice, connection: &Connection) -> Tick {
        if matches!(notice, Notice::Stay | Notice::Thin) {
            self.thin(notice == Notice::Thin);
            Tick::Stay
        } else if connection.usage.open() > 0 {
            Tick::Linger
        } else if notice == Notice::Cut {
            Tick::Cut
        } else {
            self.leave_unused(None, connection)
        }
    }

    /// Whether the peer can be told to go without losing a request that is on its way: always where
    /// there is GOAWAY. Else that comes later, and until then with its next answer.
    fn may_tell(&mut self, connection: &Connection) -> bool {
        let unused = connection.usage.begun() == 0;
        // Of a peer that has not asked for anything it is not known which it speaks.
        let http1 = connection.http1.load(Ordering::Acquire) || unused;
        if self.protocols == Protocols::Http1And2 && http1 {
            connection.last_answer.store(true, Ordering::Release);
            self.goodbye = Some(Instant::now() + LAST_REQUEST);
            return false;
        }
        self.say_farewell(connection);
        true
    }

    /// The peer is told to go, and from now on it has a moment to do so.
    fn say_farewell(&mut self, connection: &Connection) {
        connection.usage.takes(&mut self.taken);
        let bounded = self.unawaited || connection.usage.begun() == 0;
        self.farewell = bounded.then(|| Instant::now() + FAREWELL);
    }

    /// Nobody waits for the peer, who has no call.
    fn leave_unused(&mut self, reason: Option<Refused>, connection: &Connection) -> Tick {
        self.leaving = true;
        self.unawaited = true;
        if connection.usage.begun() == 0 {
            self.say_farewell(connection);
        } else if !self.may_tell(connection) {
            return Tick::Stay;
        }
        Tick::Leave(reason)
    }

    fn next(&self) -> Instant {
        if self.leaving {
            // Without an end of its own, the end is whoever drains' to bring.
            let due = [self.goodbye, self.farewell, self.end];
            return due.into_iter().flatten().min().unwrap_or_else(far_away);
        }
        let soonest = self.old_at().min(self.idle_next);
        self.first_request
            .map_or(soonest, |first| first.min(soonest))
    }

    fn old_at(&self) -> Instant {
        self.thinned.map_or(self.age, |at| at.min(self.age))
    }

    fn tick(&mut self, connection: &Connection) -> Tick {
        let now = Instant::now();
        if self.leaving {
            return self.part(now, connection);
        }
        let calls = connection.usage.begun();
        if self.first_request.is_some_and(|first| first <= now) {
            self.first_request = None;
            if calls == 0 {
                return self.leave_unused(Some(Refused::FirstRequest), connection);
            }
        }
        if self.old_at() <= now {
            self.leaving = true;
            self.end = Some(now + self.grace);
            return if self.may_tell(connection) {
                Tick::Leave(None)
            } else {
                Tick::Stay
            };
        }
        if self.idle_next <= now {
            self.idle_next = now + self.idle_tick;
            let idle = calls == self.idle_calls && connection.usage.open() == 0;
            self.idle_calls = calls;
            self.idle_ticks = if idle { self.idle_ticks + 1 } else { 0 };
            if self.idle_ticks >= IDLE_TICKS {
                return self.leave_unused(None, connection);
            }
        }
        Tick::Stay
    }

    /// What is due of a connection that leaves.
    fn part(&mut self, now: Instant, connection: &Connection) -> Tick {
        if self.end.is_some_and(|end| end <= now) {
            return Tick::Cut;
        }
        if self.goodbye.take_if(|at| *at <= now).is_some() {
            self.say_farewell(connection);
            return Tick::Leave(None);
        }
        if self.farewell.take_if(|at| *at <= now).is_some() {
            if connection.usage.open() > 0 {
                self.end.get_or_insert(now + self.grace);
                return Tick::Linger;
            }
            let takes = connection.usage.takes(&mut self.taken);
            if takes {
                // Its last answer is on the way.
                self.end.get_or_insert(now + self.grace);
            } else if self.patient || connection.usage.begun() == 0 {
                return Tick::Cut;
            }
            self.patient = true;
            self.farewell = Some(now + self.last_answer);
        }
        Tick::Stay
    }
}

fn far_away() -> Instant {
    Instant::now() + Duration::from_hours(24)
}

//! One HTTP/2 connection: its streams, its limits, and the task that drives it.

use std::{
    fmt,
    future::poll_fn,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason,
    client::{self, SendRequest},
};
use http::{Request, uri::Authority, uri::Scheme};
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::{
    Config,
    connect::{Io, Watched},
    keepalive::{Keepalive, Leave},
    pool::Pool,
};
use crate::{shutdown::Tasks, status};

/// Before the peer's SETTINGS arrive no stream may be opened: a peer that never sends them does
/// not speak HTTP/2, and a limit it does not know of cannot be kept.
const STREAMS_BEFORE_SETTINGS: usize = 0;
/// What one stream may have in flight towards us; above the default message limit's quarter, so
/// that a large message does not wait for every window update.
const STREAM_WINDOW: u32 = 1 << 20;
/// What all streams together may have in flight towards us.
const CONNECTION_WINDOW: u32 = 8 << 20;
/// What h2 buffers per stream on its way out before the pump has to wait.
const SEND_BUFFER_MAX: usize = 1 << 20;
/// Calls that we gave up and whose last frames are waited for, and for how long. Callers and peers
/// stop at the same deadline, so what a peer still says of such a call is on its way as a rule.
const RESETS_REMEMBERED: usize = 16 * 1024;
const RESET_REMEMBERED: Duration = Duration::from_secs(10);
/// Frames about calls no longer remembered, over a connection's life: an honest peer needs few, and
/// one that sends them without end, each asking for a frame of ours, is left.
const RESETS_MAX: usize = 64 * 1024;
/// Largest header list taken from a peer.
const HEADER_LIST_MAX: u32 = 16 * 1024;

/// An HTTP/2 connection that was set up; places on it are handed out by [`Connection::open`].
#[derive(Debug)]
pub(super) struct Connection {
    send: SendRequest<Bytes>,
    shared: Arc<Shared>,
}

/// What the driver and the streams of a connection share. It does not hold the connection open.
pub(super) struct Shared {
    pub(super) peer: SocketAddr,
    pub(super) authority: Authority,
    pub(super) scheme: Scheme,
    pub(super) tasks: Tasks,
    pool: Arc<Pool>,
    streams_open: AtomicUsize,
    /// The peer's limit, current after every poll of the connection.
    streams_max: AtomicUsize,
    health: AtomicU8,
    retired: CancellationToken,
    /// Why the connection ended or takes no more calls.
    reason: OnceLock<String>,
    /// The peer complained about our pings.
    calm_wanted: AtomicBool,
    /// The peer ended the connection in good order.
    said_goodbye: AtomicBool,
    /// A call was answered.
    answered: AtomicBool,
    /// How often it may be pinged.
    pub(super) leave_to_ping: Leave,
}

/// What the peer says about its own health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Health {
    /// It has not said yet.
    Unknown,
    /// It takes calls.
    Serving,
    /// It takes none.
    NotServing,
}

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetupError {
    #[error("connect")]
    Connect(#[source] std::io::Error),
    #[error("HTTP/2 preface")]
    Preface(#[source] h2::Error),
    #[error("closed before HTTP/2 SETTINGS by the peer")]
    Left,
    #[error("closed before HTTP/2 SETTINGS")]
    Closed(#[source] h2::Error),
    #[error("no HTTP/2 connection within {0:?}")]
    Timeout(std::time::Duration),
}

impl Connection {
    /// Speaks HTTP/2 on `io` and starts the task that drives it; returns once the peer's
    /// SETTINGS have arrived. Dropping the future closes the connection.
    pub(super) async fn set_up(
        io: Box<dyn Io>,
        shared: Arc<Shared>,
        config: &Config,
    ) -> Result<Arc<Self>, SetupError> {
        let heard = Arc::new(AtomicBool::new(false));
        let io = Watched::new(io, Arc::clone(&heard));
        let (send, mut connection) = client::Builder::new()
            .enable_push(false)
            .initial_max_send_streams(STREAMS_BEFORE_SETTINGS)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER_MAX)
            .max_header_list_size(HEADER_LIST_MAX)
            .max_concurrent_reset_streams(RESETS_REMEMBERED)
            .reset_stream_duration(RESET_REMEMBERED)
            .max_local_error_reset_streams(Some(RESETS_MAX))
            .handshake::<_, Bytes>(io)
            .await
            .map_err(SetupError::Preface)?;
        let keepalive = config.keepalive_interval.and_then(|interval| {
            let ping_pong = connection.ping_pong()?;
            Some(Keepalive::new(
                ping_pong,
                interval,
                config.keepalive_timeout,
                heard,
            ))
        });
        // Until SETTINGS arrive the connection is driven from here, so that giving up closes it.
        poll_fn(|cx| match std::pin::Pin::new(&mut connection).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Err(SetupError::Left)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(SetupError::Closed(error))),
            Poll::Pending => {
                let streams_max = connection.max_concurrent_send_streams();
                if streams_max == STREAMS_BEFORE_SETTINGS {
                    return Poll::Pending;
                }
                shared.streams_max.store(streams_max, Ordering::SeqCst);
                Poll::Ready(Ok(()))
            }
        })
        .await?;

        let driver = Driver {
            connection,
            probe: Some(send.clone()),
            keepalive,
            shared: Arc::clone(&shared),
        };
        shared.tasks.spawn("connection", driver.run());
        Ok(Arc::new(Self { send, shared }))
    }

    /// Takes a place, if the connection takes calls and the peer's limit leaves one.
    pub(super) fn open(connection: &Arc<Self>) -> Option<Slot> {
        let shared = &connection.shared;
        if !shared.is_usable() {
            return None;
        }
        Self::place(connection, true)
    }

    /// Whether there is such a place.
    pub(super) fn has_room(&self) -> bool {
        let shared = &self.shared;
        let open = shared.streams_open.load(Ordering::SeqCst);
        shared.is_usable() && open < shared.streams_max.load(Ordering::SeqCst)
    }

    /// As [`Connection::open`], for the health watch that finds out whether calls may be sent.
    pub(super) fn open_to_watch(connection: &Arc<Self>) -> Option<Slot> {
        Self::place(connection, false)
    }

    fn place(connection: &Arc<Self>, is_call: bool) -> Option<Slot> {
        let shared = &connection.shared;
        let streams_max = shared.streams_max.load(Ordering::SeqCst);
        shared
            .streams_open
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |open| {
                (open < streams_max).then_some(open + 1)
            })
            .ok()
            .map(|_| Slot {
                connection: Arc::clone(connection),
                is_call,
            })
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Shared {
    pub(super) fn new(
        peer: SocketAddr,
        authority: Authority,
        scheme: Scheme,
        pool: Arc<Pool>,
        tasks: Tasks,
        health: Health,
        leave_to_ping: Leave,
    ) -> Self {
        Self {
            peer,
            authority,
            scheme,
            tasks,
            pool,
            streams_open: AtomicUsize::new(0),
            streams_max: AtomicUsize::new(0),
            health: AtomicU8::new(health as u8),
            retired: CancellationToken::new(),
            reason: OnceLock::new(),
            calm_wanted: AtomicBool::new(false),
            said_goodbye: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            leave_to_ping,
        }
    }

    /// Whether new calls may be sent.
    pub(super) fn is_usable(&self) -> bool {
        !self.is_retired() && self.health() == Health::Serving
    }

    /// Each pick asks, and the token would take a lock to answer.
    pub(super) fn is_retired(&self) -> bool {
        self.reason.get().is_some()
    }

    /// Cancelled once the connection takes no more calls.
    pub(super) fn retired(&self) -> &CancellationToken {
        &self.retired
    }

    /// Takes no more calls, for `reason`; streams in flight go on. The first reason stays.
    pub(super) fn retire(&self, reason: impl Into<String>) {
        drop(self.reason.set(reason.into()));
        self.retired.cancel();
        self.pool.changed.notify_one();
    }

    /// Takes no more calls, because of `error`.
    pub(super) fn retire_by(&self, error: &h2::Error) {
        if error.is_go_away() && error.is_remote() {
            let noted = match error.reason() {
                Some(Reason::ENHANCE_YOUR_CALM) => Some(&self.calm_wanted),
                Some(Reason::NO_ERROR) => Some(&self.said_goodbye),
                _ => None,
            };
            if let Some(noted) = noted {
                noted.store(true, Ordering::SeqCst);
            }
        }
        self.retire(status::chain(error));
    }

    /// Why the connection takes no more calls.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    pub(super) fn health(&self) -> Health {
        match self.health.load(Ordering::SeqCst) {
            0 => Health::Unknown,
            1 => Health::Serving,
            _ => Health::NotServing,
        }
    }

    pub(super) fn set_health(&self, health: Health) {
        let before = self.health.swap(health as u8, Ordering::SeqCst);
        if before != health as u8 {
            self.pool.changed.notify_one();
        }
    }

    pub(super) fn streams_open(&self) -> usize {
        self.streams_open.load(Ordering::SeqCst)
    }

    pub(super) fn streams_max(&self) -> usize {
        self.streams_max.load(Ordering::SeqCst)
    }

    /// Whether the peer ended the connection in good order.
    pub(super) fn said_goodbye(&self) -> bool {
        self.said_goodbye.load(Ordering::SeqCst)
    }

    /// Whether a call was answered, the health watch aside.
    pub(super) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Whether the peer ended the connection because of our pings.
    pub(super) fn calm_wanted(&self) -> bool {
        self.calm_wanted.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .field("streams_open", &self.streams_open)
            .field("streams_max", &self.streams_max)
            .field("health", &self.health())
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// A place for one stream, counted against the peer's limit until dropped. It keeps its
/// connection open.
#[derive(Debug)]
pub struct Slot {
    connection: Arc<Connection>,
    is_call: bool,
}

impl Slot {
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.connection.shared
    }

    /// The stream's answer began.
    pub(super) fn answered(&self) {
        // Read first: written once, it stays in every core's cache.
        if self.is_call && !self.shared().has_answered() {
            self.shared().answered.store(true, Ordering::Relaxed);
        }
    }

    /// Opens the stream.
    pub(super) fn send_request(
        &self,
        request: Request<()>,
        last: bool,
    ) -> Result<(client::ResponseFuture, h2::SendStream<Bytes>), h2::Error> {
        // A clone, because one that was used remembers a stream that was not opened yet and
        // refuses the next; places are counted here instead.
        self.connection.send.clone().send_request(request, last)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let shared = &self.connection.shared;
        shared.streams_open.fetch_sub(1, Ordering::SeqCst);
        shared.pool.serve();
    }
}

/// Drives a connection to its end.
struct Driver {
    connection: client::Connection<Watched, Bytes>,
    /// Finds out about a GOAWAY: a connection that received one goes on without a word as long as
    /// a stream is open. Goes with it, since a clone holds the connection open.
    probe: Option<SendRequest<Bytes>>,
    keepalive: Option<Keepalive>,
    shared: Arc<Shared>,
}

impl Driver {
    async fn run(mut self) {
        let stopping = self.shared.tasks.stopping();
        let retired = self.shared.retired.clone();
        let ended = {
            let driving = poll_fn(|cx| self.poll(cx));
            let mut driving = std::pin::pin!(driving);
            tokio::select! {
                ended = &mut driving => ended,
                () = stopping.cancelled() => "shut down".to_owned(),
                // Polled once more at once, to let go of the probe.
                () = retired.cancelled() => tokio::select! {
                    ended = driving => ended,
                    () = stopping.cancelled() => "shut down".to_owned(),
                },
            }
        };
        // Before the connection goes: that ends the streams, whose callers ask why.
        self.shared.retire(ended);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        if self.shared.is_retired() {
            self.probe = None;
        }
        match std::pin::Pin::new(&mut self.connection).poll(cx) {
            Poll::Ready(Ok(())) => {
                // Also where a GOAWAY left no stream: the probe knows.
                self.probe(cx);
                return Poll::Ready("closed by the peer".to_owned());
            }
            Poll::Ready(Err(error)) => {
                self.shared.retire_by(&error);
                return Poll::Ready(status::chain(&error));
            }
            Poll::Pending => {}
        }
        let streams_max = self.connection.max_concurrent_send_streams();
        let before = self.shared.streams_max.swap(streams_max, Ordering::SeqCst);
        if before < streams_max {
            self.shared.pool.serve();
        }
        self.probe(cx);
        if let Some(keepalive) = &mut self.keepalive
            && keepalive
                .poll_dead(&self.shared.leave_to_ping, cx)
                .is_ready()
        {
            return Poll::Ready(format!(
                "keepalive: nothing heard for {:?} after a ping",
                keepalive.timeout()
            ));
        }
        Poll::Pending
    }

    /// Finds out whether the peer said that it takes no more calls.
    fn probe(&mut self, cx: &mut Context<'_>) {
        if let Some(probe) = &mut self.probe
            && let Poll::Ready(Err(error)) = probe.poll_ready(cx)
        {
            self.probe = None;
            self.shared.retire_by(&error);
        }
    }
}

/// Bounds a set-up by `timeout`.
pub(super) async fn within<T>(
    timeout: std::time::Duration,
    set_up: impl Future<Output = Result<T, SetupError>>,
) -> Result<T, SetupError> {
    time::timeout(timeout, set_up)
        .await
        .unwrap_or(Err(SetupError::Timeout(timeout)))
}

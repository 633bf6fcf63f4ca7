//! One endpoint's connections, on h2 directly.
//!
//! A [`Subchannel`] keeps its endpoint connected: it connects, waits for the peer's SETTINGS and
//! its word that it serves, backs off when that fails, notices GOAWAY and silence, and opens
//! further connections when the peer's limit on streams is reached. A call asks it for a
//! [`Slot`], a place for one stream, and spends it in [`exchange`].
//!
//! ```text
//! supervisor task ──owns──▶ Connection ──driven by──▶ connection task ──▶ keepalive
//!       │ publishes usable      ▲   ▲                health watch task
//!       ▼                       │   │
//!     Pool ◀── ask ── call ──▶ Slot ──exchange──▶ Incoming (holds the slot to its end)
//! ```

mod connect;
mod connection;
mod exchange;
mod health;
mod keepalive;
mod outgoing;
mod pool;
mod pump;
mod supervisor;
mod tls;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use http::uri::Authority;
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use self::{
    pool::{Asked, Pool},
    supervisor::Supervisor,
};
use crate::{
    backoff,
    shutdown::Tasks,
    telemetry::metric::{Label, Value},
};

pub(crate) use self::keepalive::{PING_INTERVAL_MIN, PING_INTERVAL_MIN_OURS};
pub use self::{
    connect::{Connect, Io, Tcp},
    connection::Slot,
    exchange::{Exchange, Failed, Incoming, exchange},
    outgoing::{Outgoing, REPLAY_MAX, Replayable},
    tls::{Tls, TlsFiles},
};

/// How an endpoint is connected to.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Longest time from the first packet to the peer's SETTINGS, TLS included.
    pub connect_timeout: Duration,
    /// Pauses between failed connections. Valid, see [`backoff::Backoff::new`].
    pub backoff: backoff::Config,
    /// How long nothing is heard before a peer is pinged that says, by its health watch, that it
    /// bears that; none switches pings off.
    pub keepalive_interval: Option<Duration>,
    /// Whether that holds for every peer. Else those that say nothing are pinged every five
    /// minutes, as often as any gRPC server bears (gRFC A8).
    pub keepalive_always: bool,
    /// How long a ping may stay without any byte in return.
    pub keepalive_timeout: Duration,
    /// Connections to one endpoint at most. At least 1.
    pub connections_max: usize,
    /// Calls that may wait for a place at one endpoint.
    pub waiting_max: usize,
    /// The service whose health the endpoint must report before it gets calls; `""` is the
    /// endpoint as a whole, none takes every connected endpoint for healthy.
    pub health: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            backoff: backoff::Config::default(),
            keepalive_interval: Some(Duration::from_secs(5)),
            keepalive_always: false,
            keepalive_timeout: Duration::from_secs(5),
            connections_max: 10,
            waiting_max: 4_096,
            health: Some(String::new()),
        }
    }
}

/// Whether an endpoint can be used, as gRPC names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Connectivity {
    /// Nothing was tried yet.
    Idle,
    /// A connection is being made, or waits for the peer's first word on its health.
    Connecting,
    /// Calls are taken.
    Ready,
    /// The last connection failed and the next one waits, or the peer says it does not serve.
    TransientFailure,
    /// Closed for good.
    Shutdown,
}

impl Connectivity {
    /// The word for this state in interfaces.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "IDLE",
            Self::Connecting => "CONNECTING",
            Self::Ready => "READY",
            Self::TransientFailure => "TRANSIENT_FAILURE",
            Self::Shutdown => "SHUTDOWN",
        }
    }
}

impl Label for Connectivity {
    const COUNT: usize = 5;

    fn index(self) -> usize {
        self as usize
    }

    fn write(self, values: &mut Vec<Value>) {
        values.push(self.as_str().into());
    }

    fn all() -> Vec<Self> {
        vec![
            Self::Idle,
            Self::Connecting,
            Self::Ready,
            Self::TransientFailure,
            Self::Shutdown,
        ]
    }
}

impl fmt::Display for Connectivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The state of a subchannel at one moment.
#[derive(Debug, Clone)]
pub struct State {
    /// Whether it can be used.
    pub connectivity: Connectivity,
    /// Since when.
    pub since: Instant,
    /// What went wrong last, if it is not ready.
    pub error: Option<Arc<str>>,
    /// How often it was connected that had no connection: whoever answers now may be another each time.
    pub lives: u64,
}

/// Why there is no place for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoSlot {
    /// The endpoint is not connected; another one may be.
    #[error("not connected")]
    Gone,
    /// Too many calls wait already.
    #[error("too many calls wait for a stream")]
    Full,
}

/// What subchannels of one target share.
#[derive(Clone)]
pub struct Common {
    /// How they connect.
    pub config: Arc<Config>,
    /// What they connect through.
    pub connector: Arc<dyn Connect>,
    /// Who owns their tasks.
    pub tasks: Tasks,
    /// Notified when any of them changes its state.
    pub on_change: Arc<Notify>,
    /// One permit for each connection that may be on its way at once; others wait in line. So that
    /// a list of thousands of endpoints, right or wrong, does not take every descriptor and port.
    pub connects: Arc<Semaphore>,
}

/// How many connections to one target may be on their way at once. Large enough that even in a
/// list of a thousand addresses that swallow connections the others are reached soon.
pub const CONNECTS_MAX: usize = 256;

impl fmt::Debug for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Common")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Keeps one endpoint connected until it is closed or dropped.
#[derive(Debug)]
pub struct Subchannel {
    pool: Arc<Pool>,
    state: watch::Receiver<State>,
    closing: CancellationToken,
}

impl Subchannel {
    /// Starts to connect, in a task of its own; returns at once.
    ///
    /// # Panics
    ///
    /// If the backoff of the configuration is not valid, or outside a runtime.
    #[must_use]
    pub fn start(addr: SocketAddr, authority: Authority, common: Common) -> Self {
        let pool = Arc::new(Pool::new(common.config.waiting_max));
        let (state, states) = watch::channel(State {
            connectivity: Connectivity::Idle,
            since: Instant::now(),
            error: None,
            lives: 0,
        });
        let closing = CancellationToken::new();
        let tasks = common.tasks.clone();
        let supervisor = Supervisor {
            endpoint: supervisor::Endpoint { addr, authority },
            config: common.config,
            connector: common.connector,
            pool: Arc::clone(&pool),
            state,
            on_change: common.on_change,
            connects: common.connects,
            closing: closing.clone(),
            tasks: common.tasks,
        };
        tasks.spawn("subchannel", supervisor.run());
        Self {
            pool,
            state: states,
            closing,
        }
    }

    /// A place for one stream; waits in line, first come first served, while the peer's limits
    /// leave none. Dropping the future leaves the line.
    ///
    /// # Errors
    ///
    /// If the endpoint is not connected or the line is full.
    pub async fn slot(&self) -> Result<Slot, NoSlot> {
        match self.pool.ask() {
            Asked::Slot(slot) => Ok(slot),
            Asked::Wait(place) => place.await.map_err(|_| NoSlot::Gone),
            Asked::Gone => Err(NoSlot::Gone),
            Asked::Full => Err(NoSlot::Full),
        }
    }

    /// A place for one stream that is free at this moment, where nobody is in line for it.
    #[must_use]
    pub fn free_slot(&self) -> Option<Slot> {
        self.pool.free()
    }

    /// Whether there is one.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.pool.has_room()
    }

    /// Whether some connection takes calls at this moment, a full one included.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.pool.is_usable()
    }

    /// The state at this moment.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Every state from now on.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Connections that take calls.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.pool.len()
    }

    /// Takes no more calls; streams in flight go on.
    pub fn close(&self) {
        self.closing.cancel();
    }
}

impl Drop for Subchannel {
    fn drop(&mut self) {
        self.close();
    }
}

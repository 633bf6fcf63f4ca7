//! Keeps one endpoint connected.
//!
//! One task owns the endpoint's connections. It is level-triggered: woken by anything, it looks at
//! how things are, publishes what can be used, and starts what is missing.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{Semaphore, watch},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    Config, Connectivity, State,
    connect::Connect,
    connection::{self, Connection, Health, SetupError, Shared},
    health,
    keepalive::Leave,
    pool::Pool,
};
use crate::{backoff::Backoff, shutdown::Tasks, status};

/// A connection that lasted less is no success, unless it took calls and ended in good order: the
/// next one waits.
const LIFE_MIN: Duration = Duration::from_secs(1);
/// How many such in a row may end in good order before the next one waits all the same.
const GOODBYES_MAX: u32 = 3;
/// How often connections beyond the first are looked at; one unused at two looks in a row goes.
const IDLE: Duration = Duration::from_secs(30);
/// Keepalive intervals grow at most this often for a peer that wants calm.
const CALM_MAX: u32 = 6;

pub(super) struct Supervisor {
    pub(super) endpoint: Endpoint,
    pub(super) config: Arc<Config>,
    pub(super) connector: Arc<dyn Connect>,
    pub(super) pool: Arc<Pool>,
    pub(super) state: watch::Sender<State>,
    pub(super) on_change: Arc<tokio::sync::Notify>,
    pub(super) connects: Arc<Semaphore>,
    pub(super) closing: CancellationToken,
    pub(super) tasks: Tasks,
}

/// Whom the connections are made to.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub(super) addr: std::net::SocketAddr,
    pub(super) authority: http::uri::Authority,
}

/// What the task owns.
struct Owned {
    live: Vec<Live>,
    connecting: FuturesUnordered<BoxFuture<'static, Result<Arc<Connection>, SetupError>>>,
    backoff: Backoff,
    /// No connection is begun before this.
    not_before: Instant,
    error: Option<Arc<str>>,
    calm: u32,
    /// Connections in a row that ended young and in good order.
    goodbyes: u32,
    /// When idle connections are looked for.
    next_look: Instant,
    /// How often a connection was made while there was none.
    lives: u64,
}

struct Live {
    connection: Arc<Connection>,
    since: Instant,
    /// Whether it carried no call when last looked at.
    idle: bool,
}

impl Supervisor {
    /// Runs until the subchannel is closed or its owner stops.
    pub(super) async fn run(self) {
        let stopping = self.tasks.stopping();
        let mut owned = Owned {
            live: Vec::new(),
            connecting: FuturesUnordered::new(),
            backoff: Backoff::new(self.config.backoff).expect("checked when the target was built"),
            not_before: Instant::now(),
            error: None,
            calm: 0,
            goodbyes: 0,
            next_look: Instant::now() + IDLE,
            lives: 0,
        };
        loop {
            self.tend(&mut owned);
            // Every arm is a level: what is missed in one round is seen in the next.
            tokio::select! {
                () = self.closing.cancelled() => break,
                () = stopping.cancelled() => break,
                () = self.pool.changed.notified() => {}
                Some(made) = owned.connecting.next(), if !owned.connecting.is_empty() => {
                    self.made(&mut owned, made);
                }
                () = time::sleep_until(owned.not_before), if owned.pauses() => {}
                () = time::sleep_until(owned.next_look), if owned.live.len() > 1 => {
                    self.shrink(&mut owned);
                }
            }
        }
        self.pool.publish(Vec::new());
        for live in &owned.live {
            // Streams in flight go on; the connection ends with the last of them.
            live.connection.shared().retire("the endpoint left");
        }
        self.set_state(Connectivity::Shutdown, None, owned.lives);
    }

    /// Looks at how things are and acts on it.
    fn tend(&self, owned: &mut Owned) {
        self.bury(owned);
        let usable: Vec<_> = owned
            .live
            .iter()
            .filter(|live| live.connection.shared().is_usable())
            .map(|live| Arc::clone(&live.connection))
            .collect();
        let usable_any = !usable.is_empty();
        // First, so that those in line whom the newest connection takes ask for no other.
        self.pool.publish(usable.clone());
        let missing = self.missing(owned, &usable);
        for _ in 0..missing {
            owned.connecting.push(self.connect(owned.calm));
        }
        let (connectivity, error) = if usable_any {
            (Connectivity::Ready, None)
        } else if owned.live.iter().any(Live::is_unhealthy) {
            let error = "the endpoint reports that it does not serve";
            (Connectivity::TransientFailure, Some(error.into()))
        } else if owned.pauses() && owned.live.is_empty() {
            (Connectivity::TransientFailure, owned.error.clone())
        } else {
            // The last error stays visible until a connection holds.
            (Connectivity::Connecting, owned.error.clone())
        };
        self.set_state(connectivity, error, owned.lives);
    }

    /// Lets go of connections that take no more calls.
    fn bury(&self, owned: &mut Owned) {
        let (retired, live) = std::mem::take(&mut owned.live)
            .into_iter()
            .partition::<Vec<_>, _>(|live| live.connection.shared().is_retired());
        owned.live = live;
        for dead in retired {
            let shared = dead.connection.shared();
            let reason = shared.reason().unwrap_or("retired");
            tracing::debug!(endpoint = %self.endpoint.addr, reason, "connection retired");
            owned.error = Some(reason.into());
            if shared.calm_wanted() {
                owned.calm = (owned.calm + 1).min(CALM_MAX);
            }
            let took_calls = shared.has_answered() && shared.said_goodbye();
            if took_calls || dead.since.elapsed() >= LIFE_MIN {
                owned.backoff.reset();
                owned.goodbyes = 0;
            } else if owned.live.is_empty() {
                owned.ended_young(shared.said_goodbye());
            }
        }
    }

    /// Retires connections that were opened for a peak and are not needed any more.
    fn shrink(&self, owned: &mut Owned) {
        owned.next_look = Instant::now() + IDLE;
        let watches = usize::from(self.config.health.is_some());
        for live in owned.live.iter_mut().skip(1) {
            let shared = live.connection.shared();
            let idle = shared.streams_open() <= watches;
            if idle && live.idle {
                shared.retire("not needed any more");
            }
            live.idle = idle;
        }
    }

    /// How many connections to begin now.
    fn missing(&self, owned: &Owned, usable: &[Arc<Connection>]) -> usize {
        if owned.pauses() {
            return 0;
        }
        let wanted = if owned.live.is_empty() {
            1
        } else {
            // As many as those in line fill, judged by what the peer allows on the others.
            let waiting = self.pool.waiting_count();
            let streams_max = usable
                .iter()
                .map(|connection| connection.shared().streams_max())
                .max()
                .unwrap_or(0);
            match streams_max {
                0 => 0,
                streams_max => waiting.div_ceil(streams_max),
            }
        };
        let held = owned.live.len() + owned.connecting.len();
        let room = self.config.connections_max.saturating_sub(held);
        wanted.saturating_sub(owned.coming()).min(room)
    }

    fn connect(&self, calm: u32) -> BoxFuture<'static, Result<Arc<Connection>, SetupError>> {
        let connector = Arc::clone(&self.connector);
        let mut config = Config::clone(&self.config);
        config.keepalive_interval = config.keepalive_interval.map(|pause| pause * (1 << calm));
        let scheme = if connector.is_secure() {
            http::uri::Scheme::HTTPS
        } else {
            http::uri::Scheme::HTTP
        };
        let health = match config.health {
            Some(_) => Health::Unknown,
            None => Health::Serving,
        };
        let shared = Arc::new(Shared::new(
            self.endpoint.addr,
            self.endpoint.authority.clone(),
            scheme,
            Arc::clone(&self.pool),
            self.tasks.clone(),
            health,
            Leave::new(config.keepalive_always),
        ));
        let addr = self.endpoint.addr;
        let connects = Arc::clone(&self.connects);
        Box::pin(async move {
            // Never closed; and waiting in line is not the endpoint's fault.
            let _turn = connects.acquire_owned().await;
            let timeout = config.connect_timeout;
            connection::within(timeout, async move {
                let io = connector.connect(addr).await.map_err(SetupError::Connect)?;
                Connection::set_up(io, shared, &config).await
            })
            .await
        })
    }

    /// Takes in a connection that was made, or notes why there is none.
    fn made(&self, owned: &mut Owned, made: Result<Arc<Connection>, SetupError>) {
        match made {
            Ok(connection) => {
                self.watch_health(owned, &connection);
                let mut others = owned.live.iter();
                if others.all(|live| live.connection.shared().is_retired()) {
                    owned.lives += 1;
                }
                owned.live.push(Live {
                    connection,
                    since: Instant::now(),
                    idle: false,
                });
            }
            Err(error) => {
                owned.ended_young(matches!(error, SetupError::Left));
                let error = status::chain(&error);
                tracing::debug!(endpoint = %self.endpoint.addr, error, "no connection");
                owned.error = Some(error.into());
            }
        }
    }

    fn watch_health(&self, owned: &Owned, connection: &Arc<Connection>) {
        let Some(service) = &self.config.health else {
            return;
        };
        // Where a single stream is allowed, watching would leave none for calls.
        if connection.shared().streams_max() <= 1 {
            connection.shared().set_health(Health::Serving);
            return;
        }
        let mut backoff = owned.backoff.clone();
        backoff.reset();
        let watch = health::watch(Arc::clone(connection), service.clone(), backoff);
        self.tasks.spawn("health watch", watch);
    }

    fn set_state(&self, connectivity: Connectivity, error: Option<Arc<str>>, lives: u64) {
        let changed = self.state.send_if_modified(|state| {
            let same =
                state.connectivity == connectivity && state.error == error && state.lives == lives;
            if !same {
                if state.connectivity != connectivity {
                    state.since = Instant::now();
                }
                state.connectivity = connectivity;
                state.error = error;
                state.lives = lives;
            }
            !same
        });
        if changed {
            self.on_change.notify_one();
        }
    }
}

impl Owned {
    /// Whether the next connection waits for its time.
    fn pauses(&self) -> bool {
        Instant::now() < self.not_before
    }

    /// The last connection ended soon after it was made. Whoever said goodbye has another in its
    /// place, as at a restart; or does nothing else, which is no success either.
    fn ended_young(&mut self, said_goodbye: bool) {
        if said_goodbye && self.goodbyes < GOODBYES_MAX {
            self.goodbyes += 1;
        } else {
            self.not_before = Instant::now() + self.backoff.next_pause();
        }
    }

    /// Connections that may take calls soon.
    fn coming(&self) -> usize {
        let unheard = self
            .live
            .iter()
            .filter(|live| live.connection.shared().health() == Health::Unknown);
        self.connecting.len() + unheard.count()
    }
}

impl Live {
    fn is_unhealthy(&self) -> bool {
        self.connection.shared().health() == Health::NotServing
    }
}

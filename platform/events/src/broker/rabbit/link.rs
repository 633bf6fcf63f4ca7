//! A connection that is made when somebody wants it, and made again when it is gone.
//!
//! Whoever wants it makes it, one at a time; those that waited meanwhile have what came of it, good or
//! bad. Between two tries there is a pause that grows, also where connections come about and break off
//! at once. That it is gone is told once, and once that it is back.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gantry::{
    backoff::{self, Backoff},
    journal::{Journal, Kind},
};
use lapin::Connection;
use tokio::time::{self, Instant};
use tracing::{info, warn};

use crate::broker::rabbit::{connect::connect, failure::Failure, place::Place};

/// Longest time for a connection to come about: TCP, TLS, and who we are.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a connection has to last to count as a good one.
const LASTING: Duration = Duration::from_secs(30);

/// Pauses between tries.
const PAUSES: backoff::Config = backoff::Config {
    min: Duration::from_millis(100),
    max: Duration::from_secs(5),
    multiplier: 1.8,
    jitter: 0.2,
};

/// A connection, whenever there is one.
#[derive(Debug)]
pub(super) struct Link {
    place: Arc<Place>,
    /// What it is for, as it is called in RabbitMQ and in logs.
    name: String,
    journal: Journal,
    /// Tries so far.
    tries: AtomicU64,
    state: tokio::sync::Mutex<State>,
}

struct State {
    live: Option<Arc<Live>>,
    backoff: Backoff,
    /// No try before it.
    not_before: Option<Instant>,
    /// Why there is none; none while there is one, and before one was wanted.
    failure: Option<Failure>,
}

/// One connection.
pub(super) struct Live {
    connection: Connection,
    since: Instant,
    /// Why somebody found it to be of no use any more.
    broken: Mutex<Option<Failure>>,
}

impl Link {
    pub(super) fn new(place: Arc<Place>, name: String, journal: Journal) -> Self {
        Self {
            place,
            name,
            journal,
            tries: AtomicU64::new(0),
            state: tokio::sync::Mutex::new(State {
                live: None,
                backoff: Backoff::new(PAUSES).expect("pauses that grow"),
                not_before: None,
                failure: None,
            }),
        }
    }

    /// The connection, made where there is none. Dropped meanwhile, the next one who wants it goes on.
    ///
    /// # Errors
    ///
    /// If the one try of it fails, which takes some seconds at most, with the pause before it.
    pub(super) async fn live(&self) -> Result<Arc<Live>, Failure> {
        let seen = self.tries.load(Ordering::Acquire);
        let mut state = self.state.lock().await;
        if let Some(live) = &state.live {
            match live.failure() {
                None => return Ok(Arc::clone(live)),
                Some(failure) => self.lose(&mut state, failure),
            }
        }
        if self.tries.load(Ordering::Acquire) != seen
            && let Some(failure) = &state.failure
        {
            return Err(failure.clone());
        }
        if let Some(instant) = state.not_before {
            time::sleep_until(instant).await;
        }
        // However this ends, also by being dropped, the next try is not at once.
        let pause = state.backoff.next_pause();
        state.not_before = Some(Instant::now() + pause);
        self.tries.fetch_add(1, Ordering::Release);
        let connected = time::timeout(CONNECT, connect(&self.place, &self.name)).await;
        match connected.unwrap_or(Err(Failure::TimedOut)) {
            Ok(connection) => Ok(self.have(&mut state, connection)),
            Err(failure) => {
                self.tell(&mut state, failure.clone());
                state.not_before = Some(Instant::now() + pause);
                Err(failure)
            }
        }
    }

    /// Takes note that a connection is of no use any more, unless there is another one already.
    pub(super) async fn note(&self, live: &Arc<Live>, failure: Failure) {
        live.break_off(failure);
        let mut state = self.state.lock().await;
        if let Some(current) = &state.live
            && let Some(failure) = current.failure()
        {
            self.lose(&mut state, failure);
        }
    }

    fn have(&self, state: &mut State, connection: Connection) -> Arc<Live> {
        if state.failure.take().is_some() {
            info!(broker = %self.place, connection = %self.name, "the broker is there again");
            self.journal
                .record(Kind::Broker, self.name.clone(), "connected");
        }
        let live = Arc::new(Live {
            connection,
            since: Instant::now(),
            broken: Mutex::default(),
        });
        state.live = Some(Arc::clone(&live));
        live
    }

    fn lose(&self, state: &mut State, failure: Failure) {
        if let Some(live) = state.live.take()
            && live.since.elapsed() > LASTING
        {
            state.backoff.reset();
            state.not_before = None;
        }
        self.tell(state, failure);
    }

    fn tell(&self, state: &mut State, failure: Failure) {
        if state.failure.is_none() {
            warn!(broker = %self.place, connection = %self.name, error = %failure, "no connection to the broker");
            self.journal
                .record(Kind::Broker, self.name.clone(), failure.to_string());
        }
        state.failure = Some(failure);
    }
}

impl Live {
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Has it be of no use any more.
    pub(super) fn break_off(&self, failure: Failure) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.get_or_insert(failure);
    }

    /// Why it is of no use any more; none as long as it is.
    fn failure(&self) -> Option<Failure> {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        let status = self.connection.status();
        broken
            .clone()
            .or_else(|| (!status.connected()).then_some(Failure::Lost))
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("live", &self.live)
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

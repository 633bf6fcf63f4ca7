//! A connection that is made when somebody wants it, and made again when it is gone.
//!
//! Whoever wants it makes it, one at a time; those that waited meanwhile have what came of it, good or
//! bad. Between two tries there is a pause that grows, also where connections come about and break off
//! at once. That it is gone is told once, again where another setting is to be looked at, and once that it is
//! back.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_core::Stream;
use futures_util::{FutureExt as _, StreamExt as _};
use gantry::{
    backoff::{self, Backoff},
    journal::{Journal, Kind},
};
use lapin::{Connection, Event};
use tokio::time::{self, Instant};
use tracing::{info, warn};

use crate::broker::{
    self, ConnectionState,
    rabbit::{connect::connect, failure::Failure, place::Place},
};

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
    /// What is told of it; for those who do not wait while it is made.
    known: Mutex<Known>,
}

/// A connection as operators see it.
#[derive(Debug, Default)]
struct Known {
    live: Option<Arc<Live>>,
    /// Since when there is none any more.
    lost: Option<Instant>,
    failure: Option<Failure>,
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
    /// Which of those of its link, from 1 on.
    epoch: u64,
    connection: Connection,
    since: Instant,
    seen: Mutex<Seen>,
}

/// What happened to a connection, as far as somebody has looked.
struct Seen {
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    /// Why somebody found it to be of no use any more.
    broken: Option<Failure>,
    /// What went wrong last, be it with all of it or with one channel.
    failure: Option<Failure>,
    /// Why the broker takes nothing, and since when, as far as somebody has looked.
    blocked: Option<(String, Instant)>,
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
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the broker takes nothing on it; none as long as it does, or there is no connection.
    pub(super) fn blocked(&self) -> Option<String> {
        let live = self.known().live.clone()?;
        live.blocked()
    }

    /// Why there is no connection; none where there is one, or nobody has wanted it.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.known().failure.clone()
    }

    /// How it is, as the connection for `purpose`.
    pub(super) fn shown(&self, purpose: &'static str) -> broker::Connection {
        let (live, lost, failure) = {
            let known = self.known();
            (known.live.clone(), known.lost, known.failure.clone())
        };
        let (state, since, error) = match (live, failure) {
            (Some(live), _) => live.shown(),
            (None, None) => (ConnectionState::Unused, None, None),
            (None, Some(failure)) => {
                let denied = matches!(failure, Failure::Denied(_));
                let state = if denied {
                    ConnectionState::Denied
                } else {
                    ConnectionState::Disconnected
                };
                (state, lost, Some(failure.to_string()))
            }
        };
        broker::Connection {
            purpose,
            state,
            since,
            error,
            tries: self.tries.load(Ordering::Relaxed),
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
        let connected =
            time::timeout(self.place.connect_timeout, connect(&self.place, &self.name)).await;
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
        // Nobody else tries while we have the state.
        let epoch = self.tries.load(Ordering::Acquire);
        let live = Arc::new(Live::new(epoch, connection));
        state.live = Some(Arc::clone(&live));
        *self.known() = Known {
            live: Some(Arc::clone(&live)),
            ..Known::default()
        };
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
        let settings = failure.settings();
        let told = state.failure.as_ref().map(Failure::settings);
        if told != Some(settings) {
            let user = &self.place.user;
            warn!(broker = %self.place, %user, connection = %self.name, error = %failure, settings, "no connection to the broker");
            self.journal
                .record(Kind::Broker, self.name.clone(), failure.to_string());
        }
        let mut known = self.known();
        known.live = None;
        known.lost.get_or_insert_with(Instant::now);
        known.failure = Some(failure.clone());
        state.failure = Some(failure);
    }
}

impl Live {
    fn new(epoch: u64, connection: Connection) -> Self {
        let seen = Seen {
            events: Box::pin(connection.events_listener()),
            broken: None,
            failure: None,
            blocked: None,
        };
        Self {
            epoch,
            connection,
            since: Instant::now(),
            seen: Mutex::new(seen),
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Has it be of no use any more.
    fn break_off(&self, failure: Failure) {
        self.seen().broken.get_or_insert(failure);
    }

    /// Why the broker takes nothing that is published on it; none as long as it does.
    pub(super) fn blocked(&self) -> Option<String> {
        if !self.connection.status().blocked() {
            return None;
        }
        let why = self.seen().blocked.clone().map(|(why, _)| why);
        Some(why.unwrap_or_else(|| "it does not say why".to_owned()))
    }

    /// How it is, since when, and what is wrong with it.
    fn shown(&self) -> (ConnectionState, Option<Instant>, Option<String>) {
        if let Some(failure) = self.failure() {
            let error = Some(failure.to_string());
            return (ConnectionState::Disconnected, None, error);
        }
        match self.blocked() {
            Some(why) => {
                let since = self.seen().blocked.as_ref().map(|(_, since)| *since);
                (ConnectionState::Blocked, since, Some(why))
            }
            None => (ConnectionState::Connected, Some(self.since), None),
        }
    }

    /// Why it is of no use any more; none as long as it is.
    fn failure(&self) -> Option<Failure> {
        let seen = self.seen();
        if seen.broken.is_some() || self.connection.status().connected() {
            return seen.broken.clone();
        }
        Some(seen.failure.clone().unwrap_or(Failure::Lost))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(Some(event)) = seen.events.next().now_or_never() {
            match event {
                Event::ConnectionBlocked(why) => seen.blocked = Some((why, Instant::now())),
                Event::ConnectionUnblocked => seen.blocked = None,
                Event::Error(error) => seen.failure = Some(error.into()),
                _ => {}
            }
        }
        seen
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

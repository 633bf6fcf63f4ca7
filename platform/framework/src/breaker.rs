//! Stops calling what keeps failing, and finds out when it works again.
//!
//! A [`Breaker`] stands in front of anything that can be away: a bank's API, a file server, a peer.
//!
//! ```text
//!            failures in a row, or too many of those in the window
//!   closed ───────────────────────────────────────────────────────▶ open ◀──────────┐
//!      ▲                                                              │ its pause    │ it fails:
//!      │ it succeeds                                                  ▼ is over      │ a pause twice
//!      └───────────────────────────────────────────────────────── half-open ────────┘ as long
//!                                                            (one call tries again)
//! ```
//!
//! | verdict | while closed | of the call that tries again |
//! | --- | --- | --- |
//! | success | counts, ends a row of failures | closes, unless it was slow |
//! | hard | counts as failed, and in a row | opens |
//! | soft | counts as failed | opens, at least for as long as was asked for |
//! | ignored, unserved | nothing | the next call tries |
//!
//! A call that passed before the state last changed is told from those after it: its end changes nothing.
//! Nothing waits and nothing runs beside the calls: what is due happens when the next one comes.
//! [`Core`] is the same without name, journal and metrics, for whoever has many.

mod config;
mod core;
mod hand;
mod register;
mod state;
#[cfg(test)]
mod tests;
mod told;
mod window;

use std::{
    sync::{
        self, Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tonic::Status;

use crate::{
    classify::Verdict,
    config::Live,
    journal::{Journal, Kind},
    status,
    telemetry::{metric::Value, platform},
};

pub use self::{
    config::{Config, Mode, Policy},
    core::{Admission, Admits, Cause, Change, Core, Ended, Open, Ticket},
    hand::{ByHand, Order},
    register::{NoBreaker, Register},
    told::{Last, Told},
    window::Counts,
};
pub use crate::telemetry::platform::BreakerState as State;

/// Admits calls until they fail too often, then refuses them for a while; clones are the same.
///
/// Refused calls fail at once with [`Open`]; they are never made and do not count as failures. While
/// half-open exactly one is under way. Dropping a [`Permit`] ends its call as one that says nothing.
#[derive(Debug, Clone)]
pub struct Breaker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: Value,
    core: Core,
    config: Live<Config>,
    journal: Journal,
    metrics: platform::Breaker,
    /// Version of the settings that were last looked at.
    version: AtomicU64,
    told: Told,
    made: Instant,
    /// Milliseconds since `made` when what was set by hand ends; [`NEVER`] where it does not.
    hand_ends: AtomicU64,
    by_hand: Mutex<Option<ByHand>>,
}

const NEVER: u64 = u64::MAX;

/// What a breaker is, and why.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Snapshot {
    /// Who decides.
    pub mode: Mode,
    /// What was set by hand, if that is in the place of the configuration.
    pub by_hand: Option<ByHand>,
    /// What it is; where it only counts, what it would be. It stays open until the next call comes.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// When a call may try again, where it is open or half-open.
    pub next_probe_at: Option<Instant>,
    /// Calls within the window, as long as it is closed.
    pub counts: Counts,
    /// Hard failures since the last success, as long as it is closed.
    pub failures_in_a_row: u64,
    /// How often it opened that was closed.
    pub trips: u64,
}

impl Snapshot {
    /// Of `core`, of which `told` was told last.
    pub(crate) fn new(core: &Core, told: &Told, by_hand: Option<ByHand>, config: &Config) -> Self {
        let last = told.last();
        Self {
            mode: core.mode(config),
            by_hand,
            state: last.state,
            since: last.since,
            next_probe_at: core.next_probe_at(),
            counts: core.counts(Instant::now(), config),
            failures_in_a_row: core.failures_in_a_row(),
            trips: last.trips,
        }
    }
}

/// Why a guarded call has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error<E> {
    /// It was not made.
    #[error(transparent)]
    Refused(#[from] Open),
    /// It was, and failed.
    #[error(transparent)]
    Failed(E),
}

impl Open {
    /// What a caller is told for whom the call would have been made: `message`, and when another
    /// try is worth while.
    #[must_use]
    pub fn status(&self, message: impl Into<String>) -> Status {
        status::breaker_open(message, self.pause)
    }
}

impl Breaker {
    /// A closed one. `name` stands in metrics and the journal: fixed in the program, like `bank`.
    #[must_use]
    pub fn new(name: impl Into<Value>, config: Live<Config>, journal: Journal) -> Self {
        let name = name.into();
        let metrics = platform::Breaker::register(name.clone());
        let now = Instant::now();
        let core = Core::new(now);
        let state = core.state(&config.load());
        metrics.state(state);
        Self {
            shared: Arc::new(Shared {
                name,
                core,
                version: AtomicU64::new(config.version()),
                config,
                journal,
                metrics,
                told: Told::new(state, now),
                made: now,
                hand_ends: AtomicU64::new(NEVER),
                by_hand: Mutex::new(None),
            }),
        }
    }

    /// Makes a call, if it may be made. `judge` says what its outcome tells about whom it was made to.
    ///
    /// ```
    /// # async fn example(breaker: &gantry::breaker::Breaker) {
    /// use gantry::{breaker::Error, classify::Verdict};
    ///
    /// let judge = |read: &Result<String, std::io::Error>| match read {
    ///     Ok(_) => Verdict::Success,
    ///     Err(_) => Verdict::Hard,
    /// };
    /// let read = breaker.call(|| tokio::fs::read_to_string("/mnt/prices"), judge).await;
    /// let prices = match read {
    ///     Ok(prices) => prices,
    ///     Err(Error::Refused(_)) => "as of yesterday".to_owned(),
    ///     Err(Error::Failed(error)) => error.to_string(),
    /// };
    /// # }
    /// ```
    ///
    /// Dropped while it waits, the call says nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if it was not made, and else as `work` fails.
    pub async fn call<T, E, F>(
        &self,
        work: impl FnOnce() -> F,
        judge: impl FnOnce(&Result<T, E>) -> Verdict,
    ) -> Result<T, Error<E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        let permit = self.admit()?;
        let outcome = work().await;
        permit.end(judge(&outcome));
        outcome.map_err(Error::Failed)
    }

    /// Lets a call pass, for whoever cannot say it with [`Breaker::call`].
    ///
    /// # Errors
    ///
    /// While it is open, and while another call tries again.
    pub fn admit(&self) -> Result<Permit, Open> {
        let shared = &self.shared;
        let now = Instant::now();
        shared.follow(now);
        let admitted = shared.config.read(|config| shared.core.admit(now, config));
        let admission = admitted.inspect_err(|_| shared.metrics.refuse())?;
        if admission.would_refuse.is_some() {
            shared.metrics.would_refuse();
        }
        if admission.change.is_some() {
            shared.tell(admission.change, Cause::ByHand, now);
        }
        Ok(Permit {
            shared: Arc::clone(shared),
            ticket: Some(admission.ticket),
            since: now,
        })
    }

    /// Refuses what [`Breaker::admit`] would refuse now, and lets nothing pass: for whoever has to wait
    /// for something else before a call, and need not where that would not be made.
    ///
    /// # Errors
    ///
    /// While it is open, and while another call tries again.
    pub fn check(&self) -> Result<(), Open> {
        let shared = &self.shared;
        let now = Instant::now();
        shared.follow(now);
        let admits = shared
            .config
            .read(|config| shared.core.admits_at(now, config));
        let Admits::No(open) = admits else {
            return Ok(());
        };
        shared.metrics.refuse();
        Err(open)
    }

    /// Whether a call at `now` would be refused.
    #[must_use]
    pub fn is_open(&self, now: Instant) -> bool {
        let shared = &self.shared;
        shared.follow(now);
        let admits = shared
            .config
            .read(|config| shared.core.admits_at(now, config));
        matches!(admits, Admits::No(_))
    }

    /// When the next call may try again, where it is not closed.
    #[must_use]
    pub fn next_probe_at(&self) -> Option<Instant> {
        self.shared.core.next_probe_at()
    }

    /// What it is.
    #[must_use]
    pub fn state(&self) -> State {
        let shared = &self.shared;
        shared.follow(Instant::now());
        shared.config.read(|config| shared.core.state(config))
    }

    /// What it is, and why.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let shared = &self.shared;
        let now = Instant::now();
        shared.follow(now);
        let by_hand = *shared.by_hand();
        shared
            .config
            .read(|config| Snapshot::new(&shared.core, &shared.told, by_hand, config))
    }

    /// Its name in metrics and the journal.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Decides in the place of the configuration, until that is taken back with `None`.
    pub fn force(&self, mode: Option<Mode>) {
        self.obey(mode.map_or(Order::Release, Order::Mode), None);
    }

    /// Closes it at once, and forgets what failed.
    pub fn close(&self) {
        let change = self.shared.core.close(Cause::ByHand);
        self.shared.tell(change, Cause::ByHand, Instant::now());
    }

    /// Does as `order` says, until `until` or for ever.
    pub fn obey(&self, order: Order, until: Option<Instant>) {
        let shared = &self.shared;
        {
            let mut by_hand = shared.by_hand();
            let mode = order.mode();
            let until = until.filter(|_| mode.is_some());
            shared.core.force(mode);
            let ends = until.map_or(NEVER, |until| shared.millis(until));
            shared.hand_ends.store(ends, Ordering::Release);
            *by_hand = mode.map(|_| ByHand { until });
        }
        if order == Order::Close {
            self.close();
        } else {
            shared.tell(None, Cause::ByHand, Instant::now());
        }
    }
}

/// A call that may be made, until it ends.
#[derive(Debug)]
#[must_use = "dropped, its call says nothing"]
pub struct Permit {
    shared: Arc<Shared>,
    ticket: Option<Ticket>,
    since: Instant,
}

impl Permit {
    /// Says how the call ended. How long it took is known: since it was let pass.
    pub fn end(mut self, verdict: Verdict) {
        self.ended(verdict);
    }

    fn ended(&mut self, verdict: Verdict) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        let shared = &self.shared;
        let now = Instant::now();
        let ended = Ended {
            verdict,
            took: now - self.since,
            now,
        };
        let change = shared
            .config
            .read(|config| shared.core.end(ticket, ended, config));
        if change.is_some() {
            shared.tell(change, Cause::ByHand, now);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.ended(Verdict::Ignored);
    }
}

impl Shared {
    /// Takes in what changed of who decides: by settings, or as what was set by hand has ended.
    fn follow(&self, now: Instant) {
        let version = self.config.version();
        // Read first: all calls come here, and hardly one finds a change.
        if self.version.load(Ordering::Acquire) != version {
            self.version.store(version, Ordering::Release);
            self.tell(None, Cause::Configured, now);
        }
        let ends = self.hand_ends.load(Ordering::Acquire);
        if ends != NEVER && self.millis(now) >= ends {
            self.let_go(now);
        }
    }

    /// Takes back what was set by hand, if its time is over.
    fn let_go(&self, now: Instant) {
        let mut by_hand = self.by_hand();
        // It may have been set anew meanwhile.
        let until = by_hand.and_then(|it| it.until);
        if until.is_none_or(|until| until > now) {
            return;
        }
        self.core.force(None);
        self.hand_ends.store(NEVER, Ordering::Release);
        *by_hand = None;
        drop(by_hand);
        self.tell(None, Cause::TimeOver, now);
    }

    /// Tells what changed: by calls, or without one for `cause`.
    fn tell(&self, change: Option<Change>, cause: Cause, now: Instant) {
        let read = || self.config.read(|config| self.core.state(config));
        let show = |state| self.metrics.state(state);
        let Some(change) = self.told.tell(change, cause, now, read, show) else {
            return;
        };
        self.metrics.transition(change.to);
        self.record(&change);
    }

    /// Writes down what begins and what ends. What is tried in between would fill the log and the
    /// journal of a long outage; the metrics count it.
    fn record(&self, change: &Change) {
        let name = &*self.name;
        let cause = change.cause;
        let detail = match change.time.filter(|_| change.to == State::Open) {
            Some(time) => {
                let time =
                    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
                let time = humantime::format_duration(time);
                format!("open for {time}: {cause}")
            }
            None => format!("{}: {cause}", change.to.as_str()),
        };
        match (change.from, change.to) {
            (State::Open, State::HalfOpen) | (State::HalfOpen, State::Open) => {
                tracing::debug!(breaker = name, detail, "breaker tries");
                return;
            }
            (_, State::Open | State::ForcedOpen) => {
                tracing::warn!(breaker = name, detail, "breaker opened");
            }
            _ => tracing::info!(breaker = name, detail, "breaker changed"),
        }
        self.journal.record(Kind::BreakerChanged, name, detail);
    }

    fn by_hand(&self) -> sync::MutexGuard<'_, Option<ByHand>> {
        self.by_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn millis(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.made);
        u64::try_from(since.as_millis()).unwrap_or(NEVER - 1)
    }
}

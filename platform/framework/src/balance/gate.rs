//! Whether an endpoint's breaker lets calls through: where balancing meets the breaker.
//!
//! A breaker that is open is nothing a caller sees: its endpoint is not ready, and calls go to
//! others or wait for one. When its pause is over, one call finds out how the endpoint does.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::Instant;

use super::config::Config;
use crate::{
    breaker::{
        Admits, ByHand, Cause, Change, Core, Ended, Mode, Policy, Snapshot, State, Ticket, Told,
    },
    config::Live,
};

/// Where a breaker stands, and when that may change by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateState {
    /// Calls pass.
    Closed,
    /// None does before this.
    Open(Instant),
    /// The next one does, to find out.
    Due,
    /// One does; nobody waits for it longer than this.
    Probing(Instant),
    /// None does, until somebody wants it otherwise.
    Forced,
}

impl GateState {
    /// Whether ordinary calls are kept out.
    #[must_use]
    pub fn is_shut(self) -> bool {
        self != Self::Closed
    }

    /// Whether one call finds out, or is to.
    pub(super) fn is_half_open(self) -> bool {
        matches!(self, Self::Due | Self::Probing(_))
    }

    /// When it changes though no call ends.
    pub(super) fn until(self) -> Option<Instant> {
        match self {
            Self::Open(until) | Self::Probing(until) => Some(until),
            Self::Closed | Self::Due | Self::Forced => None,
        }
    }

    /// Whether calls are kept out whatever becomes of them elsewhere: somebody wants it so.
    pub(super) fn is_forced(self) -> bool {
        self == Self::Forced
    }
}

/// One endpoint's breaker.
#[derive(Debug)]
pub(super) struct Gate {
    core: Core,
    config: Live<Config>,
    told: Told,
    /// Whether there is no other endpoint.
    alone: AtomicBool,
}

impl Gate {
    pub(super) fn new(config: Live<Config>, now: Instant) -> Self {
        let core = Core::new(now);
        let state = config.read(|config| core.state(&config.breaker));
        Self {
            told: Told::new(state, now),
            core,
            config,
            alone: AtomicBool::new(false),
        }
    }

    /// Takes note of whether there is no other endpoint.
    pub(super) fn set_alone(&self, alone: bool) {
        self.alone.store(alone, Ordering::Relaxed);
    }

    /// Where it stands at `now`.
    pub(super) fn state(&self, now: Instant) -> GateState {
        let admits = |config: &Config| self.core.admits_at(now, &config.breaker);
        match self.config.read(admits) {
            Admits::Yes => GateState::Closed,
            Admits::Probe => GateState::Due,
            Admits::No(open) if open.state == State::ForcedOpen => GateState::Forced,
            Admits::No(open) if open.state == State::HalfOpen => GateState::Probing(open.until),
            Admits::No(open) => GateState::Open(open.until),
        }
    }

    /// For a call that was picked at `now`, with what its passing changes. Without a ticket, which is
    /// where the breaker is open, it goes all the same and its end says nothing: it was picked in
    /// panic, or as the breaker opened.
    pub(super) fn pass(&self, now: Instant, config: &Config) -> (Option<Ticket>, Option<Change>) {
        match self.core.admit(now, &config.breaker) {
            Ok(admission) => (Some(admission.ticket), admission.change),
            Err(_) => (None, None),
        }
    }

    /// Whether a call at `now` would be the one that finds out.
    pub(super) fn is_due(&self, now: Instant, config: &Config) -> bool {
        self.core.admits_at(now, &config.breaker) == Admits::Probe
    }

    /// Takes in how a call that follows `policy` ended.
    pub(super) fn end(&self, ticket: Ticket, ended: Ended, policy: Policy) -> Option<Change> {
        let end = |config: &Config| {
            let mut breaker = config.breaker.under(policy);
            if self.alone.load(Ordering::Relaxed) {
                // Nobody has an answer before one call has found out.
                let longest = config.alone_pause_max.max(breaker.pause_min);
                if breaker.pause_max > longest {
                    breaker.to_mut().pause_max = longest;
                }
            }
            self.core.end(ticket, ended, &breaker)
        };
        self.config.read(end)
    }

    /// Waits for a call that finds out no longer than until `by`.
    pub(super) fn hasten(&self, ticket: &Ticket, by: Instant) {
        self.core.hasten(ticket, by);
    }

    /// Closes it for `cause`, and forgets how it did.
    pub(super) fn close(&self, cause: Cause) -> Option<Change> {
        self.core.close(cause)
    }

    /// Decides as `mode` in the place of the configuration, or no more; whether that is new.
    pub(super) fn force(&self, mode: Option<Mode>) -> bool {
        let new = self.core.forced() != mode;
        if new {
            self.core.force(mode);
        }
        new
    }

    /// Takes note of `change`, or, without one, of what is different for `cause`; what is to be told
    /// of it.
    pub(super) fn tell(
        &self,
        change: Option<Change>,
        cause: Cause,
        now: Instant,
    ) -> Option<Change> {
        let read = || self.config.read(|config| self.core.state(&config.breaker));
        // How many are in each state is counted by whoever knows all of them.
        self.told.tell(change, cause, now, read, |_| {})
    }

    /// What was told of it last.
    pub(super) fn last(&self) -> State {
        self.told.last().state
    }

    /// What it is, and why.
    pub(super) fn snapshot(&self, by_hand: Option<ByHand>) -> Snapshot {
        let snapshot =
            |config: &Config| Snapshot::new(&self.core, &self.told, by_hand, &config.breaker);
        self.config.read(snapshot)
    }
}

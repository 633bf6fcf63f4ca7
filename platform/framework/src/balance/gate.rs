//! Whether an endpoint's breaker lets calls through: where balancing meets the breaker.
//!
//! A breaker that is open is nothing a caller sees: its endpoint is not ready, and calls go to
//! others or wait for one. When its pause is over, one call finds out how the endpoint does.

use tokio::time::Instant;

use super::config::Config;
use crate::{
    breaker::{Admits, Change, Core, Ended, Policy, State, Ticket},
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
            Self::Closed | Self::Due => None,
        }
    }
}

/// One endpoint's breaker.
#[derive(Debug)]
pub(super) struct Gate {
    core: Core,
    config: Live<Config>,
}

impl Gate {
    pub(super) fn new(config: Live<Config>, now: Instant) -> Self {
        Self {
            core: Core::new(now),
            config,
        }
    }

    /// Where it stands at `now`.
    pub(super) fn state(&self, now: Instant) -> GateState {
        let admits = |config: &Config| self.core.admits_at(now, &config.breaker);
        match self.config.read(admits) {
            Admits::Yes => GateState::Closed,
            Admits::Probe => GateState::Due,
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
            let config = config.breaker.under(policy);
            self.core.end(ticket, ended, &config)
        };
        self.config.read(end)
    }

    /// Forgets how it did: what is there now may have nothing to do with what failed.
    pub(super) fn begin_anew(&self) -> Option<Change> {
        self.core.close()
    }
}

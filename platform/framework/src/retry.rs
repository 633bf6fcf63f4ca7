//! Whether and when a failed call is tried again (gRFC A6).
//!
//! All here is about decisions; the client's stack makes the attempts. A call is tried once,
//! retried, or hedged, by what its contract says of a second try: [`Policy::way`]. Retried, each
//! failure is put to [`Course::after`]; hedged, to [`hedge::Plan`]. Both ask the target's
//! [`Allowance`] first, which keeps retries from making an outage worse:
//!
//! - [`Tokens`]: too many failures at one target, and nothing is tried again there.
//! - [`Budget`]: retries are a small share of the calls to a target, whatever each call may do, and
//!   hedges are a smaller one beside it.
//! - A server that says when, or not to, is obeyed: [`pushback::read`].
//! - A call that serves one which is itself tried again is not: else each layer multiplies the
//!   tries of those above it.
//!
//! Requests that provably reached no handler are another matter: they are sent again by the
//! client's stack whatever the method promises, and count for nothing here.

mod bounds;
mod budget;
mod course;
pub mod hedge;
mod latencies;
pub mod pushback;
mod settings;
mod tokens;

use std::sync::Arc;

use http::HeaderName;
use tokio::time::Instant;

pub use self::{
    bounds::{Bounds, Terms},
    budget::{Budget, Share, Spent},
    course::{Circumstances, Course, Failure, Next, Stop},
    latencies::Latencies,
    settings::{Code, Config, DelayFrom, Hedge, Policy, Way},
    tokens::Tokens,
};
use crate::telemetry::platform::{Refusals, RefusedRetry};

/// The header that says how often a call was tried before; none for the first attempt (gRFC A6).
pub static PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// What one target allows all calls to it together.
#[derive(Debug)]
pub struct Allowance {
    tokens: Tokens,
    budget: Budget,
    refusals: Refusals,
}

impl Allowance {
    /// That of `target`, the name of a configured client.
    #[must_use]
    pub fn new(target: &Arc<str>) -> Self {
        Self {
            tokens: Tokens::default(),
            budget: Budget::default(),
            refusals: Refusals::register(target),
        }
    }

    /// The same with these bounds.
    #[must_use]
    pub fn with(self, tokens: Tokens, budget: Budget) -> Self {
        Self {
            tokens,
            budget,
            ..self
        }
    }

    /// How much may be tried again.
    #[must_use]
    pub fn share(&self) -> Share {
        self.budget.share()
    }

    /// A call begins, whatever becomes of it.
    pub fn call(&self, now: Instant) {
        self.budget.call(now);
    }

    /// A call ended with OK.
    pub fn succeeded(&self) {
        self.tokens.succeeded();
    }

    /// What retries have spent of their share of the calls.
    #[must_use]
    pub fn budget_spent(&self, now: Instant) -> Spent {
        self.budget.spent(now)
    }

    /// What failures have spent of the tokens.
    #[must_use]
    pub fn tokens_spent(&self) -> Spent {
        self.tokens.spent()
    }

    /// What was refused to calls to the target.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// An attempt failed in a way that is tried again; whether anything is at this target.
    fn failed(&self) -> bool {
        self.tokens.failed()
    }

    fn withdraw(&self, now: Instant) -> bool {
        self.budget.withdraw(now)
    }

    fn withdraw_hedge(&self, ratio: f64, now: Instant) -> bool {
        self.budget.withdraw_hedge(ratio, now)
    }

    /// Counts why something is not tried again.
    pub fn refuse(&self, reason: RefusedRetry) {
        self.refusals.retry(reason);
    }
}

#[cfg(test)]
mod tests;

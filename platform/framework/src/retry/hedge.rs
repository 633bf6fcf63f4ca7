//! When the next attempt of a hedged call is made (gRFC A6, "Hedging Policy").

use tokio::time::Instant;

use super::{Allowance, Failure, Policy, pushback::PAUSE_MAX};
use crate::{classify::Pushback, telemetry::platform::RefusedRetry};

/// The attempts of one call, of which several are on their way at once.
#[derive(Debug)]
pub struct Plan {
    attempts: u8,
    /// When the next one is made; none where none is to be.
    next: Option<Instant>,
}

/// What a failed attempt means for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// They go on, and so does the plan.
    GoOn,
    /// They are of no use any more: the call ends with this failure.
    Cancelled,
}

impl Plan {
    /// The first attempt is on its way at `now`.
    #[must_use]
    pub fn begin(policy: &Policy, now: Instant) -> Self {
        Self {
            attempts: 1,
            next: (policy.hedges_max() > 1).then(|| now + policy.hedge_delay()),
        }
    }

    /// When the next attempt is due, if one is to be made.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Attempts before the next one; what its `grpc-previous-rpc-attempts` says.
    #[must_use]
    pub fn previous(&self) -> u8 {
        self.attempts
    }

    /// The next attempt is due at `now`: whether it is made.
    pub fn take(&mut self, policy: &Policy, allowance: &Allowance, now: Instant) -> bool {
        if !allowance.withdraw(now) {
            allowance.refuse(RefusedRetry::Budget);
            self.next = None;
            return false;
        }
        self.attempts += 1;
        self.next = (self.attempts < policy.hedges_max()).then(|| now + policy.hedge_delay());
        true
    }

    /// One of the attempts failed.
    pub fn failed(
        &mut self,
        failure: Failure,
        policy: &Policy,
        allowance: &Allowance,
        now: Instant,
    ) -> Others {
        if failure.pushback == Some(Pushback::Never) {
            allowance.failed();
            self.stop(allowance, RefusedRetry::Pushback);
            if !policy.is_fatal(failure.code) {
                return Others::GoOn;
            }
        }
        if policy.is_fatal(failure.code) {
            return Others::Cancelled;
        }
        if !allowance.failed() {
            self.stop(allowance, RefusedRetry::Throttled);
        }
        let pause = failure.pushback.and_then(Pushback::pause);
        let pause = pause.unwrap_or_default();
        if pause > PAUSE_MAX {
            self.stop(allowance, RefusedRetry::Pushback);
        } else if let Some(next) = &mut self.next {
            *next = now + pause;
        }
        Others::GoOn
    }

    fn stop(&mut self, allowance: &Allowance, reason: RefusedRetry) {
        if self.next.take().is_some() {
            allowance.refuse(reason);
        }
    }
}

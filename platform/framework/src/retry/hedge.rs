//! When the next attempt of a hedged call is made (gRFC A6, "Hedging Policy").
//!
//! One that is made because there is no answer yet costs the target more than it was asked for:
//! hedges have a share of its calls of their own. One that is made because another one failed is a
//! retry, and counts as that.

use std::time::Duration;

use tokio::time::Instant;

use super::{Allowance, Failure, Policy, pushback::PAUSE_MAX};
use crate::{classify::Pushback, telemetry::platform::RefusedRetry};

/// The attempts of one call, of which several are on their way at once.
#[derive(Debug)]
pub struct Plan {
    attempts: u8,
    /// The time from one to the next.
    delay: Duration,
    /// When the next one is made, and why; none where none is to be for now.
    next: Option<(Instant, Why)>,
    /// Whether none is made any more, whatever comes.
    stopped: bool,
}

/// Why the next attempt is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Nobody has answered for the delay.
    Slow,
    /// One that was made failed.
    Failed,
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
    /// The first attempt is on its way at `now`; `p95` is what calls of the method take, as far as that
    /// is known.
    #[must_use]
    pub fn begin(policy: &Policy, p95: Option<Duration>, now: Instant) -> Self {
        let delay = policy.hedge_delay(p95);
        Self {
            attempts: 1,
            delay,
            next: (policy.hedges_max() > 1).then(|| (now + delay, Why::Slow)),
            stopped: false,
        }
    }

    /// When the next attempt is due, if one is to be made.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.next.map(|(at, _)| at)
    }

    /// Attempts before the next one; what its `grpc-previous-rpc-attempts` says.
    #[must_use]
    pub fn previous(&self) -> u8 {
        self.attempts
    }

    /// The next attempt is due at `now`: whether it is made.
    pub fn take(&mut self, policy: &Policy, allowance: &Allowance, now: Instant) -> bool {
        let why = self.next.take().map(|(_, why)| why);
        let (taken, reason) = match why {
            None => return false,
            Some(Why::Slow) => (
                allowance.withdraw_hedge(policy.hedge_budget(), now),
                RefusedRetry::HedgeBudget,
            ),
            Some(Why::Failed) => (allowance.withdraw(now), RefusedRetry::Budget),
        };
        if !taken {
            // Without a hedge the call goes on as others do, and may be retried as they may.
            allowance.refuse(reason);
            return false;
        }
        self.attempts += 1;
        if self.attempts < policy.hedges_max() {
            self.next = Some((now + self.delay, Why::Slow));
        }
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
        } else if !self.stopped && self.attempts < policy.hedges_max() {
            self.next = Some((now + pause, Why::Failed));
        }
        Others::GoOn
    }

    fn stop(&mut self, allowance: &Allowance, reason: RefusedRetry) {
        self.stopped = true;
        if self.next.take().is_some() {
            allowance.refuse(reason);
        }
    }
}

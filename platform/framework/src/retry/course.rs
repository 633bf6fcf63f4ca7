//! Whether a call that failed is tried again, and when.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;

use super::{Allowance, Policy, pushback::PAUSE_MAX};
use crate::{classify::Pushback, telemetry::platform::RefusedRetry};

/// How far pauses are spread either way, as a share of them.
pub(super) const JITTER: f64 = 0.2;

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The code its caller would see.
    pub code: Code,
    /// What the server says of another try.
    pub pushback: Option<Pushback>,
    /// Whether it was the time of the attempt that ended it, and not that of the call: worth
    /// another try whatever codes are.
    pub timed_out: bool,
}

/// How a call stands when an attempt fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Circumstances {
    /// Whether the call is made for one that is itself tried again.
    pub in_retry: bool,
    /// Whether the whole request can be sent again.
    pub replayable: bool,
    /// What is left of the call's time, if that is bounded.
    pub left: Option<Duration>,
}

/// What is done after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another attempt, after this pause.
    Retry(Duration),
    /// Nothing: the caller gets the failure.
    Stop(Stop),
}

/// Why nothing is done after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It is of no kind that is tried again.
    Final,
    /// It is, and something stands against it.
    Refused(RefusedRetry),
}

/// What was tried of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Course {
    attempts: u8,
    /// Retries since the server named a pause itself, or since the beginning.
    since_pushback: u8,
}

impl Default for Course {
    /// The first attempt is on its way.
    fn default() -> Self {
        Self {
            attempts: 1,
            since_pushback: 0,
        }
    }
}

impl Course {
    /// Attempts before the one that is on its way; what `grpc-previous-rpc-attempts` says.
    #[must_use]
    pub fn previous(&self) -> u8 {
        self.attempts - 1
    }

    /// The current attempt failed, before its answer began. Counts it against the target, and the
    /// retry, if there is one, too.
    pub fn after(
        &mut self,
        failure: Failure,
        policy: &Policy,
        circumstances: Circumstances,
        allowance: &Allowance,
        now: Instant,
    ) -> Next {
        match self.pause(failure, policy, circumstances, allowance, now) {
            Ok(pause) => {
                self.attempts += 1;
                Next::Retry(pause)
            }
            Err(stop) => {
                if let Stop::Refused(reason) = stop {
                    allowance.refuse(reason);
                }
                Next::Stop(stop)
            }
        }
    }

    fn pause(
        &mut self,
        failure: Failure,
        policy: &Policy,
        circumstances: Circumstances,
        allowance: &Allowance,
        now: Instant,
    ) -> Result<Duration, Stop> {
        let refused = |reason| Err(Stop::Refused(reason));
        // Whatever its code: a server that says so is in trouble.
        if failure.pushback == Some(Pushback::Never) {
            allowance.failed();
            return refused(RefusedRetry::Pushback);
        }
        let asked = failure.pushback.and_then(Pushback::pause);
        if !failure.is_retryable(policy) {
            return Err(Stop::Final);
        }
        // Before attempts are counted: the last failure of a call tells as much as its first.
        let open = allowance.failed();
        if self.attempts >= policy.attempts_max() {
            return refused(RefusedRetry::Attempts);
        }
        if !open {
            return refused(RefusedRetry::Throttled);
        }
        if circumstances.in_retry {
            return refused(RefusedRetry::Chain);
        }
        if !circumstances.replayable {
            return refused(RefusedRetry::Replay);
        }
        let pause = asked.unwrap_or_else(|| spread(policy.pause(self.since_pushback)));
        if pause > PAUSE_MAX {
            return refused(RefusedRetry::Pushback);
        }
        if circumstances.left.is_some_and(|left| left <= pause) {
            return refused(RefusedRetry::Deadline);
        }
        // Last, as it is spent by asking.
        if !allowance.withdraw(now) {
            return refused(RefusedRetry::Budget);
        }
        self.since_pushback = match asked {
            Some(_) => 0,
            None => self.since_pushback + 1,
        };
        Ok(pause)
    }
}

impl Failure {
    fn is_retryable(self, policy: &Policy) -> bool {
        match self.code {
            _ if self.timed_out => true,
            // A quota that is spent still is, unless the server knows when not.
            Code::ResourceExhausted => self.pushback.is_some() && policy.retries(self.code),
            code => policy.retries(code),
        }
    }
}

fn spread(pause: Duration) -> Duration {
    pause.mul_f64(1.0 + JITTER * (2.0 * fastrand::f64() - 1.0))
}

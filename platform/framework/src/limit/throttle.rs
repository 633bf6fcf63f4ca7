//! A client's own share in letting a target recover: the more of its calls a target turns away, the
//! fewer are sent (adaptive throttling, as Google's SRE book has it).
//!
//! With `requests` and `accepts` of the last half minute, a call is refused with the probability
//! `(requests - 2·accepts) / (requests + 1)`: as soon as half of the calls fail. Requests are
//! counted when they are made and not when they end, so that an outage that fails slowly is seen at
//! once; a call counts as accepted until it fails, so that one that takes long counts as nothing
//! bad. One that turns out to have reached nobody was no request: it counts as neither. Only what is
//! the target's fault lowers accepts. Some calls always go through, as nobody else finds out that the
//! target is back.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;
use tonic::Status;

use super::board::{Count, Fill, Kind};
use crate::{
    classify::Verdict,
    config,
    status::{self, Refusal},
    window::Window,
};

/// How many requests are sent for each that is accepted, at most. Below 2 a target that works
/// would have to be proved so; above, it is asked more while it fails.
const REQUESTS_PER_ACCEPT: f64 = 2.0;
const WINDOW: Duration = Duration::from_secs(30);
const SLICES: u32 = 30;
/// With fewer requests in the window nothing is known.
const REQUESTS_MIN: u64 = 10;
/// Share of the calls that is refused at most.
const REFUSED_MAX: f64 = 0.9;
/// One call in this time goes through whatever the rest does.
const PASS_EVERY: Duration = Duration::from_secs(1);

config::section! {
    /// Whether fewer calls are sent to a target while it turns most of them away.
    pub struct Config {
        /// Refuse a share of a method's calls here, with UNAVAILABLE, while more than half of them
        /// fail by the target's fault. One call a second always goes through, and so do those of
        /// others that are handed on.
        pub enabled: bool = true, live;
    }
}

/// The calls of one method at one target.
#[derive(Debug)]
pub struct Throttle {
    began: Instant,
    admitted: Window,
    refused: Window,
    failed: Window,
    /// Milliseconds since `began` until which some failure is in the window.
    failing_until: AtomicU64,
    /// Milliseconds since `began` when a call went through last, while some failed.
    passed_at: AtomicU64,
    /// Calls that were not sent since the process began.
    spared: Count,
}

/// A call that is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("most calls fail there, so this one is not sent")]
pub struct Refused;

impl Refused {
    /// What the caller sees.
    #[must_use]
    pub fn status(self, target: &str) -> Status {
        let text = format!("{target}: {self}");
        let status = Refusal::Throttled.status_with_pause(text, PASS_EVERY);
        status::with_public(status, "most calls to the instances fail")
    }
}

impl Default for Throttle {
    fn default() -> Self {
        let window = || Window::new(WINDOW, SLICES);
        Self {
            began: Instant::now(),
            admitted: window(),
            refused: window(),
            failed: window(),
            failing_until: AtomicU64::new(0),
            passed_at: AtomicU64::new(0),
            spared: Count::default(),
        }
    }
}

impl Throttle {
    /// Counts a call that is about to be sent, or says that it is not to be.
    ///
    /// # Errors
    ///
    /// If it is the turn of this call to be spared.
    pub fn admit(&self, now: Instant) -> Result<(), Refused> {
        // Nothing failed for a whole window: the usual case, and nothing to reckon.
        if self.millis(now) < self.failing_until.load(Ordering::Relaxed) && self.refuses(now) {
            self.refused.count(now);
            self.spared.add();
            return Err(Refused);
        }
        self.admitted.count(now);
        Ok(())
    }

    /// A call that was admitted at `since` never reached the target: there was no endpoint for it, or no
    /// time left. It was no request then, and nothing that the target accepted.
    pub fn unsent(&self, since: Instant) {
        self.admitted.take_back(since);
    }

    /// A call that was admitted at `since` ended; `verdict` says whose fault that was. Of one that was
    /// admitted a whole window ago, as a stream may be, nothing counts any more.
    pub fn judged(&self, verdict: Verdict, since: Instant, now: Instant) {
        if now.saturating_duration_since(since) >= WINDOW {
            return;
        }
        match verdict {
            Verdict::Hard | Verdict::Soft(_) => {}
            Verdict::Success | Verdict::Ignored | Verdict::Unserved => return,
        }
        self.failed.count(now);
        self.failing_until
            .fetch_max(self.millis(now + WINDOW), Ordering::Relaxed);
    }

    /// What was asked of late, against what may be before some of it is spared.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        reason = "counts of half a minute are far below 2^52"
    )]
    pub fn fill(&self, now: Instant) -> Fill {
        let admitted = self.admitted.sum(now);
        let requests = admitted + self.refused.sum(now);
        let accepts = admitted.saturating_sub(self.failed.sum(now));
        let max = (REQUESTS_PER_ACCEPT * accepts as f64).max(REQUESTS_MIN as f64);
        Fill {
            max: Some(max),
            refused: self.spared.get(),
            ..Fill::new(Kind::Throttle, requests as f64)
        }
    }

    fn refuses(&self, now: Instant) -> bool {
        let admitted = self.admitted.sum(now);
        let requests = admitted + self.refused.sum(now);
        if requests < REQUESTS_MIN {
            return false;
        }
        let accepts = admitted.saturating_sub(self.failed.sum(now));
        let probability = refusal(requests, accepts);
        if probability <= 0.0 {
            return false;
        }
        let at = self.millis(now);
        let passed_at = self.passed_at.load(Ordering::Relaxed);
        let due = at.saturating_sub(passed_at) >= millis(PASS_EVERY);
        if !due && fastrand::f64() < probability {
            return true;
        }
        // Of those that come at once when a pass is due, the one that takes it: the others go
        // through with the next.
        let order = Ordering::Relaxed;
        let took = self.passed_at.compare_exchange(passed_at, at, order, order);
        due && took.is_err() && fastrand::f64() < probability
    }

    fn millis(&self, at: Instant) -> u64 {
        millis(at.saturating_duration_since(self.began))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The probability with which a call is refused, after so many requests and accepts.
#[allow(
    clippy::cast_precision_loss,
    reason = "counts of half a minute are far below 2^52"
)]
fn refusal(requests: u64, accepts: u64) -> f64 {
    let (requests, accepts) = (requests as f64, accepts as f64);
    let share = (requests - REQUESTS_PER_ACCEPT * accepts) / (requests + 1.0);
    share.clamp(0.0, REFUSED_MAX)
}

#[cfg(test)]
mod tests;

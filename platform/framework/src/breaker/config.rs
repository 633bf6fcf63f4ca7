//! When a breaker opens, and how it finds out that it may close.

use std::{borrow::Cow, time::Duration};

use crate::{
    backoff,
    config::{self, Check},
};

config::choice! {
    /// Who decides whether calls pass.
    pub enum Mode {
        /// The breaker does, by how calls end.
        Automatic = "automatic",
        /// None passes.
        ForcedOpen = "forced_open",
        /// All pass, and nothing is counted.
        Disabled = "disabled",
        /// All pass; the breaker counts and shows what it would do.
        MetricsOnly = "metrics_only",
    }
}

config::section! {
    /// When calls are refused because those before them failed, and for how long.
    pub struct Config {
        /// Who decides: `automatic`; `forced_open` refuses every call; `disabled` lets all pass and
        /// counts nothing; `metrics_only` lets all pass, counts, and shows what it would do.
        pub state: Mode = Mode::Automatic, live;
        /// Failures one after the other that open it; a success begins anew. Refusals for now, which
        /// say when to come back, do not count here. 0 switches this off.
        pub failures_in_a_row: u32 = 5, in 0..=1_000_000, live;
        /// How long the end of a call is remembered for the two rates.
        pub window: Duration = Duration::from_secs(10), in Duration::from_millis(100)..=Duration::from_hours(1), live;
        /// Share of failed calls, refusals for now among them, that opens it: above 0, up to 1.
        pub failure_rate: f64 = 0.5, live;
        /// Calls within `window` before a rate says anything.
        pub calls_min: u32 = 20, in 1..=1_000_000, live;
        /// A call that takes as long is slow, however it ends. 0s switches this off.
        pub slow_call: Duration = Duration::ZERO, in Duration::ZERO..=Duration::from_hours(1), live;
        /// Share of slow calls that opens it: above 0, up to 1.
        pub slow_rate: f64 = 1.0, live;
        /// How long it stays open before one call may try again; twice as long with each such call
        /// that fails, or is slow.
        pub pause_min: Duration = Duration::from_secs(1), in Duration::from_millis(1)..=Duration::from_hours(1), live;
        /// Longest such pause.
        pub pause_max: Duration = Duration::from_mins(1), in Duration::from_millis(1)..=Duration::from_hours(24), live;
        /// Spread of the pauses either way, as a share of them: from 0 to below 1.
        pub pause_jitter: f64 = 0.2, live;
        /// How long the call that tries again is waited for before another one may, too.
        pub probe_time_max: Duration = Duration::from_mins(1), in Duration::from_millis(1)..=Duration::from_hours(24), live;
    }
    validate = Config::check;
}

config::section! {
    /// What the calls of a method mean for the breakers of the endpoints that they are made to.
    #[derive(Copy)]
    pub struct Policy {
        /// Whether how they end counts there, and where an endpoint is ejected for failing more than
        /// others. Where not, they open nothing; one that finds out for a breaker that is open still
        /// closes it, if it succeeds.
        pub counted: bool = true, live;
        /// A call that takes as long is slow, in place of what `slow_call` of the client's breaker
        /// says; 0s leaves it to that.
        pub slow_call: Duration = Duration::ZERO, in Duration::ZERO..=Duration::from_hours(1), live;
    }
}

impl Config {
    /// The same for a call that follows `policy`.
    #[must_use]
    pub fn under(&self, policy: Policy) -> Cow<'_, Self> {
        if policy.slow_call.is_zero() {
            return Cow::Borrowed(self);
        }
        Cow::Owned(Self {
            slow_call: policy.slow_call,
            ..self.clone()
        })
    }

    /// The pauses between probes.
    pub(super) fn pauses(&self) -> backoff::Config {
        backoff::Config {
            min: self.pause_min,
            max: self.pause_max,
            multiplier: 2.0,
            jitter: self.pause_jitter,
        }
    }

    /// Whether a call that took `time` was slow.
    pub(super) fn is_slow(&self, time: Duration) -> bool {
        !self.slow_call.is_zero() && time >= self.slow_call
    }

    fn check(&self, check: &mut Check<'_, '_>) {
        for (key, rate) in [
            ("failure_rate", self.failure_rate),
            ("slow_rate", self.slow_rate),
        ] {
            if !(rate > 0.0 && rate <= 1.0) {
                check.refuse(key, "expected a number above 0, up to 1");
            }
        }
        if let Err(error) = backoff::Backoff::new(self.pauses()) {
            match error {
                backoff::ConfigError::MaxBelowMin => {
                    check.refuse("pause_max", "expected no less than pause_min");
                }
                backoff::ConfigError::JitterOutOfRange => {
                    check.refuse("pause_jitter", "expected a number from 0 to below 1");
                }
                other => check.refuse("pause_min", other),
            }
        }
        if !self.slow_call.is_zero() && self.slow_call >= self.probe_time_max {
            let text = "expected more than slow_call, or a slow call that tries again is given up \
                        before it is known to be slow";
            check.refuse("probe_time_max", text);
        }
    }
}

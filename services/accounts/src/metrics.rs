//! What this service counts.

use gantry::{
    names::{Kind, Metric, Unit},
    telemetry::{
        label,
        metric::{Counter, Family, Histogram, series},
    },
};

label! {
    /// Why a login was refused.
    pub enum Failure {
        /// There is no such account.
        UnknownAccount = "unknown_account",
        /// The password is another.
        WrongPassword = "wrong_password",
        /// Too many wait already.
        Busy = "busy",
        /// Something here is broken.
        Internal = "internal",
    }
}

const REQUESTS: Metric = Metric::new(
    Kind::Counter,
    "auth_requests_total",
    Unit::Count,
    "Logins that were tried.",
);
const SUCCESS: Metric = Metric::new(
    Kind::Counter,
    "auth_success_total",
    Unit::Count,
    "Logins that were answered with a token.",
);
const FAILURE: Metric = Metric::new(
    Kind::Counter,
    "auth_failure_total",
    Unit::Count,
    "Logins that were refused, by reason.",
)
.by(&["reason"]);
const DURATION: Metric = Metric::new(
    Kind::Histogram,
    "auth_duration_seconds",
    Unit::Seconds,
    "How long logins took, the wait for a turn included.",
);

/// Counters of logins; clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Logins tried.
    pub requests: Counter,
    /// Logins that succeeded.
    pub success: Counter,
    /// Logins refused.
    pub failure: Family<Counter, Failure>,
    /// How long they took.
    pub duration: Histogram,
}

impl Metrics {
    /// Makes the metrics known.
    #[must_use]
    pub fn register() -> Self {
        Self {
            requests: series(&REQUESTS, &[]),
            success: series(&SUCCESS, &[]),
            failure: Family::register(&FAILURE, &[]),
            duration: series(&DURATION, &[]),
        }
    }
}

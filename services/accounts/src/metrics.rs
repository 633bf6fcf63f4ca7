//! What this service counts.

use gantry::telemetry::{label, metrics};

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

metrics! {
    /// How logins go; clones share the counters.
    pub struct Metrics {
        /// Logins that were tried.
        requests: counter "auth_requests_total";
        /// Logins that were answered with a token.
        success: counter "auth_success_total";
        /// Logins that were refused, by reason.
        failure: counter "auth_failure_total" { reason: Failure };
        /// How long logins took, the wait for a turn included.
        duration: histogram "auth_duration_seconds" seconds;
    }
}

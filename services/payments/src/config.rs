//! What can be set for this service.

use std::time::Duration;

use gantry::{
    breaker,
    config::{self, Check},
};
use gantry_store::Config as Database;

config::section! {
    /// Settings of the payments service.
    pub struct Config {
        /// Where payments are kept.
        pub database: section Database = Database::of("payments");
        /// Who moves the money.
        pub bank: section Bank;
    }
}

config::section! {
    /// Who moves the money, and how long it may take.
    pub struct Bank {
        /// Where the bank answers: `http://host[:port]`.
        pub url: String = "http://127.0.0.1:8090".to_owned(), restart;
        /// How long one request may take, where its caller allows as much: less than orders wait for
        /// a payment, so that what became of it is written down here.
        pub timeout: Duration = Duration::from_secs(4), in Duration::from_millis(10)..=Duration::from_mins(1), live;
        /// Requests at once; more wait for their turn, within their timeout.
        pub requests_max: usize = 64, in 1..=10_000, restart;
        /// Connections kept open between requests.
        pub idle_max: usize = 16, in 0..=10_000, restart;
        /// How long its answer to a health check may take before it is told as slow.
        pub latency_max: Duration = Duration::from_millis(500), in Duration::from_millis(10)..=Duration::from_mins(1), restart;
        /// When it is not asked, because it failed. The pauses are short, as orders wait for it.
        pub breaker: section breaker::Config = breaker::Config {
            pause_max: Duration::from_secs(3),
            ..breaker::Config::default()
        };
    }
    validate = Bank::check;
}

impl Bank {
    fn check(&self, check: &mut Check<'_, '_>) {
        if self.timeout > self.breaker.probe_time_max {
            let text = "expected no more than breaker.probe_time_max, or a bank that is away is asked \
                        by several requests at once";
            check.refuse("timeout", text);
        }
    }
}

//! How the spreading of calls is configured; `[clients.catalog.balance]` in a file.

use std::time::Duration;

use super::outlier;
use crate::{breaker, config};

/// Longest time in which an endpoint comes to its share.
const WINDOW_MAX: Duration = Duration::from_hours(1);

config::section! {
    /// Which of its endpoints a client connects, and how calls are spread over them.
    pub struct Config {
        /// Endpoints that a process connects to; each process takes others of a longer list. While
        /// too few of them can take calls, as many more are connected as cannot. 0 connects all.
        pub subset_size: usize = 20, in 0..=100_000, live;
        /// Where fewer endpoints than this, in percent, can take calls, ejections and open breakers
        /// are passed over: better to try those than to overload the rest. 0 never does.
        pub panic_percent: u32 = 50, in 0..=100, live;
        /// What an endpoint in another zone than this process counts for, in percent of one in the
        /// same, see `registration.zone`; 100 where zones do not matter.
        pub zone_other_percent: u32 = 50, in 1..=100, live;
        /// How endpoints that are new, or were out for a while, come to their share of calls.
        pub slow_start: section SlowStart;
        /// When an endpoint gets no calls for failing those before, each by itself. Callers never see
        /// that: its endpoint is not ready.
        pub breaker: section breaker::Config;
        /// Longest pause of a breaker whose endpoint is the only one: nobody has an answer before one
        /// call has tried it. One that is longer than `breaker.pause_max` changes nothing.
        pub alone_pause_max: Duration = Duration::from_secs(1), in Duration::from_millis(1)..=Duration::from_hours(24), live;
        /// When an endpoint gets no calls for failing more than others.
        pub outlier: section outlier::Config;
    }
}

config::section! {
    /// How endpoints that are new, or were out for a while, come to their share of calls.
    pub struct SlowStart {
        /// How long it takes; 0s for at once.
        pub window: Duration = Duration::from_secs(30), in Duration::ZERO..=WINDOW_MAX, live;
        /// Share they begin with, in percent of what they come to.
        pub weight_min_percent: u32 = 10, in 1..=100, live;
        /// How the share grows: 1 evenly, more than 1 faster at the beginning.
        pub aggression: f64 = 1.0, in 0.1..=10.0, live;
    }
}

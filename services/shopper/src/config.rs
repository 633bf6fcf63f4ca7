//! What can be set for the demo.

use std::time::Duration;

use gantry::config;

config::section! {
    /// Settings of the demo.
    pub struct Config {
        /// Who shops, and how much.
        pub shopping: section Shopping;
    }
}

config::section! {
    /// Who shops, and how much.
    pub struct Shopping {
        /// People who shop at the same time; each has an account of their own.
        pub people: usize = 3, in 1..=50, restart;
        /// Calls a second at most, of all of them together.
        pub calls_per_second: f64 = 4.0, in 0.1..=100.0, live;
        /// Pause between two lines of the log that say how it goes.
        pub summary_interval: Duration = Duration::from_secs(30), in Duration::from_millis(100)..=Duration::from_hours(24), live;
    }
}

//! What can be set for this service.

use std::time::Duration;

use gantry::{auth::Tokens, config};
use gantry_store::Config as Database;

config::section! {
    /// Settings of the orders service.
    pub struct Config {
        /// Where orders are kept.
        pub database: section Database = Database::of("orders");
        /// What carries events.
        pub broker: section gantry_events::broker::Config;
        /// How events are published and consumed.
        pub events: section gantry_events::Config;
        /// Which tokens are accepted.
        pub tokens: section Tokens = Tokens::of("shop.accounts", "shop");
        /// How orders go from placed to final.
        pub orders: section Orders;
    }
}

config::section! {
    /// How orders go from placed to final.
    pub struct Orders {
        /// How long a confirmed order can be cancelled; after that it is completed.
        pub cancel_window: Duration = Duration::from_mins(5), in Duration::from_millis(10)..=Duration::from_hours(30 * 24), live;
        /// How long whoever works at an order has it to itself; a step at another service may take
        /// half of it. After that, or a crash, another takes over.
        pub lease: Duration = Duration::from_secs(10), in Duration::from_millis(10)..=Duration::from_hours(1), live;
        /// Pause before an order whose step another service did not answer is taken up again; it grows
        /// with each further try of the step.
        pub retry_pause: Duration = Duration::from_secs(1), in Duration::from_millis(10)..=Duration::from_hours(1), live;
        /// Longest such pause. How long after an outage orders still wait, a fifth more at most.
        pub retry_pause_max: Duration = Duration::from_secs(8), in Duration::from_millis(10)..=Duration::from_hours(1), live;
        /// How long an order may take to be confirmed; after that it is cancelled.
        pub pending_max: Duration = Duration::from_mins(5), in Duration::from_millis(10)..=Duration::from_hours(24), live;
        /// Pause between two searches for orders that need a next step.
        pub sweep_interval: Duration = Duration::from_millis(500), in Duration::from_millis(10)..=Duration::from_hours(1), live;
        /// How long a change made by another replica may go unseen by those who watch the order;
        /// one of them looks this often.
        pub watch_interval: Duration = Duration::from_millis(500), in Duration::from_millis(10)..=Duration::from_mins(1), live;
        /// Watches open at once; more are refused as RESOURCE_EXHAUSTED.
        pub watchers_max: usize = 10_000, in 1..=1_000_000, live;
    }
}

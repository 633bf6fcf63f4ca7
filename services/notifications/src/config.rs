//! What can be set for this service.

use std::time::Duration;

use gantry::{auth::Tokens, config};
use gantry_store::Config as Database;

config::section! {
    /// Settings of the notifications service.
    pub struct Config {
        /// Where notifications are kept.
        pub database: section Database = Database::of("notifications");
        /// What carries events.
        pub broker: section gantry_events::broker::Config;
        /// How events are published and consumed.
        pub events: section gantry_events::Config;
        /// Which tokens are accepted.
        pub tokens: section Tokens = Tokens::of("shop.accounts", "shop");
        /// How long they are kept, and how they are sent.
        pub notifications: section Notifications;
    }
}

config::section! {
    /// How long notifications are kept, and how they are sent.
    pub struct Notifications {
        /// How long a notification is kept.
        pub retention: Duration = Duration::from_hours(30 * 24), in Duration::from_mins(1)..=Duration::from_hours(3_650 * 24), live;
        /// Pause between two searches for those that were kept long enough.
        pub sweep_interval: Duration = Duration::from_mins(10), in Duration::from_millis(10)..=Duration::from_hours(24), live;
        /// How long a notification that another replica was given may go unseen by those who watch.
        pub watch_interval: Duration = Duration::from_millis(500), in Duration::from_millis(10)..=Duration::from_mins(1), live;
        /// Watches open at once; more are refused as RESOURCE_EXHAUSTED.
        pub watchers_max: usize = 1_000, in 1..=100_000, restart;
    }
}

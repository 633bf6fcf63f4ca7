//! What can be set for this service.

use std::time::Duration;

use gantry::{auth::Tokens, config};
use gantry_store::Config as Database;

config::section! {
    /// Settings of the catalog service.
    pub struct Config {
        /// Where products, stock and reservations are kept.
        pub database: section Database = Database::of("catalog");
        /// What carries events.
        pub broker: section gantry_events::broker::Config;
        /// How events are published and consumed.
        pub events: section gantry_events::Config;
        /// Which tokens are accepted.
        pub tokens: section Tokens = Tokens::of("shop.accounts", "shop");
        /// Stock held for orders.
        pub reservations: section Reservations;
    }
}

config::section! {
    /// Stock held for orders.
    pub struct Reservations {
        /// How long stock is held for a reservation that is never confirmed.
        pub lifetime: Duration = Duration::from_mins(15), in Duration::from_secs(1)..=Duration::from_hours(24), live;
        /// Pause between two searches for reservations that have expired.
        pub sweep_interval: Duration = Duration::from_secs(5), in Duration::from_millis(10)..=Duration::from_hours(1), live;
    }
}

//! What can be set for this service.

use gantry::config;
use gantry_store::Config as Database;

config::section! {
    /// Settings of the bank.
    pub struct Config {
        /// Where the ledger is kept.
        pub database: section Database = Database::of("bank");
        /// Which charges are taken.
        pub charges: section Charges;
    }
}

config::section! {
    /// Which charges are taken.
    pub struct Charges {
        /// Largest amount of one charge, in the smallest unit of its currency; more is declined.
        pub amount_max: i64 = 1_000_000, in 1.., live;
    }
}

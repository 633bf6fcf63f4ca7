//! What can be set for this service.

use std::time::Duration;

use gantry::config;
use gantry_store::Config as Database;

use crate::domain::Terms;

config::section! {
    /// Settings of the accounts service.
    pub struct Config {
        /// Where accounts and keys are kept.
        pub database: section Database = Database::of("accounts");
        /// The tokens people get when they log in.
        pub tokens: section Tokens;
        /// How passwords are hashed.
        pub passwords: section Passwords;
    }
}

config::section! {
    /// The tokens people get when they log in.
    pub struct Tokens {
        /// Who signs, as tokens and those who check them name it.
        pub issuer: String = "shop.accounts".to_owned(), live;
        /// Who is to accept the tokens.
        pub audience: String = "shop".to_owned(), live;
        /// How long a token is good. It cannot be taken back, so keep it short.
        pub lifetime: Duration = Duration::from_mins(15), in Duration::from_secs(1)..=Duration::from_hours(1), live;
        /// How long a key signs before the next one takes its place.
        pub key_lifetime: Duration = Duration::from_hours(30 * 24), in Duration::from_hours(24)..=Duration::from_hours(366 * 24), restart;
    }
}

config::section! {
    /// How passwords are hashed.
    pub struct Passwords {
        /// Hashes at once; each takes 19 MiB and a processor for a moment.
        pub running_max: usize = 2, in 1..=64, restart;
        /// Logins that may wait for a hash, and as many registrations beside them; more are refused as
        /// UNAVAILABLE.
        pub line_max: usize = 64, in 0..=10_000, restart;
    }
}

impl Tokens {
    /// The terms new tokens are signed on.
    #[must_use]
    pub fn terms(&self) -> Terms {
        Terms {
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            lifetime: self.lifetime,
        }
    }
}

//! The `[broker]` section: which broker, and how it is reached.

mod url;

use std::{ops::RangeInclusive, time::Duration};

use gantry::{
    client::Tls,
    config::{self, Check, Secret},
};

pub(super) use url::plain;
pub use url::{Login, Scheme, Url, UrlError};

/// Bounds of waits.
const WAIT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_mins(10);

config::section! {
    /// What carries events from here to there.
    pub struct Config {
        /// Where it is: `grpc://HOST:PORT` for the local one of `gantry up`, `amqp://HOST[:PORT][/VHOST]`
        /// for RabbitMQ, `amqps://` where that is encrypted.
        pub url: Url = Url::local(), restart;
        /// Who logs in, where the broker asks.
        pub user: Option<String> = None, restart;
        /// The user's password.
        pub password: Secret = Secret::default(), restart;
        /// Longest wait for a connection, and for each answer that is no confirmation.
        pub connect_timeout: Duration = Duration::from_secs(5), in WAIT, restart;
        /// Longest wait for the broker to confirm a message, or that one is settled. After it the
        /// message is published again, and the connection made anew.
        pub confirm_timeout: Duration = Duration::from_secs(30), in WAIT, live;
        /// Silence after which the broker is asked whether it is there; one that does not answer for
        /// as long again is gone.
        pub heartbeat: Duration = Duration::from_secs(10), in Duration::from_secs(1)..=Duration::from_mins(10), restart;
        /// Encrypts the connection.
        pub tls: optional section Tls, restart;
    }
    validate = Config::check;
}

impl Config {
    /// The defaults, for the broker at `url`.
    #[must_use]
    pub fn to(url: Url) -> Self {
        Self {
            url,
            ..Self::default()
        }
    }

    fn check(&self, check: &mut Check<'_, '_>) {
        let encrypted = self.url.scheme() == Scheme::Amqps;
        if encrypted && self.tls.is_none() {
            let wanted = "expected broker.tls.ca beside it, the certificates to trust";
            check.refuse("url", wanted);
        } else if !encrypted && self.tls.is_some() {
            check.refuse("url", "expected amqps:// as broker.tls is set");
        }
        let asks_nobody = self.url.scheme() == Scheme::Grpc;
        if asks_nobody && (self.user.is_some() || !self.password.is_empty()) {
            check.refuse(
                "user",
                "expected none: the local broker asks nobody who it is",
            );
        }
        if self.user.is_some() == self.password.is_empty() {
            check.refuse(
                "password",
                "expected user and password together, or neither",
            );
        }
    }
}

//! Which RabbitMQ, and who logs in, as the configuration has it.

use std::{fmt, time::Duration};

use gantry::{client::Tls, config::Secret};

use crate::broker::{Config, Url, plain};

/// Who logs in where nobody is named: whom a RabbitMQ knows that was set up by nobody, and lets in from
/// its own machine alone.
const GUEST: &str = "guest";

/// A virtual host of a RabbitMQ, and who logs in. The password is never shown.
#[derive(Clone)]
pub(super) struct Place {
    url: Url,
    pub(super) user: String,
    pub(super) password: Secret,
    pub(super) tls: Option<Tls>,
    pub(super) heartbeat: Duration,
    /// Longest time for a connection to come about: TCP, TLS, and who we are.
    pub(super) connect_timeout: Duration,
}

impl Place {
    pub(super) fn new(config: &Config) -> Self {
        let password = match &config.user {
            Some(_) => config.password.clone(),
            None => Secret::new(GUEST),
        };
        Self {
            url: config.url.clone(),
            user: config.user.clone().unwrap_or_else(|| GUEST.to_owned()),
            password,
            tls: config.tls.clone(),
            heartbeat: config.heartbeat,
            connect_timeout: config.connect_timeout,
        }
    }

    /// A name, or an address.
    pub(super) fn host(&self) -> &str {
        self.url.host().trim_matches(['[', ']'])
    }

    pub(super) fn port(&self) -> u16 {
        self.url.port()
    }

    /// The virtual host, without the escapes that it has in a URL.
    pub(super) fn virtual_host(&self) -> String {
        self.url.vhost().map_or_else(|| "/".to_owned(), plain)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a place is what the configuration says, and what RabbitMQ takes for granted beside it.
    /// Method: places of URLs with and without a virtual host, of a user and of nobody.
    #[test]
    fn places_are_read() {
        let place = |url: &str| Place::new(&Config::to(url.parse().expect("a URL")));
        let bare = place("amqp://rabbit");
        assert_eq!(("rabbit", 5_672), (bare.host(), bare.port()));
        assert_eq!("/", bare.virtual_host());
        assert_eq!((GUEST, GUEST), (&*bare.user, bare.password.expose()));
        assert_eq!("::1", place("amqp://[::1]:7000").host());
        for (written, meant) in [
            ("shop", "shop"),
            ("%2F", "/"),
            ("a%2fb%25", "a/b%"),
            ("50%", "50%"),
        ] {
            assert_eq!(
                meant,
                place(&format!("amqp://rabbit/{written}")).virtual_host()
            );
        }
    }

    /// Goal: nobody sees a password.
    /// Method: look at all that is printed of a place with one.
    #[test]
    fn passwords_are_never_shown() {
        let mut config = Config::to("amqp://rabbit/shop".parse().expect("a URL"));
        config.user = Some("me".to_owned());
        config.password = Secret::new("hush");
        let place = Place::new(&config);
        assert_eq!("hush", place.password.expose());
        for shown in [place.to_string(), format!("{place:?}")] {
            assert_eq!(None, shown.find("hush"), "{shown}");
        }
    }
}

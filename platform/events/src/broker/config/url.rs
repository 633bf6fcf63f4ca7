//! Which broker, as people write it.

use std::{borrow::Cow, fmt, str::FromStr};

use gantry::config::{Given, Mismatch, Secret, Setting};
use http::uri::Authority;

/// Where the broker of `gantry up` is without more words.
const LOCAL: (&str, u16) = ("127.0.0.1", 5_670);

/// The place of a broker: `grpc://HOST:PORT`, `amqp://HOST[:PORT][/VHOST]` or the same with `amqps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    scheme: Scheme,
    host: String,
    port: u16,
    vhost: Option<String>,
}

/// Which kind of broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// The local one.
    Grpc,
    /// RabbitMQ, in plaintext.
    Amqp,
    /// RabbitMQ, encrypted.
    Amqps,
}

impl Scheme {
    const ALL: [Self; 3] = [Self::Grpc, Self::Amqp, Self::Amqps];

    /// How it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Amqp => "amqp",
            Self::Amqps => "amqps",
        }
    }

    /// The port of one that names none.
    fn port(self) -> u16 {
        match self {
            Self::Grpc => LOCAL.1,
            Self::Amqp => 5_672,
            Self::Amqps => 5_671,
        }
    }
}

/// Who logs in, as URLs of AMQP may say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password; empty where the URL has none.
    pub password: Secret,
}

impl Login {
    /// Takes who logs in out of `amqp://USER[:PASSWORD]@HOST`: the URL without it, and who. Whatever is
    /// no such URL stays as it is.
    ///
    /// A [`Url`] of the configuration names nobody, as it is shown; this is for what people paste.
    #[must_use]
    pub fn taken_from(text: &str) -> (String, Option<Self>) {
        let amqp = [Scheme::Amqp, Scheme::Amqps];
        let split = text.split_once("://").and_then(|(scheme, rest)| {
            amqp.into_iter().find(|it| it.as_str() == scheme)?;
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (login, _) = rest[..end].rsplit_once('@')?;
            Some((scheme, login, &rest[login.len() + 1..]))
        });
        let Some((scheme, login, rest)) = split else {
            return (text.to_owned(), None);
        };
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let login = Self {
            user: plain(user),
            password: Secret::new(plain(password)),
        };
        (format!("{scheme}://{rest}"), Some(login))
    }
}

/// Why a text names no broker. Never repeats it: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It does not begin with a known scheme.
    #[error("expected grpc://HOST:PORT, amqp://HOST or amqps://HOST")]
    Scheme,
    /// It says who logs in.
    #[error("expected HOST:PORT alone; who logs in stands in broker.user and broker.password")]
    User,
    /// There is no host, or what follows it is no port.
    #[error(
        "expected a host, and a port from 1 to 65535 behind a colon where it is not the usual one"
    )]
    Host,
    /// Something stands behind the host that has no place there.
    #[error("expected nothing behind it but one /VHOST, of RabbitMQ")]
    Path,
}

impl Url {
    /// Where the broker of `gantry up` is without more words.
    #[must_use]
    pub fn local() -> Self {
        let (host, port) = LOCAL;
        Self {
            scheme: Scheme::Grpc,
            host: host.to_owned(),
            port,
            vhost: None,
        }
    }

    /// Which kind of broker.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// A name or an address; one of IPv6 in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, the usual one where none was named.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// RabbitMQ's virtual host, where one was named, as it was written.
    #[must_use]
    pub fn vhost(&self) -> Option<&str> {
        self.vhost.as_deref()
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let mut all = Scheme::ALL.into_iter();
        let scheme = all.find(|it| it.as_str() == scheme);
        let scheme = scheme.ok_or(UrlError::Scheme)?;
        if rest.contains('@') {
            return Err(UrlError::User);
        }
        let (authority, vhost) = match rest.split_once('/') {
            Some((authority, "")) => (authority, None),
            Some((authority, vhost)) => (authority, Some(vhost.to_owned())),
            None => (rest, None),
        };
        let other = |vhost: &String| scheme == Scheme::Grpc || vhost.contains(['/', '?', '#']);
        if vhost.as_ref().is_some_and(other) || authority.contains(['?', '#']) {
            return Err(UrlError::Path);
        }
        let authority: Authority = authority.parse().map_err(|_| UrlError::Host)?;
        let named = authority.as_str() != authority.host();
        let port = match authority.port_u16() {
            Some(port @ 1..) => port,
            None if !named => scheme.port(),
            _ => return Err(UrlError::Host),
        };
        if authority.host().is_empty() {
            return Err(UrlError::Host);
        }
        Ok(Self {
            scheme,
            host: authority.host().to_owned(),
            port,
            vhost,
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scheme, host, port, ..
        } = self;
        write!(f, "{}://{host}:{port}", scheme.as_str())?;
        match &self.vhost {
            Some(vhost) => write!(f, "/{vhost}"),
            None => Ok(()),
        }
    }
}

impl Setting for Url {
    fn kind() -> Cow<'static, str> {
        "broker".into()
    }

    fn expected() -> Cow<'static, str> {
        "a broker such as grpc://127.0.0.1:5670".into()
    }

    fn read(given: Given<'_>) -> Result<Self, Mismatch> {
        let text = given.text().ok_or_else(Mismatch::default)?;
        text.parse().map_err(|error: UrlError| {
            let mismatch = Mismatch::because(error.to_string());
            // It may hold a password.
            mismatch.unshown()
        })
    }

    fn show(&self) -> Option<String> {
        Some(format!("\"{self}\""))
    }
}

/// A part of a URL without its escapes; what is no escape stays as it is.
pub(in crate::broker) fn plain(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [first, behind @ ..] = rest {
        let escaped = behind.get(..2).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 16).ok()
        });
        let escaped = escaped.filter(|_| *first == b'%');
        bytes.push(escaped.unwrap_or(*first));
        rest = escaped.map_or(behind, |_| &behind[2..]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a URL names one broker, and what does not is told apart without being repeated.
    /// Method: good ones with what they come to, and bad ones.
    #[test]
    fn a_url_names_one_broker() {
        for (text, shown) in [
            ("grpc://127.0.0.1:5670", "grpc://127.0.0.1:5670"),
            ("grpc://localhost/", "grpc://localhost:5670"),
            ("amqp://rabbit", "amqp://rabbit:5672"),
            ("amqps://rabbit/shop", "amqps://rabbit:5671/shop"),
            ("amqp://[::1]:1/%2F", "amqp://[::1]:1/%2F"),
        ] {
            assert_eq!(shown, text.parse::<Url>().unwrap().to_string());
        }
        for (text, fault) in [
            ("127.0.0.1:5670", UrlError::Scheme),
            ("http://127.0.0.1:5670", UrlError::Scheme),
            ("amqp://me:secret@rabbit", UrlError::User),
            ("amqp://", UrlError::Host),
            ("amqp://:1", UrlError::Host),
            ("amqp://rabbit:0", UrlError::Host),
            ("amqp://rabbit:", UrlError::Host),
            ("amqp://rabbit:99999", UrlError::Host),
            ("grpc://127.0.0.1:5670/shop", UrlError::Path),
            ("amqp://rabbit/a/b", UrlError::Path),
            ("amqp://rabbit?heartbeat=1", UrlError::Path),
        ] {
            assert_eq!(Err(fault), text.parse::<Url>(), "{text}");
        }
    }

    /// Goal: who logs in is taken out of URLs of AMQP, escapes undone, and out of no others.
    /// Method: URLs with and without somebody.
    #[test]
    fn who_logs_in_is_taken_out() {
        for (text, url, expected) in [
            (
                "amqp://me:pw@it:1/shop",
                "amqp://it:1/shop",
                Some(("me", "pw")),
            ),
            ("amqps://me@it", "amqps://it", Some(("me", ""))),
            (
                "amqp://a%40b:p%2Fq%3A@it",
                "amqp://it",
                Some(("a@b", "p/q:")),
            ),
            ("amqp://me:p@ss:w@it/", "amqp://it/", Some(("me", "p@ss:w"))),
            ("amqp://it/a@b", "amqp://it/a@b", None),
            ("grpc://me:pw@it:1", "grpc://me:pw@it:1", None),
            ("me:pw@it", "me:pw@it", None),
        ] {
            let (rest, login) = Login::taken_from(text);
            let login = login
                .as_ref()
                .map(|it| (it.user.as_str(), it.password.expose()));
            assert_eq!((url, expected), (rest.as_str(), login), "{text}");
        }
    }
}

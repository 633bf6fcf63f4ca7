//! Which RabbitMQ, as people write it.

use std::{fmt, net::IpAddr, path::PathBuf};

use gantry::config::Secret;
use url::Url;

/// The most that a name of a user or of a virtual host has, in bytes.
const NAME_MAX: usize = 255;

/// A virtual host of a RabbitMQ, and who logs in.
///
/// `amqp://USER:PASSWORD@HOST[:PORT][/VHOST]`, or `amqps://…[?cacertfile=PATH]` with TLS, which trusts
/// what this machine does, or what the file says alone. The virtual host is `/` where none is named.
///
/// The password is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) virtual_host: String,
    pub(super) user: String,
    pub(super) password: Secret,
    pub(super) tls: Option<Trust>,
}

/// Whose certificates are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trust {
    /// Those of whoever this machine trusts.
    Machine,
    /// Those of the authorities in a file, in PEM, alone.
    File(PathBuf),
}

/// Why a text names no RabbitMQ. Never repeats it: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected amqp://USER:PASSWORD@HOST[:PORT][/VHOST], or amqps://…[?cacertfile=PATH]; {0}")]
pub struct UrlError(&'static str);

impl Place {
    pub(super) fn read(text: &str) -> Result<Self, UrlError> {
        let url = Url::parse(text).map_err(|_| UrlError("this is no URL"))?;
        let secured = match url.scheme() {
            "amqp" => false,
            "amqps" => true,
            _ => return Err(UrlError("it begins with something else")),
        };
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or(UrlError("the host is missing"))?;
        let user = plain(url.username())?;
        if user.is_empty() {
            return Err(UrlError("the user is missing"));
        }
        if url.fragment().is_some() {
            return Err(UrlError("a # in it is written as %23"));
        }
        let virtual_host = match url.path() {
            "" | "/" => "/".to_owned(),
            path => plain(path.strip_prefix('/').unwrap_or(path))?,
        };
        if url.path().matches('/').count() > 1 {
            return Err(UrlError("a / in a virtual host is written as %2F"));
        }
        let mut file = None;
        for (key, value) in url.query_pairs() {
            if key != "cacertfile" || file.replace(PathBuf::from(&*value)).is_some() {
                return Err(UrlError("cacertfile may come once, and nothing else"));
            }
        }
        let tls = match (secured, file) {
            (false, Some(_)) => return Err(UrlError("cacertfile goes with amqps")),
            (false, None) => None,
            (true, file) => Some(file.map_or(Trust::Machine, Trust::File)),
        };
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(if secured { 5671 } else { 5672 }),
            virtual_host,
            user,
            password: Secret::new(plain(url.password().unwrap_or_default())?),
            tls,
        })
    }

    /// The host as it stands in a URL.
    pub(super) fn authority(&self) -> String {
        match self.host.parse() {
            Ok(IpAddr::V6(address)) => format!("[{address}]:{}", self.port),
            _ => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "amqps" } else { "amqp" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({self})")
    }
}

/// A part of a URL without its escapes.
fn plain(part: &str) -> Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|it| char::from(it).to_digit(16));
        let digits = [digit(rest.next()), digit(rest.next())];
        let [Some(high), Some(low)] = digits else {
            return Err(UrlError("a % in it is written as %25"));
        };
        bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
    }
    if bytes.len() > NAME_MAX {
        return Err(UrlError("a name in it is too long"));
    }
    String::from_utf8(bytes).map_err(|_| UrlError("an escape in it is no UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place::read(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// Goal: all that a URL may say is understood.
    /// Method: read one of each kind.
    #[test]
    fn places_are_read() {
        let plain = place("amqp://me:word@rabbit");
        assert_eq!(("rabbit", 5672), (&*plain.host, plain.port));
        assert_eq!(("/", "me"), (&*plain.virtual_host, &*plain.user));
        assert_eq!("word", plain.password.expose());
        assert_eq!(None, plain.tls);
        assert_eq!("/", place("amqp://me:word@rabbit/").virtual_host);
        assert_eq!("/shop", place("amqp://me:w@rabbit/%2Fshop").virtual_host);
        let secured = place("amqps://m%40e:p%2F%3A%25@[::1]:7000/shop?cacertfile=/etc/ca.pem");
        assert_eq!("[::1]:7000", secured.authority());
        assert_eq!(("shop", "m@e"), (&*secured.virtual_host, &*secured.user));
        assert_eq!("p/:%", secured.password.expose());
        assert_eq!(Some(Trust::File("/etc/ca.pem".into())), secured.tls);
        let trusting = place("amqps://me:word@rabbit");
        assert_eq!((5671, Some(Trust::Machine)), (trusting.port, trusting.tls));
    }

    /// Goal: what is no such URL is refused, and nobody sees a password.
    /// Method: try wrong ones, and look at all that is printed.
    #[test]
    fn passwords_are_never_shown() {
        for wrong in [
            "http://me:hush@rabbit",
            "hush",
            "amqp://rabbit/hush",
            "amqp://:hush@rabbit",
            "amqp://me:hush@",
            "amqp://me:hush@rabbit/a/b",
            "amqp://me:hush%@rabbit",
            "amqp://me:hush%ff@rabbit",
            "amqp://me:hush@rabbit#a",
            "amqp://me:hush@rabbit?cacertfile=/ca.pem",
            "amqps://me:hush@rabbit?verify=verify_none",
            "amqps://me:hush@rabbit?cacertfile=a&cacertfile=b",
        ] {
            let error = Place::read(wrong).expect_err(wrong);
            assert!(!error.to_string().contains("hush"), "{error}");
        }
        let place = place("amqp://me:hush@rabbit/shop");
        for shown in [place.to_string(), format!("{place:?}")] {
            assert_eq!(None, shown.find("hush"), "{shown}");
        }
    }
}

//! A schema of a PostgreSQL database, as people write it and as the driver reads it.

use std::{fmt, net::IpAddr};

use gantry::config::Secret;
use url::Url;

use super::UrlError;

/// Where rows go where no schema is named.
const PUBLIC: &str = "public";

/// Longest name of anything there.
const NAME_MAX: usize = 63;

/// How TLS may be asked for, the strictest last.
const MODES: [&str; 5] = ["disable", "prefer", "require", "verify-ca", "verify-full"];

/// A schema of a PostgreSQL database.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// Everything but parameters.
    url: Url,
    schema: String,
    /// As it was given.
    mode: Option<&'static str>,
    root_certificate: Option<String>,
}

impl Server {
    pub(super) fn read(text: &str) -> Result<Self, UrlError> {
        let mut url = Url::parse(text).map_err(|_| UrlError::Server("this is no URL"))?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err(UrlError::Server("the host is missing"));
        }
        if url.username().is_empty() {
            return Err(UrlError::Server("the user is missing"));
        }
        let database = url.path().strip_prefix('/').unwrap_or_default();
        if database.is_empty() || database.contains('/') {
            return Err(UrlError::Server(
                "the database is missing, or is no plain name",
            ));
        }
        if url.fragment().is_some() {
            return Err(UrlError::Server("a # in it is written as %23"));
        }
        let (mut schema, mut mode, mut root_certificate) = (None, None, None);
        for (key, value) in url.query_pairs() {
            let place = match &*key {
                "schema" => &mut schema,
                "sslmode" => &mut mode,
                "sslrootcert" => &mut root_certificate,
                _ => return Err(UrlError::Parameter),
            };
            if place.replace(value.into_owned()).is_some() {
                return Err(UrlError::Parameter);
            }
        }
        let mode = match mode {
            None => None,
            Some(given) => {
                let known = MODES.into_iter().find(|known| *known == given);
                Some(known.ok_or(UrlError::TlsMode)?)
            }
        };
        url.set_query(None);
        let server = Self {
            url,
            schema: PUBLIC.to_owned(),
            mode,
            root_certificate,
        };
        schema.map_or(Ok(server.clone()), |schema| server.with_schema(&schema))
    }

    pub(super) fn with_schema(&self, name: &str) -> Result<Self, UrlError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        if !begins || name.len() > NAME_MAX || !name.chars().all(plain) {
            return Err(UrlError::Schema);
        }
        Ok(Self {
            schema: name.to_owned(),
            ..self.clone()
        })
    }

    /// The schema, in the letters that need no escapes.
    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    pub(super) fn has_password(&self) -> bool {
        self.url.password().is_some()
    }

    /// Whether what is sent stays on this machine.
    fn is_local(&self) -> bool {
        let host = self.url.host_str().unwrap_or_default();
        let inner = host.trim_start_matches('[').trim_end_matches(']');
        let loopback = inner.parse().is_ok_and(|it: IpAddr| it.is_loopback());
        // A path, which is one of a socket.
        let socket = host
            .get(..3)
            .is_some_and(|it| it.eq_ignore_ascii_case("%2f"));
        loopback || socket || host == "localhost"
    }

    /// As sqlx reads it. Everything that the driver would otherwise take from variables of its own
    /// is said, but for a password that is nowhere else.
    pub(crate) fn for_driver(&self, password: &Secret) -> String {
        let mut url = self.url.clone();
        if !password.is_empty() {
            url.set_password(Some(password.expose()))
                .expect("a URL with a host takes a password");
        }
        if url.port().is_none() {
            url.set_port(Some(5432))
                .expect("a URL with a host takes a port");
        }
        let by_place = if self.is_local() {
            "disable"
        } else {
            "verify-full"
        };
        let mut query = url.query_pairs_mut();
        query.append_pair("sslmode", self.mode.unwrap_or(by_place));
        if let Some(path) = &self.root_certificate {
            query.append_pair("sslrootcert", path);
        }
        drop(query);
        url.into()
    }

    /// The whole text, password included.
    pub(super) fn expose(&self) -> String {
        let mut url = self.url.clone();
        self.add_parameters(&mut url);
        url.into()
    }

    fn add_parameters(&self, url: &mut Url) {
        let mut query = url.query_pairs_mut();
        query.append_pair("schema", &self.schema);
        if let Some(mode) = self.mode {
            query.append_pair("sslmode", mode);
        }
        if let Some(path) = &self.root_certificate {
            query.append_pair("sslrootcert", path);
        }
    }
}

/// Without the password.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.url.clone();
        url.set_password(None).map_err(|()| fmt::Error)?;
        self.add_parameters(&mut url);
        f.write_str(url.as_str())
    }
}

#[cfg(test)]
mod tests {
    use gantry::config::Setting as _;

    use super::*;
    use crate::{Url, url::Place};

    fn driver(text: &str, password: &str) -> String {
        let url: Url = text.parse().unwrap();
        match url.place() {
            Place::Server(server) => server.for_driver(&Secret::new(password)),
            Place::File(_) => panic!("{text}"),
        }
    }

    /// Goal: what people write is read, with a schema and TLS where none is said, and what is
    /// missing or unknown is refused by name.
    /// Method: good and bad texts.
    #[test]
    fn servers_are_read_and_anything_else_is_refused() {
        for (text, for_driver, shown) in [
            (
                "postgres://me:pw@127.0.0.1/shop",
                "postgres://me:pw@127.0.0.1:5432/shop?sslmode=disable",
                "postgres://me@127.0.0.1/shop?schema=public",
            ),
            (
                "postgresql://me@db.example.com:6000/shop?schema=orders",
                "postgresql://me@db.example.com:6000/shop?sslmode=verify-full",
                "postgresql://me@db.example.com:6000/shop?schema=orders",
            ),
            (
                "postgres://me@db/shop?sslmode=require&sslrootcert=/a%20b.pem&schema=a-b",
                "postgres://me@db:5432/shop?sslmode=require&sslrootcert=%2Fa+b.pem",
                "postgres://me@db/shop?schema=a-b&sslmode=require&sslrootcert=%2Fa+b.pem",
            ),
            (
                "postgres://me@%2Fvar%2Frun/shop",
                "postgres://me@%2Fvar%2Frun:5432/shop?sslmode=disable",
                "postgres://me@%2Fvar%2Frun/shop?schema=public",
            ),
            (
                "postgres://me@[::1]/shop",
                "postgres://me@[::1]:5432/shop?sslmode=disable",
                "postgres://me@[::1]/shop?schema=public",
            ),
        ] {
            assert_eq!(for_driver, driver(text, ""), "{text}");
            assert_eq!(shown, text.parse::<Url>().unwrap().to_string(), "{text}");
        }
        for (text, error) in [
            ("postgres:", "this is no URL|the host is missing"),
            ("postgres://me@/shop", "this is no URL|the host is missing"),
            ("postgres://db/shop", "the user is missing"),
            ("postgres://me@db", "the database is missing"),
            ("postgres://me@db/", "the database is missing"),
            ("postgres://me@db/a/b", "the database is missing"),
            ("postgres://me@db/a#b", "a # in it"),
            ("postgres://me@db/a?schema=Orders", "all lower case"),
            ("postgres://me@db/a?schema=1a", "all lower case"),
            ("postgres://me@db/a?schema=a%22;drop", "all lower case"),
            ("postgres://me@db/a?schema=", "all lower case"),
            ("postgres://me@db/a?sslmode=off", "an sslmode of"),
            (
                "postgres://me@db/a?options=-csearch_path%3Db",
                "and nothing else",
            ),
            ("postgres://me@db/a?schema=a&schema=b", "once at most"),
        ] {
            let refused = text.parse::<Url>().unwrap_err().to_string();
            let named = error.split('|').any(|error| refused.contains(error));
            assert!(named, "{text}: {refused}");
        }
    }

    /// Goal: a password is used and never shown, however it is given; two of them are two values.
    /// Method: one that needs escapes, in the URL and beside it; every text made of the URL.
    #[test]
    fn passwords_are_used_and_never_shown() {
        let text = "postgres://me:p%40ss%2Fword@db/shop";
        let url: Url = text.parse().unwrap();
        assert!(driver(text, "").contains("me:p%40ss%2Fword@"));
        assert!(driver(text, "o/ther").contains("me:o%2Fther@"));
        assert!(url.expose().contains("me:p%40ss%2Fword@"));
        for shown in [url.to_string(), format!("{url:?}"), url.show().unwrap()] {
            assert!(!shown.contains("word"), "{shown}");
        }
        let other: Url = "postgres://me:another@db/shop".parse().unwrap();
        assert_ne!(url.identity(), other.identity());
        let refused = "postgres://me:p%40ss%2Fword@db/shop?sslmode=no".parse::<Url>();
        let refused = refused.unwrap_err();
        assert!(!format!("{refused} {refused:?}").contains("word"));
    }
}

//! Which database, as people write it.

mod server;

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use gantry::config::{Given, Mismatch, Setting};

pub(crate) use self::server::Server;

/// The place of a database.
///
/// `sqlite:PATH`, `sqlite://PATH` or `sqlite:///ABSOLUTE/PATH` is a file.
/// `postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE[?schema=NAME&sslmode=MODE&sslrootcert=PATH]` is
/// a schema of a PostgreSQL database; it is made where it is missing, and is `public` where none is
/// named. `sslmode` is one of `disable`, `prefer`, `require`, `verify-ca` and `verify-full`, and
/// without it `disable` on this machine and `verify-full` for any other.
///
/// The password is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    place: Place,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A SQLite file.
    File(PathBuf),
    /// A schema of a PostgreSQL database.
    Server(Server),
}

/// Why a text names no database. Never repeats it: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It does not begin with a known scheme.
    #[error(
        "expected sqlite:PATH, such as sqlite:.gantry/data/orders.db, or postgres://USER@HOST/DATABASE"
    )]
    Scheme,
    /// There is no path, or it stands for a database in memory.
    #[error("expected the path of a file after sqlite:, connections could not share anything else")]
    NoFile,
    /// Parameters change what the platform relies on.
    #[error("expected a path without ?parameters; settings have keys of their own")]
    Parameters,
    /// A part of a PostgreSQL URL is missing or wrong.
    #[error("expected postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE[?schema=NAME]; {0}")]
    Server(&'static str),
    /// A parameter of a PostgreSQL URL is none, or comes twice.
    #[error("expected each of schema, sslmode and sslrootcert once at most, and nothing else")]
    Parameter,
    /// A schema has another name than those that need no care anywhere.
    #[error(
        "expected a schema of up to 63 letters, digits, dashes and underscores, all lower case"
    )]
    Schema,
    /// There is no such mode.
    #[error("expected an sslmode of disable, prefer, require, verify-ca or verify-full")]
    TlsMode,
}

impl Url {
    /// The SQLite file at `path`.
    #[must_use]
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self {
            place: Place::File(path.into()),
        }
    }

    /// The engine's name, as telemetry spells it.
    #[must_use]
    pub fn system(&self) -> &'static str {
        match self.place {
            Place::File(_) => "sqlite",
            Place::Server(_) => "postgresql",
        }
    }

    /// The SQLite file, where it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::File(path) => Some(path),
            Place::Server(_) => None,
        }
    }

    /// The schema, where it is one: `public` where the URL names none.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        match &self.place {
            Place::File(_) => None,
            Place::Server(server) => Some(server.schema()),
        }
    }

    /// Whether it holds a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        match &self.place {
            Place::File(_) => false,
            Place::Server(server) => server.has_password(),
        }
    }

    /// The same database, in it the schema `name`; none for a file, which has no such thing.
    ///
    /// # Errors
    ///
    /// If no schema can have that name.
    pub fn with_schema(&self, name: &str) -> Result<Option<Self>, UrlError> {
        let Place::Server(server) = &self.place else {
            return Ok(None);
        };
        let place = Place::Server(server.with_schema(name)?);
        Ok(Some(Self { place }))
    }

    /// The whole text, password included: for the environment of a process, never for people.
    #[must_use]
    pub fn expose(&self) -> String {
        match &self.place {
            Place::File(_) => self.to_string(),
            Place::Server(server) => server.expose(),
        }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }
}

/// A SQLite file as sqlx reads it: absolute, escaped, and creating what is missing.
pub(crate) fn file_for_driver(path: &Path) -> std::io::Result<String> {
    let path = std::path::absolute(path)?;
    let mut text = String::from("sqlite://");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => {
                text.push(char::from(*byte));
            }
            byte => write!(text, "%{byte:02X}").expect("a string takes any text"),
        }
    }
    text.push_str("?mode=rwc");
    Ok(text)
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.starts_with("postgres:") || text.starts_with("postgresql:") {
            let place = Place::Server(Server::read(text)?);
            return Ok(Self { place });
        }
        let path = text.strip_prefix("sqlite:").ok_or(UrlError::Scheme)?;
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.contains('?') {
            return Err(UrlError::Parameters);
        }
        if path.is_empty() || path.contains(":memory:") {
            return Err(UrlError::NoFile);
        }
        Ok(Self::sqlite(path))
    }
}

/// Without the password.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File(path) => write!(f, "sqlite:{}", path.display()),
            Place::Server(server) => server.fmt(f),
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

impl Setting for Url {
    fn kind() -> Cow<'static, str> {
        "database".into()
    }

    fn expected() -> Cow<'static, str> {
        "a database such as sqlite:.gantry/data/orders.db".into()
    }

    fn read(given: Given<'_>) -> Result<Self, Mismatch> {
        let text = given.text().ok_or_else(Mismatch::default)?;
        text.parse().map_err(|error: UrlError| {
            let mismatch = Mismatch::because(error.to_string());
            // Whatever is no file may have been meant to hold a password.
            if text.starts_with("sqlite:") {
                mismatch
            } else {
                mismatch.unshown()
            }
        })
    }

    fn show(&self) -> Option<String> {
        Some(toml_string(&self.to_string()))
    }

    fn identity(&self) -> Option<String> {
        Some(self.expose())
    }
}

/// `text` as TOML writes it: a path can hold a quote or a backslash.
fn toml_string(text: &str) -> String {
    let escaped = text.replace('\\', r"\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every way to write a file is read as that file, anything else is refused by name.
    /// Method: good and bad texts.
    #[test]
    fn files_are_read_and_anything_else_is_refused() {
        for (text, path) in [
            ("sqlite:a/b.db", "a/b.db"),
            ("sqlite://a/b.db", "a/b.db"),
            ("sqlite:///a/b c.db", "/a/b c.db"),
        ] {
            assert_eq!(Ok(Url::sqlite(path)), text.parse(), "{text}");
        }
        for (text, error) in [
            ("", UrlError::Scheme),
            ("a/b.db", UrlError::Scheme),
            ("mysql://a/b", UrlError::Scheme),
            ("sqlite:", UrlError::NoFile),
            ("sqlite://", UrlError::NoFile),
            ("sqlite::memory:", UrlError::NoFile),
            ("sqlite:a.db?mode=ro", UrlError::Parameters),
        ] {
            assert_eq!(Err(error), text.parse::<Url>(), "{text}");
        }
    }

    /// Goal: a path with characters that mean something in a URL stays one path.
    /// Method: the driver's text for such a path.
    #[test]
    fn paths_are_escaped_for_the_driver() {
        let url = file_for_driver(Path::new("/a b/%41?#.db")).unwrap();
        assert_eq!("sqlite:///a%20b/%2541%3F%23.db?mode=rwc", url);
    }
}

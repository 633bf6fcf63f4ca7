//! Which database, as people write it.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use gantry::config::{Given, Mismatch, Setting};

/// The place of a database: `sqlite:PATH`, `sqlite://PATH` or `sqlite:///ABSOLUTE/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    path: PathBuf,
}

/// Why a text names no database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It does not begin with a known scheme.
    #[error("expected sqlite:PATH, such as sqlite:.gantry/data/orders.db")]
    Scheme,
    /// The scheme is known and its engine is not there yet.
    #[error("PostgreSQL is not supported by this version; use sqlite:PATH")]
    Postgres,
    /// There is no path, or it stands for a database in memory.
    #[error("expected the path of a file after sqlite:, connections could not share anything else")]
    NoFile,
    /// Parameters change what the platform relies on.
    #[error("expected a path without ?parameters; settings have keys of their own")]
    Parameters,
}

impl Url {
    /// The SQLite file at `path`.
    #[must_use]
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The engine's name, as telemetry spells it.
    #[must_use]
    pub fn system(&self) -> &'static str {
        "sqlite"
    }

    /// The SQLite file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The address as sqlx reads it: absolute, escaped, and creating what is missing.
    pub(crate) fn to_driver(&self) -> std::io::Result<String> {
        let path = std::path::absolute(&self.path)?;
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
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.starts_with("postgres:") || text.starts_with("postgresql:") {
            return Err(UrlError::Postgres);
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

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sqlite:{}", self.path.display())
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
        text.parse()
            .map_err(|error: UrlError| Mismatch::because(error.to_string()))
    }

    fn show(&self) -> Option<String> {
        Some(toml_string(&self.to_string()))
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
            ("postgres://a/b", UrlError::Postgres),
            ("postgresql://a/b", UrlError::Postgres),
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
        let url = Url::sqlite("/a b/%41?#.db").to_driver().unwrap();
        assert_eq!("sqlite:///a%20b/%2541%3F%23.db?mode=rwc", url);
    }
}

//! A value that is used and never shown.

use std::{borrow::Cow, fmt, fmt::Write as _};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Given, Mismatch, Setting};

/// A password, token or key: never printed, wiped from memory when dropped.
///
/// Wherever a configuration is shown it appears as `***` and the first eight digits of its
/// SHA-256, enough to see whether two processes have the same one. In a file it is written as
/// text or, better, as `{ file = "path" }`, whose content it then is, less a final line break; in
/// the environment as `GANTRY_…__FILE=path` likewise. The command line is refused: every user of a
/// machine can read it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret {
    text: Zeroizing<String>,
}

impl Secret {
    /// Keeps `text` secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: Zeroizing::new(text.into()),
        }
    }

    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Whether there is no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    fn digest(&self) -> String {
        let digest = Sha256::digest(self.text.as_bytes());
        digest.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a string takes any text");
            hex
        })
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return Ok(());
        }
        write!(f, "***{}", &self.digest()[..8])
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({self})")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl Setting for Secret {
    const SECRET: bool = true;

    fn kind() -> Cow<'static, str> {
        "secret".into()
    }

    fn expected() -> Cow<'static, str> {
        "a secret as text or as { file = \"path\" }".into()
    }

    fn read(given: Given<'_>) -> Result<Self, Mismatch> {
        if let Some(text) = given.text() {
            return Ok(Self::new(text));
        }
        let path = given.field("file").and_then(Given::text);
        let path = path.ok_or_else(Mismatch::default)?;
        let text =
            read_private(path).map_err(|reason| Mismatch::because(format!("{path} {reason}")))?;
        Ok(Self::new(text.trim_end_matches(['\r', '\n'])))
    }

    fn show(&self) -> Option<String> {
        Some(format!("\"{self}\""))
    }

    fn identity(&self) -> Option<String> {
        Some(self.digest())
    }
}

/// Reads a secret's file, which must not be open to every user of the machine. Its group may
/// read it: mounted secrets of a process that is not root are commonly shared that way.
fn read_private(path: &str) -> Result<Zeroizing<String>, String> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let found = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?;
        let mode = found.permissions().mode() & 0o777;
        if mode & 0o007 != 0 {
            return Err(format!("is open to every user (mode {mode:04o}); use 0600"));
        }
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    Ok(Zeroizing::new(text))
}

//! The types a key can have, and how people write them.

use std::{borrow::Cow, fmt::Debug, net::SocketAddr, path::PathBuf, time::Duration};

use super::{Given, given::quoted};

/// A type that one key can have.
///
/// The platform implements it for the usual types; [`choice!`](super::choice) does for a closed
/// set of words.
pub trait Setting: Clone + PartialEq + Debug + Send + Sync + 'static {
    /// Whether a value is never shown.
    const SECRET: bool = false;

    /// One word for the type, in the table of keys.
    #[must_use]
    fn kind() -> Cow<'static, str>;

    /// What is expected, as it completes the sentence "expected …".
    #[must_use]
    fn expected() -> Cow<'static, str>;

    /// The bounds that the type has by itself, in words.
    #[must_use]
    fn limits() -> Option<Cow<'static, str>> {
        None
    }

    /// Understands what was given.
    ///
    /// # Errors
    ///
    /// If it is not a value of this type.
    fn read(given: Given<'_>) -> Result<Self, Mismatch>;

    /// The value in TOML; nothing if it is not set. Never the text of a secret.
    #[must_use]
    fn show(&self) -> Option<String>;

    /// What two equal values have in common and no two different ones; never shown.
    #[must_use]
    fn identity(&self) -> Option<String> {
        self.show()
    }
}

/// What was given is not what was expected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mismatch {
    /// Why not, where that is not plain to see.
    pub because: Option<String>,
    /// Whether what was given may hold a secret, and is left out of what is said of it.
    pub unshown: bool,
}

impl Mismatch {
    /// A mismatch that needs a reason.
    pub fn because(reason: impl Into<String>) -> Self {
        Self {
            because: Some(reason.into()),
            unshown: false,
        }
    }

    /// The same, of a value that may hold a secret.
    #[must_use]
    pub fn unshown(self) -> Self {
        Self {
            unshown: true,
            ..self
        }
    }
}

/// What was understood, if anything was.
pub(super) fn fits<T>(value: Option<T>) -> Result<T, Mismatch> {
    value.ok_or_else(Mismatch::default)
}

impl Setting for bool {
    fn kind() -> Cow<'static, str> {
        "true or false".into()
    }

    fn expected() -> Cow<'static, str> {
        "true or false".into()
    }

    fn read(given: Given<'_>) -> Result<Self, Mismatch> {
        fits(given.switch())
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

macro_rules! whole_numbers {
    ($($type:ty, $limits:expr;)*) => {$(
        impl Setting for $type {
            fn kind() -> Cow<'static, str> {
                "whole number".into()
            }

            fn expected() -> Cow<'static, str> {
                "a whole number".into()
            }

            fn limits() -> Option<Cow<'static, str>> {
                $limits
            }

            fn read(given: Given<'_>) -> Result<Self, Mismatch> {
                fits(given.whole().and_then(|number| Self::try_from(number).ok()))
            }

            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )*};
}

whole_numbers! {
    u8, Some("from 0 to 255".into());
    u16, Some("from 0 to 65535".into());
    u32, Some("from 0 to 4294967295".into());
    u64, Some("of 0 or more".into());
    usize, Some("of 0 or more".into());
    i32, Some("from -2147483648 to 2147483647".into());
    i64, None;
}

impl Setting for f64 {
    fn kind() -> Cow<'static, str> {
        "number".into()
    }

    fn expected() -> Cow<'static, str> {
        "a number".into()
    }

    fn read(given: Given<'_>) -> Result<Self, Mismatch> {
        fits(given.number())
    }

    fn show(&self) -> Option<String> {
        Some(toml::Value::Float(*self).to_string())
    }
}

impl Setting for String {
    fn kind() -> Cow<'static, str> {
        "text".into()
    }

    fn expected() -> Cow<'static, str> {
        "text".into()
    }

    fn read(given: Given<'_>) -> Result<Self, Mismatch> {
        fits(given.text().map(str::to_owned))
    }

    fn show(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl Setting for PathBuf {
    fn kind() -> Cow<'static, str> {
        "path".into()
    }

    fn expected() -> Cow<'static, str> {
        "a path".into()
    }

    fn read(given: Given<'_>) -> Result<Self, Mismatch> {
        fits(given.text().filter(|text| !text.is_empty()).map(Self::from))
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string_lossy()))
    }
}

impl Setting for SocketAddr {
    fn kind() -> Cow<'static, str> {
        "address".into()
    }

    fn expected() -> Cow<'static, str> {
        "an IP address with a port such as \"127.0.0.1:8080\" or \"[::1]:8080\"".into()
    }

    fn read(given: Given<'_>) -> Result<Self, Mismatch> {
        fits(given.text().and_then(|text| text.trim().parse().ok()))
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl Setting for Duration {
    fn kind() -> Cow<'static, str> {
        "duration".into()
    }

    fn expected() -> Cow<'static, str> {
        "a duration such as \"250ms\", \"5s\" or \"1h 30min\"".into()
    }

    fn read(given: Given<'_>) -> Result<Self, Mismatch> {
        fits(
            given
                .text()
                .and_then(|text| humantime::parse_duration(text.trim()).ok()),
        )
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&humantime::format_duration(*self).to_string()))
    }
}

/// `None` where the key is not set; blank text from the environment is not set either.
impl<T: Setting> Setting for Option<T> {
    const SECRET: bool = T::SECRET;

    fn kind() -> Cow<'static, str> {
        format!("{}, optional", T::kind()).into()
    }

    fn expected() -> Cow<'static, str> {
        T::expected()
    }

    fn limits() -> Option<Cow<'static, str>> {
        T::limits()
    }

    fn read(given: Given<'_>) -> Result<Self, Mismatch> {
        if given.is_blank() {
            return Ok(None);
        }
        T::read(given).map(Some)
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(T::show)
    }

    fn identity(&self) -> Option<String> {
        self.as_ref().and_then(T::identity)
    }
}

impl<T: Setting> Setting for Vec<T> {
    const SECRET: bool = T::SECRET;

    fn kind() -> Cow<'static, str> {
        format!("list of: {}", T::kind()).into()
    }

    fn expected() -> Cow<'static, str> {
        format!("a list, each {}", T::expected()).into()
    }

    fn limits() -> Option<Cow<'static, str>> {
        T::limits()
    }

    fn read(given: Given<'_>) -> Result<Self, Mismatch> {
        fits(given.list())?.into_iter().map(T::read).collect()
    }

    fn show(&self) -> Option<String> {
        let shown: Vec<_> = self.iter().filter_map(T::show).collect();
        Some(format!("[{}]", shown.join(", ")))
    }

    fn identity(&self) -> Option<String> {
        let each: Vec<_> = self.iter().filter_map(T::identity).collect();
        Some(format!("[{}]", each.join(", ")))
    }
}

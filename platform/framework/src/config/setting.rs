//! The types a key can have, and how people write them.

use std::{borrow::Cow, fmt::Debug, net::SocketAddr, path::PathBuf, time::Duration};

use ::config::{Value, ValueKind};

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
}

impl Mismatch {
    /// A mismatch that needs a reason.
    pub fn because(reason: impl Into<String>) -> Self {
        Self {
            because: Some(reason.into()),
        }
    }
}

/// A value as a layer gives it: files give typed values, the environment and the command line
/// give text that is understood by what is expected.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    inner: Inner<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Inner<'a> {
    Loose(&'a str),
    Typed(&'a Value),
}

impl<'a> Given<'a> {
    pub(super) fn new(value: &'a Value, loose: bool) -> Self {
        let inner = match &value.kind {
            ValueKind::String(text) if loose => Inner::Loose(text),
            _ => Inner::Typed(value),
        };
        Self { inner }
    }

    /// As text.
    #[must_use]
    pub fn text(self) -> Option<&'a str> {
        match self.inner {
            Inner::Loose(text) => Some(text),
            Inner::Typed(value) => match &value.kind {
                ValueKind::String(text) => Some(text),
                _ => None,
            },
        }
    }

    /// As a whole number.
    #[must_use]
    pub fn whole(self) -> Option<i128> {
        match self.inner {
            Inner::Loose(text) => text.trim().replace('_', "").parse().ok(),
            Inner::Typed(value) => match value.kind {
                ValueKind::I128(number) => Some(number),
                _ => None,
            },
        }
    }

    /// As a number, which is finite.
    #[must_use]
    pub fn number(self) -> Option<f64> {
        let number = match self.inner {
            Inner::Loose(text) => text.trim().parse().ok()?,
            Inner::Typed(value) => match value.kind {
                ValueKind::Float(number) => number,
                // Whole numbers a person writes for a share or a factor are small.
                #[allow(clippy::cast_precision_loss)]
                ValueKind::I128(number) => number as f64,
                _ => return None,
            },
        };
        number.is_finite().then_some(number)
    }

    /// As true or false.
    #[must_use]
    pub fn switch(self) -> Option<bool> {
        match self.inner {
            Inner::Loose(text) => text.trim().parse().ok(),
            Inner::Typed(value) => match value.kind {
                ValueKind::Boolean(switch) => Some(switch),
                _ => None,
            },
        }
    }

    /// As a list: an array in a file, comma-separated elsewhere.
    #[must_use]
    pub fn list(self) -> Option<Vec<Given<'a>>> {
        match self.inner {
            Inner::Loose(text) if text.trim().is_empty() => Some(Vec::new()),
            Inner::Loose(text) => {
                let parts = text.split(',').map(str::trim);
                Some(
                    parts
                        .map(|part| Given {
                            inner: Inner::Loose(part),
                        })
                        .collect(),
                )
            }
            Inner::Typed(value) => match &value.kind {
                ValueKind::Array(values) => Some(
                    values
                        .iter()
                        .map(|value| Given::new(value, false))
                        .collect(),
                ),
                _ => None,
            },
        }
    }

    /// What a table holds under `name`.
    #[must_use]
    pub fn field(self, name: &str) -> Option<Given<'a>> {
        match self.inner {
            Inner::Typed(Value {
                kind: ValueKind::Table(table),
                ..
            }) => table.get(name).map(|value| Given {
                inner: match &value.kind {
                    ValueKind::String(text) => Inner::Loose(text),
                    _ => Inner::Typed(value),
                },
            }),
            _ => None,
        }
    }

    /// Whether it is text without a character, from the environment or the command line.
    #[must_use]
    pub fn is_blank(self) -> bool {
        matches!(self.inner, Inner::Loose(text) if text.trim().is_empty())
    }

    /// In TOML, shortened to what fits a message.
    pub(super) fn show(self) -> String {
        let shown = match self.inner {
            Inner::Loose(text) => quoted(text),
            Inner::Typed(value) => match &value.kind {
                ValueKind::String(text) => quoted(text),
                ValueKind::Table(_) => "{…}".to_owned(),
                ValueKind::Array(values) => {
                    let shown = values.iter().map(|value| Given::new(value, false).show());
                    format!("[{}]", shown.collect::<Vec<_>>().join(", "))
                }
                other => other.to_string(),
            },
        };
        if shown.chars().count() <= SHOWN_MAX {
            return shown;
        }
        let start: String = shown.chars().take(SHOWN_MAX).collect();
        format!("{start}…")
    }
}

/// Characters of a wrong value that a message repeats.
const SHOWN_MAX: usize = 80;

/// A string as TOML writes it.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn fits<T>(value: Option<T>) -> Result<T, Mismatch> {
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

/// A number of bytes, written `"4MiB"`, `"64 KiB"` or as a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(u64);

impl Size {
    /// So many bytes.
    #[must_use]
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many times 1,024 bytes.
    #[must_use]
    pub const fn kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    /// So many times 1,048,576 bytes.
    #[must_use]
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The number of bytes, or the largest number where this machine has no such number.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        // Only the unit that divides it: what is shown must read back as the same number.
        let unit = units
            .iter()
            .find(|(shift, _)| self.0 != 0 && self.0.is_multiple_of(1 << shift));
        match unit {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Setting for Size {
    fn kind() -> Cow<'static, str> {
        "size".into()
    }

    fn expected() -> Cow<'static, str> {
        "a size such as \"4MiB\", \"64 KiB\" or a number of bytes".into()
    }

    fn read(given: Given<'_>) -> Result<Self, Mismatch> {
        if let Some(bytes) = given.whole() {
            return fits(u64::try_from(bytes).ok().map(Self));
        }
        let size = given
            .text()
            .and_then(|text| text.trim().parse::<bytesize::ByteSize>().ok());
        fits(size.map(|size| Self(size.as_u64())))
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

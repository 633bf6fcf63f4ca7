//! Numbers of bytes.

use std::{borrow::Cow, fmt};

use super::{Given, Mismatch, Setting, given::quoted, setting::fits};

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

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

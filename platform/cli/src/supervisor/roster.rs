//! Who belongs to a running system: the names of its instances.

use std::fmt;

/// The name of an instance: `orders-1` is number 1 of `orders`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    /// The service.
    pub(crate) service: String,
    /// From 1.
    pub(crate) number: u16,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.service, self.number)
    }
}

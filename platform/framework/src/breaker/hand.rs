//! What operators may do to breakers, and for how long it holds.

use tokio::time::Instant;

use super::config::Mode;

/// What a breaker is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// To do in the place of its configuration as this mode says.
    Mode(Mode),
    /// To do as its configuration says.
    Release,
    /// The same, beginning anew: closed, with what failed forgotten.
    Close,
}

impl Order {
    /// What it puts in the place of the configuration.
    #[must_use]
    pub fn mode(self) -> Option<Mode> {
        match self {
            Self::Mode(mode) => Some(mode),
            Self::Release | Self::Close => None,
        }
    }
}

/// What was put in the place of a breaker's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByHand {
    /// When the configuration decides again; none where that is to be said, too.
    pub until: Option<Instant>,
}

//! Requests that reached no handler, and are sent again.

use crate::classify::Fate;

/// How often a request is sent again that a peer refused before it was seen.
const REFUSED_MAX: u32 = 1;

/// How often one that a peer left behind when it went. More than gRFC A6's one: each costs a
/// connection that ends in good order, so it cannot go round, and where everything is restarted in
/// turn a call may meet more than one that goes.
const LEFT_BEHIND_MAX: u32 = 3;

/// How often a call may be sent again because it reached no handler, where it was sent at all.
pub(super) const REPEATS_MAX: u32 = REFUSED_MAX + LEFT_BEHIND_MAX;

/// Which requests that reached no handler are sent again (gRFC A6).
#[derive(Debug, Default)]
pub(super) struct Repeats {
    refused: u32,
    left_behind: u32,
}

impl Repeats {
    /// Whether one with this fate is; counts it.
    pub(super) fn allow(&mut self, fate: Option<Fate>) -> bool {
        let (count, max) = match fate {
            Some(Fate::NotSent) => return true,
            Some(Fate::Refused) => (&mut self.refused, REFUSED_MAX),
            Some(Fate::LeftBehind) => (&mut self.left_behind, LEFT_BEHIND_MAX),
            Some(Fate::MaybeProcessed) | None => return false,
        };
        *count += 1;
        *count <= max
    }
}

//! How much there may be, and who has how much of it.
//!
//! A group may have as much as is free beside it: alone half of all, two of them a third each. So one
//! whose consumer is down does not take the room of all others.

/// What there may be at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Groups.
    pub(crate) groups: usize,
    /// Copies of messages, dead letters too.
    pub(crate) messages: usize,
    /// Bytes of all of them, roughly.
    pub(crate) bytes: usize,
    /// Consumers, waiting ones too.
    pub(crate) consumers: usize,
}

/// Copies of messages, and what they cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Amount {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

impl Amount {
    /// So many messages of one cost.
    pub(super) fn of(messages: usize, cost: usize) -> Self {
        Self {
            messages,
            bytes: messages.saturating_mul(cost),
        }
    }

    /// With so much more.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_add(other.messages),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// With so much less.
    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(other.messages),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    /// Whether it is no more than there is, of both.
    pub(super) fn fits(self, room: Self) -> bool {
        self.messages <= room.messages && self.bytes <= room.bytes
    }
}

impl Bounds {
    /// What is free where all groups together have `held`.
    pub(super) fn free(&self, held: Amount) -> Amount {
        let all = Amount {
            messages: self.messages,
            bytes: self.bytes,
        };
        all.minus(held)
    }
}

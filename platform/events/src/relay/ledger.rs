//! Where the events are that a relay publishes: which of them are due, whose they are for the time
//! being, and what became of them.

#[cfg(test)]
pub(super) mod memory;
mod sql;

use gantry_store::{Error, Timestamp};

pub(super) use self::sql::Sql;
use crate::Message;

/// Events of one key that a relay has claimed.
#[derive(Debug, Clone)]
pub(super) struct Claimed {
    pub(super) key: String,
    /// The last one that is done with.
    pub(super) sent: i64,
    /// How often the next one has failed.
    pub(super) tries: u32,
    /// In their order, without a gap.
    pub(super) events: Vec<Event>,
}

/// An event that is to be published.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) sequence: i64,
    pub(super) message: Message,
}

/// What became of events of one key.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) key: String,
    /// The last one that was done with before.
    pub(super) before: i64,
    /// The last one that is done with now.
    pub(super) sent: i64,
    /// Those of them that nobody wanted, and that were not to be kept.
    pub(super) dropped: Vec<i64>,
    /// What becomes of the key; none where it stays claimed.
    pub(super) release: Option<Release>,
}

/// When whose turn it is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Release {
    /// When the next event of the key may be tried.
    pub(super) due_at: Timestamp,
    /// How often it has failed.
    pub(super) tries: u32,
}

/// Whether an outcome was written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// It was.
    Written,
    /// It was not, as another event of the key is being written down.
    Busy,
    /// It was not, as the key is not claimed by this relay any more.
    Lost,
}

/// How much is yet to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Backlog {
    pub(super) events: u64,
    /// When the oldest came about.
    pub(super) oldest: Option<Timestamp>,
}

/// Keeps the events. Of several relays each key is claimed by one at a time; a claim holds as long as
/// its relay is there.
pub(super) trait Ledger: Send + Sync + 'static {
    /// Now, by the clock of what it keeps.
    fn now(&self) -> Timestamp;

    /// Makes a relay known until `until`.
    fn enter(
        &self,
        relay: &str,
        until: Timestamp,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Keeps a relay known, and forgets those whose time is over; answers whether it still was.
    fn renew(
        &self,
        relay: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Forgets a relay: what it claimed is free.
    fn leave(&self, relay: &str) -> impl Future<Output = Result<(), Error>> + Send;

    /// When the first key is due that nobody has claimed.
    fn due(&self) -> impl Future<Output = Result<Option<Timestamp>, Error>> + Send;

    /// Claims keys that are due, those first that have been so for longest, and answers events of each
    /// in turn: `keys_max` and `events_max` of them at most. `claim` is another number each time. What
    /// is being written down is passed over.
    fn claim(
        &self,
        relay: &str,
        claim: i64,
        keys_max: usize,
        events_max: usize,
    ) -> impl Future<Output = Result<Vec<Claimed>, Error>> + Send;

    /// Writes down what became of events, all together; answers for each key whether it was.
    fn settle(
        &self,
        relay: &str,
        outcomes: &[Outcome],
    ) -> impl Future<Output = Result<Vec<Settled>, Error>> + Send;

    /// How much is yet to be published.
    fn backlog(&self) -> impl Future<Output = Result<Backlog, Error>> + Send;

    /// Forgets events that were done with before `before`, a bounded number; answers how many.
    fn prune(&self, before: Timestamp) -> impl Future<Output = Result<u64, Error>> + Send;
}

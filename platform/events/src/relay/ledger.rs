//! Where the events are that a relay publishes: which of them are due, whose they are for the time
//! being, and what became of them.

#[cfg(test)]
pub(super) mod memory;
mod sql;

use std::sync::Arc;

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
    /// Those that are to be published, in their order and without a gap.
    pub(super) events: Vec<Event>,
    /// Whether there are some, and were not read, as those of others are as much as was asked for.
    pub(super) unread: bool,
}

/// How much is claimed at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Most {
    pub(super) keys: usize,
    /// Of all of them; of each as many as the others, and one at least.
    pub(super) events: usize,
    /// Of the bodies of all of them, and one event more.
    pub(super) bytes: usize,
}

/// An event that is to be published.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) sequence: i64,
    pub(super) message: Arc<Message>,
}

impl Event {
    /// Bytes of its body.
    pub(super) fn bytes(&self) -> usize {
        self.message.body.len()
    }
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
    /// Whether that is written down of the key as well, and not of its events alone.
    pub(super) advances: bool,
    /// What becomes of the key, which advances then; none where it stays claimed.
    pub(super) release: Option<Release>,
}

/// Events of a key that are done with, at most, where the key does not say so: it costs as much to write
/// down as an event, and is not needed for each.
pub(super) const BEHIND_MAX: i64 = 16;

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
    /// It was not, as an event of the key is being added.
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

    /// Claims keys that are due, those first that have been so for longest, and answers events of each.
    /// `claim` is another number each time. Keys to which something is being added are passed over.
    fn claim(
        &self,
        relay: &str,
        claim: i64,
        most: Most,
    ) -> impl Future<Output = Result<Vec<Claimed>, Error>> + Send;

    /// Claims one key that is due, the one that has been so for longest, and waits for its turn where
    /// something is being added to it: one of which there is never an end would be passed over for ever.
    ///
    /// Nothing is claimed where it fails for being [busy](gantry_store::Kind::Busy).
    fn claim_patiently(
        &self,
        relay: &str,
        claim: i64,
        most: Most,
    ) -> impl Future<Output = Result<Vec<Claimed>, Error>> + Send;

    /// Writes down what became of events, all together; answers for each key whether it was.
    fn settle(
        &self,
        relay: &str,
        outcomes: &[Outcome],
    ) -> impl Future<Output = Result<Vec<Settled>, Error>> + Send;

    /// The same for one key that is given back, which waits for its turn where something is being added
    /// to it.
    fn settle_patiently(
        &self,
        relay: &str,
        outcome: &Outcome,
    ) -> impl Future<Output = Result<Settled, Error>> + Send;

    /// Brings times nearer that are further away than any pause is, a bounded number of them: somebody's
    /// clock was ahead. Keys are due at `due_max` at the latest, and relays known until `known_max`.
    /// Answers how many keys.
    fn bring_near(
        &self,
        due_max: Timestamp,
        known_max: Timestamp,
    ) -> impl Future<Output = Result<u64, Error>> + Send;

    /// How much is yet to be published.
    fn backlog(&self) -> impl Future<Output = Result<Backlog, Error>> + Send;

    /// Forgets events that were done with before `before`, a bounded number; answers how many.
    fn prune(&self, before: Timestamp) -> impl Future<Output = Result<u64, Error>> + Send;
}

//! What was asked and answered, and what watchers were told.

use std::{collections::BTreeMap, time::Duration};

/// Time to live of every lease.
pub(crate) const TTL: Duration = Duration::from_secs(2);

/// A key and its value at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) value: String,
    pub(crate) created: i64,
    pub(crate) modified: i64,
    pub(crate) version: i64,
    pub(crate) lease: i64,
}

/// Entries by their keys.
pub(crate) type Entries = BTreeMap<String, Entry>;

/// What a client asked for. Every value put is its own, so that it shows who put it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Read,
    /// Reads from the key on and before another; only the key where that is empty.
    Range {
        to: String,
        /// As of then; 0 for now.
        revision: i64,
    },
    Put {
        value: String,
        lease: i64,
    },
    Delete,
    /// Puts where the key was last changed at this revision; 0 for where it is not there.
    Swap {
        modified: i64,
        value: String,
    },
    /// Puts and deletes (without a value) several keys at once.
    Many {
        changes: Vec<(String, Option<String>)>,
        /// Of all that is put.
        lease: i64,
    },
    Grant(i64),
    Revoke(i64),
    KeepAlive(i64),
    Compact(i64),
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Whether it happened, and if so when, is not known.
    Unknown,
    /// It did not happen.
    Refused(String),
    Done {
        revision: i64,
        /// Whether anything was changed; of a lease kept alive, whether it is.
        applied: bool,
        /// What was at its keys before, or was read.
        before: Entries,
    },
}

/// When something was: in the order of all that was, and by the clock since the run began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) order: u64,
    pub(crate) at: Duration,
}

/// One request; its value says whose.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) begun: Moment,
    pub(crate) ended: Moment,
    /// Empty where it is about none, or says itself about which.
    pub(crate) key: String,
    pub(crate) what: What,
    pub(crate) outcome: Outcome,
}

impl Operation {
    /// Whether it is about keys, and not only about leases or history.
    pub(crate) fn is_of_keys(&self) -> bool {
        use What::{Compact, Grant, KeepAlive, Revoke};
        !matches!(self.what, Grant(_) | Revoke(_) | KeepAlive(_) | Compact(_))
    }

    /// Whether it reads or changes `key`.
    pub(crate) fn covers(&self, key: &str) -> bool {
        match &self.what {
            What::Range { to, .. } if !to.is_empty() => *self.key <= *key && *key < **to,
            What::Many { changes, .. } => changes.iter().any(|(it, _)| it == key),
            _ => self.is_of_keys() && self.key == key,
        }
    }

    /// The revision and what was there before, where it is known that it happened.
    pub(crate) fn done(&self) -> Option<(i64, bool, &Entries)> {
        match &self.outcome {
            Outcome::Done {
                revision,
                applied,
                before,
            } => Some((*revision, *applied, before)),
            _ => None,
        }
    }

    /// Whether it is known that it changed something, or kept a lease alive.
    pub(crate) fn applied(&self) -> bool {
        self.done().is_some_and(|(_, applied, _)| applied)
    }

    /// Whether it may have happened.
    pub(crate) fn possible(&self) -> bool {
        !matches!(self.outcome, Outcome::Refused(_))
    }

    /// The lease it is about; 0 for none.
    pub(crate) fn lease(&self) -> i64 {
        match self.what {
            What::Put { lease: id, .. }
            | What::Many { lease: id, .. }
            | What::Grant(id)
            | What::Revoke(id)
            | What::KeepAlive(id) => id,
            _ => 0,
        }
    }

    /// Whether it had ended when `other` began.
    pub(crate) fn precedes(&self, other: &Self) -> bool {
        self.ended.order < other.begun.order
    }
}

/// A change as a watcher was told; without an entry the key was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) revision: i64,
    pub(crate) key: String,
    pub(crate) entry: Option<Entry>,
    pub(crate) before: Option<Entry>,
    /// When it was told.
    pub(crate) at: Duration,
}

/// What a watcher met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Event(Event),
    /// Nothing is missing until this revision.
    Progress(i64),
    Skipped(Skipped),
}

/// What a watcher wanted was gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// The first revision it had not been told.
    pub(crate) wanted: i64,
    /// It was told that history begins here, and went on from there.
    pub(crate) revision: i64,
    /// When it asked, and when it was told.
    pub(crate) begun: Moment,
    pub(crate) ended: Moment,
}

/// One watcher, through all its streams.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watched {
    /// Keys from the first on, and before the second.
    pub(crate) keys: (String, String),
    pub(crate) told: Vec<Told>,
}

/// All of one run.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) seed: u64,
    pub(crate) operations: Vec<Operation>,
    /// The first watches every key and is never behind a compaction.
    pub(crate) watched: Vec<Watched>,
    /// When the server was killed, and when it was back.
    pub(crate) restarts: Vec<(Duration, Duration)>,
    /// The last revision; every watcher was told of all until then.
    pub(crate) last: i64,
}

//! What was asked and answered, and what watchers were told.

/// A key and its value at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) value: String,
    pub(crate) created: i64,
    pub(crate) modified: i64,
    pub(crate) version: i64,
    pub(crate) lease: i64,
}

/// What a client asked for. Every value put is its own, so that it shows who put it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Read,
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
        /// What was at the key before, or was read.
        before: Option<Entry>,
    },
}

/// One request; its value says whose.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    /// Beginnings and ends of all operations in the order in which they were.
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    /// Empty where it is about none.
    pub(crate) key: String,
    pub(crate) what: What,
    pub(crate) outcome: Outcome,
}

/// A change as a watcher was told; without an entry the key was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) revision: i64,
    pub(crate) key: String,
    pub(crate) entry: Option<Entry>,
    pub(crate) before: Option<Entry>,
}

/// What a watcher met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Event(Event),
    /// What it wanted was gone; it went on from this revision.
    Skipped(i64),
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
    /// The last revision; every watcher was told of all until then.
    pub(crate) last: i64,
    /// The highest revision that anyone asked to compact to.
    pub(crate) compacted: i64,
}

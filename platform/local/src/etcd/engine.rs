//! The store as a pure state machine: keys in all their versions, and leases. No I/O, no time.
//!
//! Every change gets the next revision and goes into a log in that order; the log is what
//! watchers are served from. What a change means for the disk is collected in a [`Journal`], which
//! whoever applies operations writes before it answers.
//!
//! The rules are etcd's: the same operations give the same answers, revisions and refusals.

mod compact;
mod history;
mod range;
mod txn;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use compact::Past;

pub(crate) use compact::Bounds;
pub(crate) use history::{Cursor, Event, Filters, Slice};
pub(crate) use range::{Order, Query, Range, RangeAnswer, Target};
pub(crate) use txn::{Compare, Compared, Op, OpAnswer, Relation, Txn, TxnAnswer};
pub(crate) use write::{Delete, DeleteAnswer, Put, PutAnswer};

/// What a key or a lease costs beside its bytes, roughly.
const OVERHEAD: usize = 128;

/// Lowest time to live of a lease, in seconds; shorter ones are raised to it, as etcd's are with
/// its default election timeout.
const TTL_MIN: i64 = 2;

/// Highest time to live of a lease, in seconds.
const TTL_MAX: i64 = 9_000_000_000;

/// A key and its value at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyValue {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) create_revision: i64,
    pub(crate) mod_revision: i64,
    /// Puts since it was created.
    pub(crate) version: i64,
    /// 0 for none.
    pub(crate) lease: i64,
}

impl KeyValue {
    fn cost(&self) -> usize {
        self.key.len() + self.value.len() + OVERHEAD
    }
}

/// Where a change stands in the order of all: the revision, and the place within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) revision: i64,
    pub(crate) sub: u32,
}

/// One change of one key; without a value the key was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) place: Place,
    pub(crate) key: Bytes,
    pub(crate) value: Option<Arc<KeyValue>>,
}

/// A lease and the keys that go with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Time to live in seconds, as granted.
    pub(crate) ttl: i64,
    pub(crate) keys: BTreeSet<Bytes>,
}

/// What must be on disk before anyone is told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Journal {
    pub(crate) changes: Vec<Change>,
    /// Time to live of each lease granted; none for one that is gone.
    pub(crate) leases: BTreeMap<i64, Option<i64>>,
    /// Versions that no reader can ask for any more.
    pub(crate) dropped: Vec<Place>,
    /// Whether the compaction revision moved.
    pub(crate) compacted: bool,
}

impl Journal {
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.leases.is_empty() && !self.compacted
    }
}

/// What was on disk.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
    /// In order.
    pub(crate) changes: Vec<Change>,
    /// Time to live by id.
    pub(crate) leases: BTreeMap<i64, i64>,
}

/// Why an operation was refused; nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Compacted,
    FutureRevision,
    KeyNotFound,
    LeaseNotFound,
    LeaseExists,
    LeaseTtlTooLarge,
    NoSpace,
}

/// The store.
#[derive(Debug)]
pub(crate) struct Engine {
    /// Of the last change.
    revision: i64,
    /// History before it is gone; -1 for none.
    compacted: i64,
    /// Versions of each key, oldest first; never empty.
    keys: BTreeMap<Bytes, Vec<Version>>,
    /// Changes from the compaction revision on.
    log: VecDeque<Change>,
    leases: BTreeMap<i64, Lease>,
    /// Cost of all versions and leases.
    size: usize,
    size_max: usize,
    past: Past,
    journal: Journal,
}

#[derive(Debug)]
struct Version {
    place: Place,
    value: Option<Arc<KeyValue>>,
}

impl Version {
    fn cost(&self, key: &Bytes) -> usize {
        match &self.value {
            Some(value) => value.cost(),
            None => key.len() + OVERHEAD,
        }
    }
}

impl Engine {
    /// An empty store that refuses to grow beyond `size_max` bytes.
    pub(crate) fn new(size_max: usize) -> Self {
        let saved = Saved {
            revision: 1,
            compacted: -1,
            ..Saved::default()
        };
        Self::restored(saved, size_max)
    }

    /// The store as it was saved.
    pub(crate) fn restored(saved: Saved, size_max: usize) -> Self {
        let mut engine = Self {
            revision: saved.revision,
            compacted: saved.compacted,
            keys: BTreeMap::new(),
            log: VecDeque::new(),
            leases: BTreeMap::new(),
            size: 0,
            size_max,
            past: Past::default(),
            journal: Journal::default(),
        };
        for (id, ttl) in saved.leases {
            let keys = BTreeSet::new();
            engine.leases.insert(id, Lease { ttl, keys });
            engine.size += OVERHEAD;
        }
        for change in saved.changes {
            engine.record(change);
        }
        for (key, versions) in &engine.keys {
            let newest = versions.last().and_then(|version| version.value.as_ref());
            let lease = newest.and_then(|value| engine.leases.get_mut(&value.lease));
            if let Some(lease) = lease {
                lease.keys.insert(key.clone());
            }
        }
        engine
    }

    /// The revision of the last change.
    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    /// Bytes held, roughly.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Most bytes held.
    pub(crate) fn size_max(&self) -> usize {
        self.size_max
    }

    /// What was changed since this was last asked.
    pub(crate) fn take_journal(&mut self) -> Journal {
        std::mem::take(&mut self.journal)
    }

    /// A lease, where it is there.
    pub(crate) fn lease(&self, id: i64) -> Option<&Lease> {
        self.leases.get(&id)
    }

    /// Every lease's id and time to live in seconds.
    pub(crate) fn leases(&self) -> impl Iterator<Item = (i64, i64)> {
        self.leases.iter().map(|(id, lease)| (*id, lease.ttl))
    }

    /// Grants a lease; answers with its time to live in seconds.
    ///
    /// # Errors
    ///
    /// If the id is taken, or the time too long.
    pub(crate) fn grant(&mut self, id: i64, ttl: i64) -> Result<i64, Refusal> {
        if ttl > TTL_MAX {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if self.leases.contains_key(&id) {
            return Err(Refusal::LeaseExists);
        }
        self.check_space(0)?;
        let ttl = ttl.max(TTL_MIN);
        let keys = BTreeSet::new();
        self.leases.insert(id, Lease { ttl, keys });
        self.size += OVERHEAD;
        self.journal.leases.insert(id, Some(ttl));
        Ok(ttl)
    }

    /// Ends a lease and deletes its keys, all in one revision.
    ///
    /// # Errors
    ///
    /// If there is no such lease.
    pub(crate) fn revoke(&mut self, id: i64) -> Result<(), Refusal> {
        let Some(lease) = self.leases.get(&id) else {
            return Err(Refusal::LeaseNotFound);
        };
        let keys = lease.keys.clone();
        let mut writer = self.write();
        for key in keys {
            writer.delete(&Range::One(key));
        }
        writer.finish();
        self.leases.remove(&id);
        self.size -= OVERHEAD;
        self.journal.leases.insert(id, None);
        Ok(())
    }

    /// Refuses what would grow the store beyond its bound.
    fn check_space(&self, more: usize) -> Result<(), Refusal> {
        if self.size + more + OVERHEAD > self.size_max {
            return Err(Refusal::NoSpace);
        }
        Ok(())
    }

    /// Puts a change where readers and watchers find it.
    fn record(&mut self, change: Change) {
        let version = Version {
            place: change.place,
            value: change.value.clone(),
        };
        let cost = version.cost(&change.key);
        self.size += cost;
        let versions = self.keys.entry(change.key.clone()).or_default();
        let old = versions.last().filter(|old| old.value.is_some());
        if let Some(old) = old {
            self.past.add(change.place.revision, old.cost(&change.key));
        }
        if change.value.is_none() {
            // A watch may begin at its revision.
            self.past.add(change.place.revision + 1, cost);
        }
        versions.push(version);
        if change.place.revision >= self.compacted {
            self.log.push_back(change);
        }
    }

    /// A key at a revision, where it was there.
    fn at(&self, key: &Bytes, revision: i64) -> Option<&Arc<KeyValue>> {
        newest(self.keys.get(key)?, revision)
    }
}

/// The newest of `versions` at `revision`, unless it is a deletion.
fn newest(versions: &[Version], revision: i64) -> Option<&Arc<KeyValue>> {
    let later = versions.partition_point(|version| version.place.revision <= revision);
    versions[..later].last()?.value.as_ref()
}

//! Writing: changes that share one revision.

use std::sync::Arc;

use bytes::Bytes;

use super::{Change, Engine, KeyValue, OVERHEAD, Place, Query, Range, RangeAnswer, Refusal};

/// Sets a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Put {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    /// 0 for none.
    pub(crate) lease: i64,
    /// Whether to answer with what was there.
    pub(crate) prev_kv: bool,
    /// Whether to keep the value that is there.
    pub(crate) ignore_value: bool,
    /// Whether to keep the lease that is there.
    pub(crate) ignore_lease: bool,
}

impl Put {
    fn needs_key(&self) -> bool {
        self.ignore_value || self.ignore_lease
    }

    /// What it may add to the store.
    pub(super) fn cost(&self) -> usize {
        self.key.len() + self.value.len() + OVERHEAD
    }
}

/// What a put did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PutAnswer {
    pub(crate) revision: i64,
    pub(crate) prev_kv: Option<Arc<KeyValue>>,
}

/// Deletes keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delete {
    pub(crate) range: Range,
    /// Whether to answer with what was there.
    pub(crate) prev_kv: bool,
}

/// What a deletion did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeleteAnswer {
    pub(crate) revision: i64,
    pub(crate) deleted: usize,
    pub(crate) prev_kvs: Vec<Arc<KeyValue>>,
}

impl Engine {
    /// Sets one key.
    ///
    /// # Errors
    ///
    /// If there is no such lease, no key to keep something of, or no room.
    pub(crate) fn put(&mut self, put: &Put) -> Result<PutAnswer, Refusal> {
        self.check_space(put.cost())?;
        self.check_lease(put)?;
        self.check_key(put)?;
        let mut writer = self.write();
        let answer = writer.put(put);
        writer.finish();
        Ok(answer)
    }

    /// Deletes keys; deleting none changes nothing.
    pub(crate) fn delete(&mut self, delete: &Delete) -> DeleteAnswer {
        let mut writer = self.write();
        let answer = writer.delete_range(delete);
        writer.finish();
        answer
    }

    pub(super) fn check_lease(&self, put: &Put) -> Result<(), Refusal> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(Refusal::LeaseNotFound);
        }
        Ok(())
    }

    pub(super) fn check_key(&self, put: &Put) -> Result<(), Refusal> {
        if put.needs_key() && self.at(&put.key, self.revision).is_none() {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }

    /// Begins changes that share the next revision.
    pub(super) fn write(&mut self) -> Writer<'_> {
        Writer {
            engine: self,
            changes: 0,
        }
    }
}

/// Changes under way. They are visible to what follows in the same writer.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    engine: &'a mut Engine,
    changes: u32,
}

impl Writer<'_> {
    /// The revision that reads within these changes see.
    pub(super) fn revision(&self) -> i64 {
        self.engine.revision + i64::from(self.changes > 0)
    }

    /// Reads what was there before, and what these changes made of it.
    pub(super) fn range(&self, query: &Query) -> Result<RangeAnswer, Refusal> {
        self.engine.range_as_of(query, self.revision())
    }

    /// Sets a key that was checked before.
    pub(super) fn put(&mut self, put: &Put) -> PutAnswer {
        let previous = self.engine.at(&put.key, self.revision()).cloned();
        let kept = previous.as_ref();
        let place = self.place();
        let value = Arc::new(KeyValue {
            key: put.key.clone(),
            value: match kept {
                Some(kept) if put.ignore_value => kept.value.clone(),
                _ => put.value.clone(),
            },
            create_revision: kept.map_or(place.revision, |kept| kept.create_revision),
            mod_revision: place.revision,
            version: kept.map_or(0, |kept| kept.version) + 1,
            lease: match kept {
                Some(kept) if put.ignore_lease => kept.lease,
                _ => put.lease,
            },
        });
        self.attach(&put.key, kept.map_or(0, |kept| kept.lease), value.lease);
        self.change(place, put.key.clone(), Some(value));
        PutAnswer {
            revision: place.revision,
            prev_kv: previous.filter(|_| put.prev_kv),
        }
    }

    /// Deletes keys and says how many there were.
    pub(super) fn delete_range(&mut self, delete: &Delete) -> DeleteAnswer {
        let gone = self.delete(&delete.range);
        DeleteAnswer {
            revision: self.revision(),
            deleted: gone.len(),
            prev_kvs: if delete.prev_kv { gone } else { Vec::new() },
        }
    }

    /// Deletes keys; answers with what was there.
    pub(super) fn delete(&mut self, range: &Range) -> Vec<Arc<KeyValue>> {
        let found = self.engine.visible(range, self.revision());
        let found: Vec<_> = found.cloned().collect();
        for value in &found {
            let place = self.place();
            self.attach(&value.key, value.lease, 0);
            self.change(place, value.key.clone(), None);
        }
        found
    }

    /// Ends these changes; without any, the revision stays.
    pub(super) fn finish(self) {
        self.engine.revision = self.revision();
    }

    fn place(&self) -> Place {
        Place {
            revision: self.engine.revision + 1,
            sub: self.changes,
        }
    }

    fn change(&mut self, place: Place, key: Bytes, value: Option<Arc<KeyValue>>) {
        let change = Change { place, key, value };
        self.engine.journal.changes.push(change.clone());
        self.engine.record(change);
        self.changes += 1;
    }

    /// Moves a key from one lease to another.
    fn attach(&mut self, key: &Bytes, from: i64, to: i64) {
        if from == to {
            return;
        }
        if let Some(lease) = self.engine.leases.get_mut(&from) {
            lease.keys.remove(key);
        }
        if let Some(lease) = self.engine.leases.get_mut(&to) {
            lease.keys.insert(key.clone());
        }
    }
}

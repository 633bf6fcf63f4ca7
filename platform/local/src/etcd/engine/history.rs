//! The log as watchers read it: from a revision on, as much as they may have at once.

use std::sync::Arc;

use super::{Change, Engine, KeyValue, Range};

/// Most revisions read at once for one watch.
const REVISIONS_MAX: usize = 1_000;

/// Bytes after which no further revision is read for one watch.
const BYTES_MAX: usize = 1024 * 1024;

/// What one watch wants next.
#[derive(Debug, Clone)]
pub(crate) struct Cursor {
    pub(crate) range: Range,
    /// The first revision not yet seen.
    pub(crate) next: i64,
    pub(crate) filters: Filters,
    /// Whether to tell what was there before.
    pub(crate) prev_kv: bool,
}

/// Kinds of events that a watch does not want.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Filters {
    pub(crate) puts: bool,
    pub(crate) deletes: bool,
}

/// A change as a watch sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) change: Change,
    pub(crate) prev_kv: Option<Arc<KeyValue>>,
}

impl Event {
    fn cost(&self) -> usize {
        let value = |value: &Option<Arc<KeyValue>>| value.as_ref().map_or(0, |it| it.cost());
        self.change.key.len() + value(&self.change.value) + value(&self.prev_kv)
    }
}

/// A piece of the log: whole revisions, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Slice {
    Events {
        events: Vec<Event>,
        /// Where to go on; beyond the store's revision if nothing is left.
        next: i64,
        /// What the events take, roughly.
        bytes: usize,
    },
    /// What the watch wants next is gone; history begins here.
    Compacted(i64),
}

impl Engine {
    /// What comes next for a watch.
    pub(crate) fn events(&self, cursor: &Cursor) -> Slice {
        if cursor.next < self.compacted {
            return Slice::Compacted(self.compacted);
        }
        let next = (self.revision + 1).max(cursor.next);
        let mut slice = Piece::default();
        let begin = self
            .log
            .partition_point(|change| change.place.revision < cursor.next);
        for change in self.log.range(begin..) {
            if !cursor.wants(change) {
                continue;
            }
            let revision = change.place.revision;
            if revision != slice.revision {
                if slice.is_full() {
                    return slice.until(revision);
                }
                slice.revision = revision;
                slice.revisions += 1;
            }
            let prev_kv = self.previous(change).filter(|_| cursor.prev_kv);
            slice.push(Event {
                change: change.clone(),
                prev_kv,
            });
        }
        slice.until(next)
    }

    /// What was there before a change, where history still knows.
    fn previous(&self, change: &Change) -> Option<Arc<KeyValue>> {
        let created = change
            .value
            .as_ref()
            .is_some_and(|value| value.create_revision == value.mod_revision);
        let before = change.place.revision - 1;
        if created || before < self.compacted {
            return None;
        }
        self.at(&change.key, before).cloned()
    }
}

impl Cursor {
    fn wants(&self, change: &Change) -> bool {
        let filtered = match change.value {
            Some(_) => self.filters.puts,
            None => self.filters.deletes,
        };
        !filtered && self.range.contains(&change.key)
    }
}

#[derive(Default)]
struct Piece {
    events: Vec<Event>,
    /// Of the newest event.
    revision: i64,
    revisions: usize,
    bytes: usize,
}

impl Piece {
    fn is_full(&self) -> bool {
        self.revisions >= REVISIONS_MAX || self.bytes >= BYTES_MAX
    }

    fn push(&mut self, event: Event) {
        self.bytes += event.cost();
        self.events.push(event);
    }

    fn until(self, next: i64) -> Slice {
        Slice::Events {
            events: self.events,
            next,
            bytes: self.bytes,
        }
    }
}

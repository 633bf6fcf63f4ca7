//! Which of the events at hand may be handled now: those of a key one after the other, in their order.
//!
//! ```text
//! delivery ─arrive─▶ lane of its key ─step─▶ handled ─done─▶ next of the lane
//!                       └─ one before it is held: wait for it, or come again later
//! ```
//!
//! Pure: no clock, no database. Time comes as an argument, holds are told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gantry_store::Timestamp;

/// Events that keep their order: those of one key from one source.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Hash)]
pub(crate) struct Lane {
    pub(crate) source: String,
    pub(crate) key: String,
}

// Keys are people's.
impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// What is to be done with an event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<T> {
    /// Handle it; `held` says whether it is itself held, and `overdue` that one missing before it was
    /// waited for long enough.
    Handle { item: T, held: bool, overdue: bool },
    /// One before it comes again at `until`: so does it.
    Postpone { item: T, until: Timestamp },
}

/// Events of one partition that are at hand or held.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    queues: BTreeMap<Arc<Lane>, Queue<T>>,
    /// Lanes of which a step may be possible.
    ready: BTreeSet<Arc<Lane>>,
    /// Events that come again, and when: their followers are not handled before.
    holds: BTreeMap<Arc<Lane>, BTreeMap<u64, Timestamp>>,
    held: usize,
    /// Events that wait in lanes.
    waiting: usize,
    /// Lanes of which one is handled.
    busy: usize,
    /// Counts arrivals.
    arrivals: u64,
    /// Most events that wait for one that is held; further ones come again later.
    parked_max: usize,
    /// Longest time for which one is worth waiting, in microseconds.
    park_micros_max: i64,
}

#[derive(Debug)]
struct Queue<T> {
    busy: bool,
    /// Which one came before its predecessor, and until when that is waited for.
    early: Option<(u64, Timestamp)>,
    /// By sequence, and among equals by arrival.
    waiting: BTreeMap<(Option<u64>, u64), T>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            busy: false,
            early: None,
            waiting: BTreeMap::new(),
        }
    }
}

impl<T> Lanes<T> {
    /// Nothing is at hand. `parked_max` events may wait at hand for ones that are held and come again
    /// within `park_micros_max`.
    pub(crate) fn new(parked_max: usize, park_micros_max: i64) -> Self {
        Self {
            queues: BTreeMap::new(),
            ready: BTreeSet::new(),
            holds: BTreeMap::new(),
            held: 0,
            waiting: 0,
            busy: 0,
            arrivals: 0,
            parked_max,
            park_micros_max,
        }
    }

    /// Events at hand, those that are handled included.
    pub(crate) fn len(&self) -> usize {
        self.waiting + self.busy
    }

    /// Events that are held.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Takes in an event.
    pub(crate) fn arrive(&mut self, lane: Arc<Lane>, sequence: Option<u64>, item: T) {
        self.arrivals += 1;
        let queue = self.queues.entry(Arc::clone(&lane)).or_default();
        queue.waiting.insert((sequence, self.arrivals), item);
        self.waiting += 1;
        self.ready.insert(lane);
        if self.waiting > self.parked_max {
            // Those that wait for a held one make room.
            self.look_again();
        }
    }

    /// The next thing to do at `now`, if there is any. Its lane is busy until [`Lanes::done`].
    pub(crate) fn step(&mut self, now: Timestamp) -> Option<(Arc<Lane>, Step<T>)> {
        while let Some(lane) = self.ready.pop_first() {
            if let Some(step) = self.step_of(&lane, now) {
                return Some((lane, step));
            }
        }
        None
    }

    fn step_of(&mut self, lane: &Arc<Lane>, now: Timestamp) -> Option<Step<T>> {
        let queue = self.queues.get_mut(lane)?;
        if queue.busy {
            return None;
        }
        let (sequence, _) = *queue.waiting.first_key_value()?.0;
        let early = queue.early.filter(|(it, _)| Some(*it) == sequence);
        if early.is_some_and(|(_, until)| now < until) {
            return None;
        }
        let holds = self.holds.get(lane);
        let first_held = holds.and_then(|holds| holds.first_key_value());
        let before = match (sequence, first_held) {
            (Some(sequence), Some((held, until))) if *held < sequence => Some(*until),
            _ => None,
        };
        if let Some(until) = before {
            let left = until.micros().saturating_sub(now.micros());
            let near = left.saturating_abs() <= self.park_micros_max;
            if near && self.waiting <= self.parked_max {
                return None;
            }
        }
        let item = queue.waiting.pop_first()?.1;
        queue.busy = true;
        // What is handled now may be what was missing.
        queue.early = None;
        self.waiting -= 1;
        self.busy += 1;
        let held = |sequence| holds.is_some_and(|holds| holds.contains_key(&sequence));
        Some(match before {
            Some(until) => Step::Postpone { item, until },
            None => Step::Handle {
                item,
                held: sequence.is_some_and(held),
                overdue: early.is_some(),
            },
        })
    }

    /// Takes an event back that came before its predecessor, for which it waits until `until`; to be
    /// followed by [`Lanes::done`].
    pub(crate) fn put_back(&mut self, lane: &Arc<Lane>, sequence: u64, item: T, until: Timestamp) {
        if let Some(queue) = self.queues.get_mut(lane) {
            queue.early = Some((sequence, until));
            queue.waiting.insert((Some(sequence), 0), item);
            self.waiting += 1;
        }
    }

    /// What a lane was busy with is over.
    pub(crate) fn done(&mut self, lane: &Arc<Lane>) {
        let Some(queue) = self.queues.get_mut(lane) else {
            return;
        };
        if queue.busy {
            queue.busy = false;
            self.busy -= 1;
        }
        if queue.waiting.is_empty() {
            self.queues.remove(lane);
        } else {
            self.ready.insert(Arc::clone(lane));
        }
    }

    /// An event comes again at `until`.
    pub(crate) fn hold(&mut self, lane: &Arc<Lane>, sequence: u64, until: Timestamp) {
        let holds = self.holds.entry(Arc::clone(lane)).or_default();
        self.held += usize::from(holds.insert(sequence, until).is_none());
    }

    /// An event is not held any more.
    pub(crate) fn free(&mut self, lane: &Arc<Lane>, sequence: u64) {
        let Some(holds) = self.holds.get_mut(lane) else {
            return;
        };
        self.held -= usize::from(holds.remove(&sequence).is_some());
        if holds.is_empty() {
            self.holds.remove(lane);
        }
        if self.queues.contains_key(lane) {
            self.ready.insert(Arc::clone(lane));
        }
    }

    /// Looks again at those that wait for another one.
    pub(crate) fn look_again(&mut self) {
        let blocked = self.blocked().cloned().collect::<Vec<_>>();
        self.ready.extend(blocked);
    }

    /// Whether any wait for another one.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked().next().is_some()
    }

    fn blocked(&self) -> impl Iterator<Item = &Arc<Lane>> {
        let waits = |(lane, queue): &(&Arc<Lane>, &Queue<T>)| {
            !queue.busy && (queue.early.is_some() || self.holds.contains_key(*lane))
        };
        let queues = self.queues.iter().filter(waits);
        queues.map(|(lane, _)| lane)
    }

    /// Forgets what waits: it comes again.
    pub(crate) fn forget(&mut self) {
        self.queues.retain(|_, queue| {
            queue.waiting.clear();
            queue.early = None;
            queue.busy
        });
        self.waiting = 0;
        self.ready.clear();
    }
}

#[cfg(test)]
mod tests;

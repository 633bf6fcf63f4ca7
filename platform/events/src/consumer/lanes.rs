//! Which of the events at hand may be handled now: those of a key one after the other, in their order.
//!
//! ```text
//! delivery ─arrive─▶ lane of its key ─step─▶ handled ─done─▶ next of the lane
//!                       ├─ it waits, to be tried again or for its predecessor: put back
//!                       └─ one before it is held: wait for it, or come again later
//! ```
//!
//! Those behind a held event wait at hand while there is room and it comes again soon. Otherwise they
//! are put off, all that are at hand at once: it costs a write, and each further time that they come.
//!
//! Pure: no clock, no database. Time comes as an argument, holds are told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
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

/// What is to be done next. Its lanes are busy until [`Lanes::done`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<T> {
    /// Handle one; `held` says whether it is itself held, and `overdue` that one missing before it was
    /// waited for long enough.
    Handle {
        lane: Arc<Lane>,
        item: T,
        held: bool,
        overdue: bool,
    },
    /// Have these come again later.
    Postpone(Vec<Behind<T>>),
    /// The event of this sequence is held, and does not come again: let those behind it go on.
    GiveUp { lane: Arc<Lane>, sequence: u64 },
}

/// An event that is to come again behind others of its lane, after so long.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Behind<T> {
    pub(crate) lane: Arc<Lane>,
    pub(crate) item: T,
    pub(crate) after: Duration,
}

/// How long events wait, and how many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Most events that wait at hand for ones that are held.
    pub(crate) parked_max: usize,
    /// Longest time for which one is worth waiting at hand.
    pub(crate) park_max: Duration,
    /// Longest time that one is put off, by whatever clock it was written down when it comes again.
    pub(crate) pause_max: Duration,
    /// How long the broker can have events wait; any time where there are none.
    pub(crate) pauses: &'static [Duration],
    /// How long after it was due an event is expected, while those behind it come.
    pub(crate) lost_after: Duration,
}

/// Events of one partition that are at hand or held.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    limits: Limits,
    queues: BTreeMap<Arc<Lane>, Queue<T>>,
    /// Lanes of which a step may be possible.
    ready: BTreeSet<Arc<Lane>>,
    /// Events that come again, and when: their followers are not handled before.
    holds: BTreeMap<Arc<Lane>, BTreeMap<u64, Timestamp>>,
    held: usize,
    /// Whether those that wait for ones that come late are put off now.
    looks: bool,
    /// Events that wait in lanes.
    waiting: usize,
    /// Events that are worked at.
    busy: usize,
    /// Counts arrivals.
    arrivals: u64,
}

#[derive(Debug)]
struct Queue<T> {
    /// How many of it are worked at, where it is busy.
    busy: Option<usize>,
    /// What its first one waits for.
    wait: Option<Wait>,
    /// By sequence, and among equals by arrival.
    waiting: BTreeMap<(Option<u64>, u64), T>,
}

/// Until when an event is not handled that was put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) sequence: Option<u64>,
    pub(crate) until: Timestamp,
    /// Whether what is missing before it was waited for long enough then.
    pub(crate) overdue: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            busy: None,
            wait: None,
            waiting: BTreeMap::new(),
        }
    }
}

impl<T> Queue<T> {
    /// Sequence and arrival of its first one.
    fn first(&self) -> Option<(Option<u64>, u64)> {
        self.waiting.first_key_value().map(|(first, _)| *first)
    }
}

impl<T> Lanes<T> {
    /// Nothing is at hand.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            queues: BTreeMap::new(),
            ready: BTreeSet::new(),
            holds: BTreeMap::new(),
            held: 0,
            looks: false,
            waiting: 0,
            busy: 0,
            arrivals: 0,
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

    /// Keys of those.
    pub(crate) fn held_keys(&self) -> usize {
        self.holds.len()
    }

    /// Takes in an event.
    pub(crate) fn arrive(&mut self, lane: Arc<Lane>, sequence: Option<u64>, item: T) {
        self.arrivals += 1;
        let queue = self.queues.entry(Arc::clone(&lane)).or_default();
        queue.waiting.insert((sequence, self.arrivals), item);
        self.waiting += 1;
        self.ready.insert(lane);
    }

    /// The next thing to do at `now`, if there is any.
    pub(crate) fn step(&mut self, now: Timestamp) -> Option<Step<T>> {
        while let Some(lane) = self.ready.pop_first() {
            if let Some(step) = self.step_of(&lane, now) {
                return Some(step);
            }
        }
        self.postpone(now)
    }

    fn step_of(&mut self, lane: &Arc<Lane>, now: Timestamp) -> Option<Step<T>> {
        let queue = self.queues.get_mut(lane)?;
        if queue.busy.is_some() {
            return None;
        }
        let (sequence, _) = queue.first()?;
        let wait = queue.wait.filter(|wait| wait.sequence == sequence);
        if wait.is_some_and(|wait| now < wait.until) {
            return None;
        }
        let holds = self.holds.get(lane);
        if let Some((first, due)) = before(holds, sequence) {
            let own = holds.zip(sequence).and_then(|(holds, it)| holds.get(&it));
            // It was put off itself, that late, and so put into the queue behind the other.
            if own.is_none_or(|own| *own < due.after(self.limits.lost_after)) {
                return None;
            }
            queue.busy = Some(0);
            let lane = Arc::clone(lane);
            return Some(Step::GiveUp {
                lane,
                sequence: first,
            });
        }
        let item = queue.waiting.pop_first()?.1;
        queue.busy = Some(1);
        // What is handled now may be what was missing.
        queue.wait = None;
        self.waiting -= 1;
        self.busy += 1;
        Some(Step::Handle {
            lane: Arc::clone(lane),
            item,
            held: holds
                .zip(sequence)
                .is_some_and(|(holds, it)| holds.contains_key(&it)),
            overdue: wait.is_some_and(|wait| wait.overdue),
        })
    }

    /// Has those put off that wait for held ones, where they have no room or it takes too long.
    fn postpone(&mut self, now: Timestamp) -> Option<Step<T>> {
        if self.holds.is_empty() {
            return None;
        }
        let mut behind = Vec::new();
        for (lane, queue) in self.queues.iter().filter(|(_, it)| it.busy.is_none()) {
            let holds = self.holds.get(lane);
            if let Some((_, due)) = queue.first().and_then(|(first, _)| before(holds, first)) {
                behind.push((due, Arc::clone(lane), queue.waiting.len()));
            }
        }
        let parked: usize = behind.iter().map(|(_, _, waiting)| waiting).sum();
        let looks = std::mem::take(&mut self.looks);
        let full = parked > self.limits.parked_max;
        if !full && !looks {
            return None;
        }
        let park_max = self.limits.park_max;
        let far = |due: Timestamp| now < due.before(park_max) || due.after(park_max) < now;
        let (far, mut near): (Vec<_>, Vec<_>) = behind.into_iter().partition(|it| far(it.0));
        let mut chosen: Vec<_> = far.into_iter().map(|it| (it, 0)).collect();
        if full {
            // The next of each lane stay, or a backlog whose order the pauses mixed up went out one event
            // a pause. So much room is made that not each that comes is put off by itself.
            near.sort();
            let (kept, lanes) = (self.limits.parked_max * 3 / 4, near.len());
            let share = |at| kept / lanes + usize::from(at < kept % lanes);
            chosen.extend(near.into_iter().enumerate().map(|(at, it)| (it, share(at))));
        }
        let mut items = Vec::new();
        for ((due, lane, _), stay) in chosen {
            let Some(queue) = self.queues.get_mut(&lane) else {
                continue;
            };
            let Some(first) = queue.waiting.keys().nth(stay).copied() else {
                continue;
            };
            let waiting = queue.waiting.split_off(&first);
            queue.busy = Some(waiting.len());
            if stay == 0 {
                queue.wait = None;
            }
            self.waiting -= waiting.len();
            self.busy += waiting.len();
            let after = pause_behind(due, now, &self.limits);
            items.extend(waiting.into_values().map(|item| Behind {
                lane: Arc::clone(&lane),
                item,
                after,
            }));
        }
        (!items.is_empty()).then_some(Step::Postpone(items))
    }

    /// Takes an event back that waits; to be followed by [`Lanes::done`].
    pub(crate) fn put_back(&mut self, lane: &Arc<Lane>, item: T, wait: Wait) {
        if let Some(queue) = self.queues.get_mut(lane) {
            queue.wait = Some(wait);
            queue.waiting.insert((wait.sequence, 0), item);
            self.waiting += 1;
        }
    }

    /// What a lane was busy with is over.
    pub(crate) fn done(&mut self, lane: &Arc<Lane>) {
        let Some(queue) = self.queues.get_mut(lane) else {
            return;
        };
        self.busy -= queue.busy.take().unwrap_or(0);
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

    /// Looks again at those that wait.
    pub(crate) fn look_again(&mut self) {
        self.looks = true;
        let waits = self.waits().cloned().collect::<Vec<_>>();
        self.ready.extend(waits);
    }

    /// Whether any wait for something else than their turn.
    pub(crate) fn is_blocked(&self) -> bool {
        self.waits().next().is_some()
    }

    fn waits(&self) -> impl Iterator<Item = &Arc<Lane>> {
        let waits = |(lane, queue): &(&Arc<Lane>, &Queue<T>)| {
            queue.busy.is_none() && (queue.wait.is_some() || self.holds.contains_key(*lane))
        };
        let queues = self.queues.iter().filter(waits);
        queues.map(|(lane, _)| lane)
    }

    /// Forgets what waits: it comes again.
    pub(crate) fn forget(&mut self) {
        self.queues.retain(|_, queue| {
            queue.waiting.clear();
            queue.wait = None;
            queue.busy.is_some()
        });
        self.waiting = 0;
        self.ready.clear();
    }
}

/// Least time for which an event is put off behind another.
const POSTPONE_MIN: Duration = Duration::from_millis(250);

/// Longest time for which one is put off behind another that is overdue: that comes any moment, once the
/// broker is there again, say, and all behind it wait for as long as this then.
const POSTPONE_OVERDUE_MAX: Duration = Duration::from_secs(5);

/// How long an event is put off behind another that comes again at `due`: until then, or for the longest
/// pause before that where the broker has only some, so that a key that is never quiet comes to have no
/// backlog any more. Behind one that is overdue the longer, the longer that has not come.
fn pause_behind(due: Timestamp, now: Timestamp, limits: &Limits) -> Duration {
    let pauses = limits.pauses;
    let micros = due.micros().saturating_sub(now.micros());
    let away = Duration::from_micros(micros.unsigned_abs());
    let away = if micros < 0 {
        (away / 8).min(POSTPONE_OVERDUE_MAX)
    } else {
        away.min(limits.pause_max)
    };
    let away = away.max(POSTPONE_MIN);
    let shorter = pauses.iter().rev().find(|pause| **pause <= away);
    *shorter.or(pauses.first()).unwrap_or(&away)
}

/// How long an event waits for that is to come again after `after`, at least.
pub(crate) fn pause(pauses: &[Duration], after: Duration) -> Duration {
    let longer = pauses.iter().find(|pause| **pause >= after);
    *longer.or(pauses.last()).unwrap_or(&after)
}

/// The first of `holds` that stands before `sequence`.
fn before(
    holds: Option<&BTreeMap<u64, Timestamp>>,
    sequence: Option<u64>,
) -> Option<(u64, Timestamp)> {
    let (first, due) = holds?.first_key_value()?;
    (*first < sequence?).then_some((*first, *due))
}

#[cfg(test)]
mod tests;

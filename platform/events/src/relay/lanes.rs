//! What a relay has claimed, by key.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{
    lane::{Lane, Tally},
    ledger::{Event, Outcome},
};

/// What a relay has claimed, by key: what becomes of it is written down in their order. What they have
/// all together is known at any time, as it is asked for with each event.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    by_key: BTreeMap<String, Lane>,
    tally: Tally,
}

impl Lanes {
    /// What they have all together.
    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    /// One more, of a key that has none.
    pub(super) fn insert(&mut self, key: String, lane: Lane) {
        self.tally.add(lane.tally());
        if let Some(before) = self.by_key.insert(key, lane) {
            self.tally.remove(before.tally());
        }
    }

    pub(super) fn remove(&mut self, key: &str) {
        if let Some(lane) = self.by_key.remove(key) {
            self.tally.remove(lane.tally());
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The next event of a key.
    pub(super) fn next(&self, key: &str) -> Option<&Event> {
        self.by_key.get(key)?.next()
    }

    /// Does `change` to the lane of a key, where there is one.
    pub(super) fn change<T>(
        &mut self,
        key: &str,
        change: impl FnOnce(&mut Lane) -> T,
    ) -> Option<T> {
        let lane = self.by_key.get_mut(key)?;
        self.tally.remove(lane.tally());
        let changed = change(lane);
        self.tally.add(lane.tally());
        Some(changed)
    }

    /// Whoever waits for their turn to give a lane back does so no more.
    pub(super) fn nobody_waits(&mut self) {
        self.tally = Tally::default();
        for lane in self.by_key.values_mut() {
            lane.wait(false);
            self.tally.add(lane.tally());
        }
    }

    /// What is to be written down, in the order of their keys.
    pub(super) fn unsaved(&self) -> Vec<Outcome> {
        self.by_key.values().filter_map(Lane::unsaved).collect()
    }

    /// The key that could not be given back for longest, and since when, of those for which nobody waits.
    pub(super) fn busiest(&self) -> Option<(&str, Instant)> {
        if self.tally.busy == 0 {
            return None;
        }
        let busy = self.by_key.iter();
        let busy = busy.filter_map(|(key, lane)| Some((&**key, lane.busy_since()?)));
        busy.min_by_key(|(_, since)| *since)
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.left += other.left;
        self.bytes += other.bytes;
        self.done += other.done;
        self.ended += other.ended;
        self.busy += other.busy;
    }

    fn remove(&mut self, other: Self) {
        self.left -= other.left;
        self.bytes -= other.bytes;
        self.done -= other.done;
        self.ended -= other.ended;
        self.busy -= other.busy;
    }
}

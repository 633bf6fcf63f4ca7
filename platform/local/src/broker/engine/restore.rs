//! All of it as it was saved.

use std::sync::Arc;

use super::{Address, Bounds, Dead, Declaration, Engine, Entry, Kept, KeptState, Millis};

/// What was on disk.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    /// The last place or id that was given.
    pub(crate) last: u64,
    /// By id.
    pub(crate) groups: Vec<(u64, Arc<str>, Declaration)>,
    /// By group and place.
    pub(crate) kept: Vec<((u64, u64), Kept)>,
}

impl Engine {
    /// As it was saved; any message may have been handed out before. What is of no group there is
    /// left out.
    ///
    /// What was delayed comes again when it was to, but no later than its whole pause from `now`, as
    /// clocks of machines are set back at times.
    pub(crate) fn restored(saved: Saved, bounds: Bounds, now: Millis) -> Self {
        let mut engine = Self::new(bounds);
        engine.last = saved.last;
        let mut names = std::collections::HashMap::new();
        for (id, name, declared) in saved.groups {
            names.insert(id, Arc::clone(&name));
            engine.add_group(name, id, declared);
        }
        for ((id, place), kept) in saved.kept {
            if let Some(name) = names.get(&id) {
                let address = Address {
                    group: Arc::clone(name),
                    partition: kept.partition,
                };
                engine.put_back(address, place, kept, now);
            }
        }
        engine
    }

    fn put_back(&mut self, address: Address, place: u64, kept: Kept, now: Millis) {
        self.count(&address.group, &kept.message);
        let Some(group) = self.groups.get_mut(&address.group) else {
            return;
        };
        let Some(queue) = group.queues.get_mut(usize::from(address.partition)) else {
            return;
        };
        let entry = Entry::again(Arc::clone(&kept.message));
        match kept.state {
            KeptState::Ready => queue.push(place, entry),
            KeptState::Delayed { due, pause } => {
                queue.delay(place, entry);
                let due = due.min(now.saturating_add(pause));
                self.due.insert((due, place), address);
            }
            KeptState::Dead { time } => {
                let dead = Dead {
                    partition: kept.partition,
                    time,
                    message: kept.message,
                };
                group.dead.insert(place, dead);
            }
        }
    }
}

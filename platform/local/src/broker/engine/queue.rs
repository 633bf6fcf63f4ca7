//! One queue, and who has it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{ConsumerId, Message, Told};

/// A copy of a message in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) message: Arc<Message>,
    /// Whether it may have been handed out before.
    pub(super) redelivered: bool,
}

impl Entry {
    pub(super) fn new(message: Arc<Message>) -> Self {
        Self {
            message,
            redelivered: false,
        }
    }

    /// One that may have been handed out before.
    pub(super) fn again(message: Arc<Message>) -> Self {
        Self {
            message,
            redelivered: true,
        }
    }
}

/// Somebody who wants messages.
#[derive(Debug)]
pub(super) struct Consumer {
    id: ConsumerId,
    prefetch: usize,
    told: bool,
    last_tag: u64,
    /// What it has not settled, by tag: the place, and what is there.
    unsettled: BTreeMap<u64, (u64, Entry)>,
}

impl Consumer {
    pub(super) fn new(id: ConsumerId, prefetch: u16) -> Self {
        Self {
            id,
            prefetch: usize::from(prefetch),
            told: false,
            last_tag: 0,
            unsettled: BTreeMap::new(),
        }
    }
}

/// How full a queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Fill {
    pub(crate) ready: usize,
    pub(crate) unsettled: usize,
    pub(crate) delayed: usize,
    pub(crate) consumers: usize,
}

/// A queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// What waits for a consumer, by place.
    ready: BTreeMap<u64, Entry>,
    /// What comes again later, by the place it had.
    delayed: BTreeMap<u64, Entry>,
    /// The first one has the queue.
    consumers: VecDeque<Consumer>,
}

impl Queue {
    pub(super) fn fill(&self) -> Fill {
        Fill {
            ready: self.ready.len(),
            unsettled: self.unsettled().count(),
            delayed: self.delayed.len(),
            consumers: self.consumers.len(),
        }
    }

    /// Messages in it, whatever they wait for.
    pub(super) fn len(&self) -> u64 {
        let len = self.ready.len() + self.delayed.len() + self.unsettled().count();
        u64::try_from(len).unwrap_or(u64::MAX)
    }

    fn unsettled(&self) -> impl Iterator<Item = &(u64, Entry)> {
        // Whoever waits has none.
        let active = self.consumers.front().into_iter();
        active.flat_map(|consumer| consumer.unsettled.values())
    }

    pub(super) fn consumers(&self) -> impl Iterator<Item = ConsumerId> {
        self.consumers.iter().map(|consumer| consumer.id)
    }

    pub(super) fn push(&mut self, place: u64, entry: Entry) {
        self.ready.insert(place, entry);
    }

    pub(super) fn delay(&mut self, place: u64, entry: Entry) {
        self.delayed.insert(place, entry);
    }

    pub(super) fn take_delayed(&mut self, place: u64) -> Option<Entry> {
        self.delayed.remove(&place)
    }

    pub(super) fn join(&mut self, consumer: Consumer) {
        self.consumers.push_back(consumer);
    }

    /// Ends a consumer; what it has not settled stands where it stood.
    pub(super) fn leave(&mut self, id: ConsumerId) {
        let at = self.consumers.iter().position(|consumer| consumer.id == id);
        let Some(consumer) = at.and_then(|at| self.consumers.remove(at)) else {
            return;
        };
        for (place, entry) in consumer.unsettled.into_values() {
            self.push(place, Entry::again(entry.message));
        }
    }

    /// Takes what a consumer settles.
    pub(super) fn take(&mut self, id: ConsumerId, tag: u64) -> Option<(u64, Entry)> {
        let active = self.consumers.front_mut()?;
        let ours = active.id == id;
        ours.then(|| active.unsettled.remove(&tag)).flatten()
    }

    /// Tells whoever has the queue so, where it does not know, and hands out.
    pub(super) fn activate(&mut self, told: &mut Vec<(ConsumerId, Told)>) {
        if let Some(active) = self.consumers.front_mut()
            && !std::mem::replace(&mut active.told, true)
        {
            told.push((active.id, Told::Active));
        }
        self.hand_out(told);
    }

    /// Hands out what whoever has the queue has room for.
    pub(super) fn hand_out(&mut self, told: &mut Vec<(ConsumerId, Told)>) {
        let Some(active) = self.consumers.front_mut() else {
            return;
        };
        while active.unsettled.len() < active.prefetch
            && let Some((place, entry)) = self.ready.pop_first()
        {
            active.last_tag += 1;
            let delivered = Told::Delivered {
                tag: active.last_tag,
                message: Arc::clone(&entry.message),
                redelivered: entry.redelivered,
            };
            told.push((active.id, delivered));
            active.unsettled.insert(active.last_tag, (place, entry));
        }
    }
}

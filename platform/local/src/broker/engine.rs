//! Groups, their queues and what is in them, as a pure state machine. No I/O; time is told to it.
//!
//! Every copy of a message has a place, a number that only grows: a queue hands out what waits in it
//! by place, so that what was handed out and comes back stands where it stood. What changes for the
//! disk is collected in a [`Journal`], which whoever applies operations writes before anyone is told;
//! what is to be told to consumers is collected too, see [`Engine::take_told`].
//!
//! Nothing here depends on chance or on the order of a hash: the same operations give the same state.

mod bounds;
mod queue;
mod restore;
mod settle;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use gantry_api::broker::bucket;

use bounds::Amount;
pub(crate) use bounds::Bounds;
pub(crate) use queue::Fill;
use queue::{Consumer, Entry, Queue};
pub(crate) use restore::Saved;
pub(crate) use settle::{How, Listed};

/// What a copy of a message costs beside its bytes, roughly.
const OVERHEAD: usize = 256;

/// Headers of a message.
pub(crate) type Headers = BTreeMap<String, String>;

/// Milliseconds since 1970.
pub(crate) type Millis = u64;

/// A message. Queues share it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) key: String,
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
}

impl Message {
    /// Bytes of all of it.
    pub(crate) fn size(&self) -> usize {
        let headers = self.headers.iter();
        let headers: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
        self.topic.len() + self.key.len() + headers + self.body.len()
    }

    fn cost(&self) -> usize {
        self.size() + OVERHEAD
    }
}

/// Who consumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declaration {
    pub(crate) partitions: u16,
    pub(crate) topics: BTreeSet<String>,
    /// Most messages of one queue; 0 for no bound.
    pub(crate) queue_messages_max: u64,
}

/// One group.
#[derive(Debug)]
struct Group {
    /// Tells it apart from others that have had its name.
    id: u64,
    declared: Declaration,
    queues: Vec<Queue>,
    /// By place.
    dead: BTreeMap<u64, Dead>,
    /// What its queues and its dead letters have.
    held: Amount,
}

/// A message that nobody could do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dead {
    pub(crate) partition: u16,
    pub(crate) time: Millis,
    pub(crate) message: Arc<Message>,
}

/// One of the queues.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    pub(crate) group: Arc<str>,
    pub(crate) partition: u16,
}

/// Tells a consumer apart from all others of this run.
pub(crate) type ConsumerId = u64;

/// What a consumer is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// The queue is its own now.
    Active,
    /// A message.
    Delivered {
        tag: u64,
        message: Arc<Message>,
        redelivered: bool,
    },
    /// The queue is gone, and with it the consumer.
    Removed,
}

/// What became of a message that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Confirmed,
    Unroutable,
    /// This group has no room for it: a queue is full, or the group has as much as it may.
    QueueFull(Arc<str>),
    /// The broker has no room, though no group has too much.
    NoRoom,
}

/// Why something was refused; nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no such group or queue.
    NoQueue,
    /// There is no dead letter at that place.
    NoDeadLetter,
    /// The group has so many partitions.
    OtherPartitions(u16),
    GroupsMax,
    ConsumersMax,
    /// This consumer has nothing of that tag.
    NoTag,
}

/// What must be on disk before anyone is told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Journal {
    /// Groups as they are now, by their ids; none for one that is gone with all that it keeps.
    pub(crate) groups: BTreeMap<u64, Option<(Arc<str>, Declaration)>>,
    /// Copies of messages by group and place; none for one that is gone.
    pub(crate) kept: BTreeMap<(u64, u64), Option<Kept>>,
}

impl Journal {
    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.kept.is_empty()
    }
}

/// A copy of a message as the disk has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) partition: u16,
    pub(crate) state: KeptState,
    pub(crate) message: Arc<Message>,
}

/// What such a copy waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeptState {
    /// For a consumer, or to be settled by one.
    Ready,
    /// To come again.
    Delayed {
        due: Millis,
        /// How long it was to wait.
        pause: Millis,
    },
    /// For people.
    Dead { time: Millis },
}

/// All groups.
#[derive(Debug)]
pub(crate) struct Engine {
    bounds: Bounds,
    /// The last place or id given.
    last: u64,
    groups: BTreeMap<Arc<str>, Group>,
    /// Which groups want a topic; none is empty.
    wanted: HashMap<String, BTreeSet<Arc<str>>>,
    /// When delayed messages come again, and where they are.
    due: BTreeMap<(Millis, u64), Address>,
    consumers: HashMap<ConsumerId, Address>,
    /// What all groups have together.
    held: Amount,
    journal: Journal,
    told: Vec<(ConsumerId, Told)>,
}

impl Engine {
    /// Nothing yet.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            last: 0,
            groups: BTreeMap::new(),
            wanted: HashMap::new(),
            due: BTreeMap::new(),
            consumers: HashMap::new(),
            held: Amount::default(),
            journal: Journal::default(),
            told: Vec::new(),
        }
    }

    /// The last place or id given; later ones are larger, also in later runs.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// What was changed since this was last asked.
    pub(crate) fn take_journal(&mut self) -> Journal {
        std::mem::take(&mut self.journal)
    }

    /// What consumers are to be told, in order, once what was changed is on disk.
    pub(crate) fn take_told(&mut self) -> Vec<(ConsumerId, Told)> {
        std::mem::take(&mut self.told)
    }

    /// When [`Engine::wake`] has something to do.
    pub(crate) fn next_due(&self) -> Option<Millis> {
        self.due.first_key_value().map(|((due, _), _)| *due)
    }

    /// Makes a group, or has one want what is declared beside what it wants already.
    ///
    /// # Errors
    ///
    /// If it is there with another number of partitions, or there are too many groups.
    pub(crate) fn declare(&mut self, name: &str, mut declared: Declaration) -> Result<(), Refusal> {
        if let Some(group) = self.groups.get(name) {
            declared
                .topics
                .extend(group.declared.topics.iter().cloned());
        }
        self.narrow(name, declared)
    }

    /// As [`Engine::declare`], and has it want nothing else.
    ///
    /// # Errors
    ///
    /// As of [`Engine::declare`].
    pub(crate) fn narrow(&mut self, name: &str, declared: Declaration) -> Result<(), Refusal> {
        let (name, group) = match self.groups.get_key_value(name) {
            Some((name, group)) => (Arc::clone(name), Some(group)),
            None => (Arc::from(name), None),
        };
        let id = match group {
            Some(group) if group.declared.partitions != declared.partitions => {
                return Err(Refusal::OtherPartitions(group.declared.partitions));
            }
            Some(group) if group.declared == declared => return Ok(()),
            Some(group) => group.id,
            None if self.groups.len() >= self.bounds.groups => return Err(Refusal::GroupsMax),
            None => self.next(),
        };
        let row = Some((Arc::clone(&name), declared.clone()));
        self.journal.groups.insert(id, row);
        self.add_group(name, id, declared);
        Ok(())
    }

    fn add_group(&mut self, name: Arc<str>, id: u64, declared: Declaration) {
        self.unwant(&name);
        for topic in &declared.topics {
            let groups = self.wanted.entry(topic.clone()).or_default();
            groups.insert(Arc::clone(&name));
        }
        if let Some(group) = self.groups.get_mut(&name) {
            group.declared = declared;
            return;
        }
        let queues = (0..declared.partitions).map(|_| Queue::default());
        let group = Group {
            id,
            queues: queues.collect(),
            declared,
            dead: BTreeMap::new(),
            held: Amount::default(),
        };
        self.groups.insert(name, group);
    }

    /// Has a group want nothing.
    fn unwant(&mut self, name: &str) {
        let Some(group) = self.groups.get(name) else {
            return;
        };
        for topic in &group.declared.topics {
            if let Some(groups) = self.wanted.get_mut(topic) {
                groups.remove(name);
                if groups.is_empty() {
                    self.wanted.remove(topic);
                }
            }
        }
    }

    /// Removes a group with all that it keeps; its consumers are told.
    pub(crate) fn remove(&mut self, name: &str) {
        self.unwant(name);
        let Some(group) = self.groups.remove(name) else {
            return;
        };
        self.held = self.held.minus(group.held);
        self.due.retain(|_, address| &*address.group != name);
        for consumer in group.queues.iter().flat_map(Queue::consumers) {
            self.consumers.remove(&consumer);
            self.told.push((consumer, Told::Removed));
        }
        let of_group = (group.id, 0)..=(group.id, u64::MAX);
        let unwritten: Vec<_> = self
            .journal
            .kept
            .range(of_group)
            .map(|(at, _)| *at)
            .collect();
        for at in unwritten {
            self.journal.kept.remove(&at);
        }
        self.journal.groups.insert(group.id, None);
    }

    /// Takes a message: into every queue that wants it, or into none.
    pub(crate) fn publish(&mut self, message: &Arc<Message>) -> Outcome {
        let Some(wanting) = self.wanted.get(&message.topic) else {
            return Outcome::Unroutable;
        };
        let bucket = bucket(&message.key);
        let addresses = wanting.iter().filter_map(|name| {
            let partitions = self.groups.get(name)?.declared.partitions;
            let partition = bucket % partitions;
            let group = Arc::clone(name);
            Some(Address { group, partition })
        });
        let addresses: Vec<_> = addresses.collect();
        let cost = message.cost();
        // Groups first: what one of them keeps from others is told of it, and not of the broker.
        let full = addresses.iter().find(|address| self.is_full(address, cost));
        if let Some(address) = full {
            return Outcome::QueueFull(Arc::clone(&address.group));
        }
        if !Amount::of(addresses.len(), cost).fits(self.bounds.free(self.held)) {
            return Outcome::NoRoom;
        }
        for address in &addresses {
            self.add(address, Entry::new(Arc::clone(message)));
        }
        Outcome::Confirmed
    }

    /// Whether a group has no room for a message of this cost.
    fn is_full(&self, address: &Address, cost: usize) -> bool {
        self.groups.get(&address.group).is_some_and(|group| {
            let max = group.declared.queue_messages_max;
            let queue = group.queues.get(usize::from(address.partition));
            let held = group.held.plus(Amount::of(1, cost));
            max > 0 && queue.is_some_and(|queue| queue.len() >= max)
                || !held.fits(self.bounds.free(self.held))
        })
    }

    /// A copy has come to a group.
    fn count(&mut self, group: &str, message: &Message) {
        let amount = Amount::of(1, message.cost());
        self.held = self.held.plus(amount);
        if let Some(group) = self.groups.get_mut(group) {
            group.held = group.held.plus(amount);
        }
    }

    /// A copy has left a group.
    fn discount(&mut self, group: &str, message: &Message) {
        let amount = Amount::of(1, message.cost());
        self.held = self.held.minus(amount);
        if let Some(group) = self.groups.get_mut(group) {
            group.held = group.held.minus(amount);
        }
    }

    /// Puts an entry at the end of a queue.
    fn add(&mut self, address: &Address, entry: Entry) {
        let place = self.next();
        self.count(&address.group, &entry.message);
        let Some((group, queue)) = queue_of(&mut self.groups, address) else {
            return;
        };
        let kept = Kept {
            partition: address.partition,
            state: KeptState::Ready,
            message: Arc::clone(&entry.message),
        };
        self.journal.kept.insert((group, place), Some(kept));
        queue.push(place, entry);
        queue.hand_out(&mut self.told);
    }

    /// Adds a consumer to a queue: active if it is the first, else it waits.
    ///
    /// # Errors
    ///
    /// If there is no such queue, or there are too many consumers.
    pub(crate) fn subscribe(
        &mut self,
        id: ConsumerId,
        group: &str,
        partition: u16,
        prefetch: u16,
    ) -> Result<(), Refusal> {
        if self.consumers.len() >= self.bounds.consumers {
            return Err(Refusal::ConsumersMax);
        }
        let name = self.groups.get_key_value(group);
        let group = name.map(|(name, _)| Arc::clone(name));
        let group = group.ok_or(Refusal::NoQueue)?;
        let address = Address { group, partition };
        let (_, queue) = queue_of(&mut self.groups, &address).ok_or(Refusal::NoQueue)?;
        queue.join(Consumer::new(id, prefetch));
        queue.activate(&mut self.told);
        self.consumers.insert(id, address);
        Ok(())
    }

    /// Ends a consumer: what it has not settled comes again, and the next one has the queue.
    pub(crate) fn leave(&mut self, id: ConsumerId) {
        let Some(address) = self.consumers.remove(&id) else {
            return;
        };
        if let Some((_, queue)) = queue_of(&mut self.groups, &address) {
            queue.leave(id);
            queue.activate(&mut self.told);
        }
    }

    /// Has delayed messages come again whose time it is.
    pub(crate) fn wake(&mut self, now: Millis) {
        while let Some(entry) = self.due.first_entry().filter(|it| it.key().0 <= now) {
            let ((_, place), address) = entry.remove_entry();
            let Some((_, queue)) = queue_of(&mut self.groups, &address) else {
                continue;
            };
            let Some(entry) = queue.take_delayed(place) else {
                continue;
            };
            self.forget(&address.group, place, &entry.message);
            self.add(&address, entry);
        }
    }

    /// A copy is gone from where it was.
    fn forget(&mut self, group: &str, place: u64, message: &Message) {
        self.discount(group, message);
        if let Some(group) = self.groups.get(group) {
            self.journal.kept.insert((group.id, place), None);
        }
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

/// A queue, and the id of its group.
fn queue_of<'a>(
    groups: &'a mut BTreeMap<Arc<str>, Group>,
    address: &Address,
) -> Option<(u64, &'a mut Queue)> {
    let group = groups.get_mut(&address.group)?;
    let queue = group.queues.get_mut(usize::from(address.partition))?;
    Some((group.id, queue))
}

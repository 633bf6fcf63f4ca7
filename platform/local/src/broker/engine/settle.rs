//! What becomes of messages that were handed out, and of dead letters.

use std::sync::Arc;

use super::{
    Address, ConsumerId, Dead, Declaration, Engine, Entry, Fill, Headers, Kept, KeptState, Message,
    Millis, Queue, Refusal, queue_of,
};

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum How {
    /// It is done with.
    Ack,
    /// It stands where it stood.
    Requeue,
    /// It comes again after a time, with these headers set.
    Retry { pause: Millis, headers: Headers },
    /// It becomes a dead letter, with these headers set.
    Reject(Headers),
}

/// One group with its queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: Arc<str>,
    pub(crate) declared: Declaration,
    pub(crate) queues: Vec<Fill>,
    pub(crate) dead: usize,
}

impl Engine {
    /// Settles what a consumer was handed out.
    ///
    /// # Errors
    ///
    /// If it has nothing of that tag.
    pub(crate) fn settle(
        &mut self,
        consumer: ConsumerId,
        tag: u64,
        how: How,
        now: Millis,
    ) -> Result<(), Refusal> {
        let address = self.consumers.get(&consumer).cloned();
        let address = address.ok_or(Refusal::NoTag)?;
        let (_, queue) = queue_of(&mut self.groups, &address).ok_or(Refusal::NoTag)?;
        let (place, entry) = queue.take(consumer, tag).ok_or(Refusal::NoTag)?;
        match how {
            How::Ack => self.forget(&address.group, place, &entry.message),
            How::Requeue => queue.push(place, Entry::again(entry.message)),
            How::Retry { pause, headers } => {
                let entry = self.with_headers(&address.group, entry, headers);
                self.delay(&address, place, entry, pause, now);
            }
            How::Reject(headers) => {
                self.forget(&address.group, place, &entry.message);
                let message = with(entry.message, headers);
                self.bury(&address, message, now);
            }
        }
        if let Some((_, queue)) = queue_of(&mut self.groups, &address) {
            queue.hand_out(&mut self.told);
        }
        Ok(())
    }

    /// An entry with headers set, and its cost counted anew.
    fn with_headers(&mut self, group: &str, entry: Entry, headers: Headers) -> Entry {
        self.discount(group, &entry.message);
        let entry = Entry::again(with(entry.message, headers));
        self.count(group, &entry.message);
        entry
    }

    fn delay(&mut self, address: &Address, place: u64, entry: Entry, pause: Millis, now: Millis) {
        let due = now.saturating_add(pause);
        let kept = Kept {
            partition: address.partition,
            state: KeptState::Delayed { due, pause },
            message: Arc::clone(&entry.message),
        };
        let Some((group, queue)) = queue_of(&mut self.groups, address) else {
            return;
        };
        queue.delay(place, entry);
        self.due.insert((due, place), address.clone());
        self.journal.kept.insert((group, place), Some(kept));
    }

    fn bury(&mut self, address: &Address, message: Arc<Message>, now: Millis) {
        let place = self.next();
        self.count(&address.group, &message);
        let Some(group) = self.groups.get_mut(&address.group) else {
            return;
        };
        let kept = Kept {
            partition: address.partition,
            state: KeptState::Dead { time: now },
            message: Arc::clone(&message),
        };
        self.journal.kept.insert((group.id, place), Some(kept));
        let dead = Dead {
            partition: address.partition,
            time: now,
            message,
        };
        group.dead.insert(place, dead);
    }

    /// All groups, or the one of a name.
    pub(crate) fn groups(&self, name: Option<&str>) -> Vec<Listed> {
        let wanted = self.groups.iter();
        let wanted = wanted.filter(|(other, _)| name.is_none_or(|name| ***other == *name));
        let listed = wanted.map(|(name, group)| Listed {
            name: Arc::clone(name),
            declared: group.declared.clone(),
            queues: group.queues.iter().map(Queue::fill).collect(),
            dead: group.dead.len(),
        });
        listed.collect()
    }

    /// Dead letters of a group after a place, the oldest first.
    ///
    /// # Errors
    ///
    /// If there is no such group.
    pub(crate) fn dead_letters(
        &self,
        group: &str,
        after: u64,
    ) -> Result<impl Iterator<Item = (u64, &Dead)>, Refusal> {
        let group = self.groups.get(group).ok_or(Refusal::NoQueue)?;
        let after = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        let dead = group.dead.range(after);
        Ok(dead.map(|(place, dead)| (*place, dead)))
    }

    /// Puts a dead letter at the end of its queue, with these headers alone, or drops it where there
    /// are none.
    ///
    /// # Errors
    ///
    /// If it is not there.
    pub(crate) fn settle_dead(
        &mut self,
        group: &str,
        place: u64,
        headers: Option<Headers>,
    ) -> Result<(), Refusal> {
        let (name, _) = self.groups.get_key_value(group).ok_or(Refusal::NoQueue)?;
        let name = Arc::clone(name);
        let group = self.groups.get_mut(&name).ok_or(Refusal::NoQueue)?;
        let dead = group.dead.remove(&place).ok_or(Refusal::NoDeadLetter)?;
        self.forget(&name, place, &dead.message);
        if let Some(headers) = headers {
            let message = Message {
                headers,
                ..Message::clone(&dead.message)
            };
            let address = Address {
                group: name,
                partition: dead.partition,
            };
            self.add(&address, Entry::again(Arc::new(message)));
        }
        Ok(())
    }
}

/// A message with headers set or replaced.
fn with(message: Arc<Message>, headers: Headers) -> Arc<Message> {
    if headers.is_empty() {
        return message;
    }
    let mut message = Arc::unwrap_or_clone(message);
    message.headers.extend(headers);
    Arc::new(message)
}

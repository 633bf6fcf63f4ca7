//! The contract, as plainly as it can be said: one list of everything.

use std::{collections::BTreeMap, sync::Arc};

use super::super::{
    Bounds, ConsumerId, Dead, Declaration, Fill, Headers, How, Listed, Message, Millis, Outcome,
    Refusal, Told, bucket,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Out(ConsumerId, u64),
    Delayed(Millis),
    Dead(Millis),
}

#[derive(Debug, Clone)]
struct Copied {
    group: String,
    partition: u16,
    /// Where it stands among all.
    order: u64,
    /// When it began to wait, among those that come again at one moment.
    state: State,
    redelivered: bool,
    message: Message,
}

#[derive(Debug)]
struct Consumer {
    id: ConsumerId,
    group: String,
    partition: u16,
    prefetch: usize,
    active: bool,
    last_tag: u64,
}

#[derive(Debug)]
pub(super) struct Model {
    bounds: Bounds,
    groups: BTreeMap<String, Declaration>,
    copies: Vec<Copied>,
    /// In the order in which they came.
    consumers: Vec<Consumer>,
    last_order: u64,
    told: Vec<(ConsumerId, Told)>,
}

impl Model {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            groups: BTreeMap::new(),
            copies: Vec::new(),
            consumers: Vec::new(),
            last_order: 0,
            told: Vec::new(),
        }
    }

    pub(super) fn take_told(&mut self) -> Vec<(ConsumerId, Told)> {
        std::mem::take(&mut self.told)
    }

    fn next_order(&mut self) -> u64 {
        self.last_order += 1;
        self.last_order
    }

    pub(super) fn declare(
        &mut self,
        name: &str,
        declared: &Declaration,
        narrow: bool,
    ) -> Result<(), Refusal> {
        let mut declared = declared.clone();
        match self.groups.get(name) {
            Some(there) if there.partitions != declared.partitions => {
                return Err(Refusal::OtherPartitions(there.partitions));
            }
            None if self.groups.len() == self.bounds.groups => return Err(Refusal::GroupsMax),
            Some(there) if !narrow => {
                let before = there.topics.iter().cloned();
                declared.topics.extend(before);
            }
            _ => {}
        }
        self.groups.insert(name.to_owned(), declared);
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.groups.remove(name);
        self.copies.retain(|copy| copy.group != name);
        let mut gone: Vec<_> = Vec::new();
        self.consumers.retain(|consumer| {
            let stays = consumer.group != name;
            if !stays {
                gone.push((consumer.partition, consumer.id));
            }
            stays
        });
        // Queue by queue.
        gone.sort_by_key(|(partition, _)| *partition);
        let told = gone.into_iter().map(|(_, id)| (id, Told::Removed));
        self.told.extend(told);
    }

    pub(super) fn publish(&mut self, message: &Message) -> Outcome {
        let wanting: Vec<_> = self
            .groups
            .iter()
            .filter(|(_, it)| it.topics.contains(&message.topic))
            .map(|(name, it)| (name.clone(), it.clone()))
            .collect();
        if wanting.is_empty() {
            return Outcome::Unroutable;
        }
        let free = self.bounds.messages.saturating_sub(self.copies.len());
        for (name, declared) in &wanting {
            let partition = bucket(&message.key) % declared.partitions;
            let here = self.copies.iter().filter(|copy| {
                let dead = matches!(copy.state, State::Dead(_));
                copy.group == *name && copy.partition == partition && !dead
            });
            let here = u64::try_from(here.count()).unwrap();
            if declared.queue_messages_max > 0 && here >= declared.queue_messages_max {
                return Outcome::QueueFull(name.as_str().into());
            }
            // A group has no more than is free beside it.
            let of_group = self.copies.iter().filter(|copy| copy.group == *name);
            if of_group.count() + 1 > free {
                return Outcome::QueueFull(name.as_str().into());
            }
        }
        if wanting.len() > free {
            return Outcome::NoRoom;
        }
        for (name, declared) in wanting {
            let partition = bucket(&message.key) % declared.partitions;
            self.add(&name, partition, message.clone(), false);
        }
        Outcome::Confirmed
    }

    /// At the end of a queue.
    fn add(&mut self, group: &str, partition: u16, message: Message, redelivered: bool) {
        let order = self.next_order();
        self.copies.push(Copied {
            group: group.to_owned(),
            partition,
            order,
            state: State::Ready,
            redelivered,
            message,
        });
        self.hand_out(group, partition);
    }

    /// Whoever is first in line has what it has room for.
    fn hand_out(&mut self, group: &str, partition: u16) {
        let mut consumers = self.consumers.iter_mut();
        let first = consumers.find(|it| it.group == group && it.partition == partition);
        let Some(first) = first else { return };
        if !std::mem::replace(&mut first.active, true) {
            self.told.push((first.id, Told::Active));
        }
        loop {
            let ours = |it: &&mut Copied| it.group == group && it.partition == partition;
            let out = self.copies.iter_mut().filter(ours);
            let out = out.filter(|it| matches!(it.state, State::Out(..))).count();
            let ready = self.copies.iter_mut().filter(ours);
            let ready = ready.filter(|it| it.state == State::Ready);
            let Some(next) = ready.min_by_key(|it| it.order) else {
                return;
            };
            if out >= first.prefetch {
                return;
            }
            first.last_tag += 1;
            next.state = State::Out(first.id, first.last_tag);
            let delivered = Told::Delivered {
                tag: first.last_tag,
                message: Arc::new(next.message.clone()),
                redelivered: next.redelivered,
            };
            self.told.push((first.id, delivered));
        }
    }

    pub(super) fn subscribe(
        &mut self,
        id: ConsumerId,
        group: &str,
        partition: u16,
        prefetch: u16,
    ) -> Result<(), Refusal> {
        if self.consumers.len() == self.bounds.consumers {
            return Err(Refusal::ConsumersMax);
        }
        let there = self.groups.get(group);
        if there.is_none_or(|it| partition >= it.partitions) {
            return Err(Refusal::NoQueue);
        }
        self.consumers.push(Consumer {
            id,
            group: group.to_owned(),
            partition,
            prefetch: prefetch.into(),
            active: false,
            last_tag: 0,
        });
        self.hand_out(group, partition);
        Ok(())
    }

    pub(super) fn consumers(&self) -> impl Iterator<Item = ConsumerId> {
        self.consumers.iter().map(|consumer| consumer.id)
    }

    pub(super) fn leave(&mut self, id: ConsumerId) {
        let at = self.consumers.iter().position(|it| it.id == id);
        let Some(at) = at else { return };
        let gone = self.consumers.remove(at);
        for copy in &mut self.copies {
            if matches!(copy.state, State::Out(out, _) if out == id) {
                copy.state = State::Ready;
                copy.redelivered = true;
            }
        }
        self.hand_out(&gone.group, gone.partition);
    }

    pub(super) fn handed_out(&self) -> impl Iterator<Item = (ConsumerId, u64)> {
        self.copies.iter().filter_map(|copy| match copy.state {
            State::Out(id, tag) => Some((id, tag)),
            _ => None,
        })
    }

    pub(super) fn settle(
        &mut self,
        id: ConsumerId,
        tag: u64,
        how: &How,
        now: Millis,
    ) -> Result<(), Refusal> {
        let out = State::Out(id, tag);
        let at = self.copies.iter().position(|copy| copy.state == out);
        let mut copy = self.copies.remove(at.ok_or(Refusal::NoTag)?);
        let (group, partition) = (copy.group.clone(), copy.partition);
        copy.redelivered = true;
        match how {
            How::Ack => {}
            How::Requeue => {
                copy.state = State::Ready;
                self.copies.push(copy);
            }
            How::Retry { pause, headers } => {
                copy.state = State::Delayed(now + pause);
                copy.message.headers.extend(headers.clone());
                self.copies.push(copy);
            }
            How::Reject(headers) => {
                copy.state = State::Dead(now);
                copy.order = self.next_order();
                copy.message.headers.extend(headers.clone());
                self.copies.push(copy);
            }
        }
        self.hand_out(&group, partition);
        Ok(())
    }

    pub(super) fn wake(&mut self, now: Millis) {
        loop {
            let due = self.copies.iter().enumerate();
            let due = due.filter_map(|(at, copy)| match copy.state {
                State::Delayed(due) if due <= now => Some((due, copy.order, at)),
                _ => None,
            });
            let Some((.., at)) = due.min() else { return };
            let copy = self.copies.remove(at);
            self.add(&copy.group, copy.partition, copy.message, true);
        }
    }

    fn dead(&self, group: &str) -> Vec<&Copied> {
        let dead = self.copies.iter();
        let dead = dead.filter(|it| it.group == group && matches!(it.state, State::Dead(_)));
        let mut dead: Vec<_> = dead.collect();
        dead.sort_by_key(|copy| copy.order);
        dead
    }

    pub(super) fn dead_letters(&self, group: &str) -> Vec<Dead> {
        let dead = self.dead(group).into_iter();
        let dead = dead.filter_map(|copy| match copy.state {
            State::Dead(time) => Some(Dead {
                partition: copy.partition,
                time,
                message: Arc::new(copy.message.clone()),
            }),
            _ => None,
        });
        dead.collect()
    }

    pub(super) fn settle_oldest_dead(
        &mut self,
        group: &str,
        headers: Option<&Headers>,
    ) -> Result<(), Refusal> {
        if !self.groups.contains_key(group) {
            return Err(Refusal::NoQueue);
        }
        let oldest = self.dead(group).first().map(|copy| copy.order);
        let oldest = oldest.ok_or(Refusal::NoDeadLetter)?;
        let at = self.copies.iter().position(|copy| copy.order == oldest);
        let mut copy = self.copies.remove(at.unwrap());
        if let Some(headers) = headers {
            copy.message.headers.clone_from(headers);
            self.add(group, copy.partition, copy.message, true);
        }
        Ok(())
    }

    pub(super) fn groups(&self) -> Vec<Listed> {
        let groups = self.groups.iter().map(|(name, declared)| {
            let queue = |partition: u16| {
                let here = |copy: &&Copied| copy.group == *name && copy.partition == partition;
                let count = |state: fn(&State) -> bool| {
                    let copies = self.copies.iter().filter(here);
                    copies.filter(|copy| state(&copy.state)).count()
                };
                let mut consumers = 0;
                for it in &self.consumers {
                    consumers += usize::from(it.group == *name && it.partition == partition);
                }
                Fill {
                    ready: count(|state| *state == State::Ready),
                    unsettled: count(|state| matches!(state, State::Out(..))),
                    delayed: count(|state| matches!(state, State::Delayed(_))),
                    consumers,
                }
            };
            Listed {
                name: name.as_str().into(),
                declared: declared.clone(),
                queues: (0..declared.partitions).map(queue).collect(),
                dead: self.dead(name).len(),
            }
        });
        groups.collect()
    }

    /// From what is on disk: consumers are gone, and anything may have been handed out.
    pub(super) fn restart(&mut self) {
        self.consumers.clear();
        self.told.clear();
        for copy in &mut self.copies {
            if matches!(copy.state, State::Out(..)) {
                copy.state = State::Ready;
            }
            copy.redelivered = true;
        }
    }
}

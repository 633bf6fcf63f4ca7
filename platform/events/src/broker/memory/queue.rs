//! One queue, as a pure state: who has its messages, and which come next.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::{Duration, Instant};

use crate::{
    Message,
    broker::{BrokerError, Delivery, Headers, Settle, Tag},
};

/// Where a message stands in its queue. A copy that a fault makes stands right behind it.
type Place = (u64, u8);

/// A message in a queue.
#[derive(Debug, Clone)]
struct Kept {
    message: Message,
    redelivered: bool,
}

/// What is wrong with a message that is handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wrong {
    /// A copy of it comes next.
    pub(super) doubled: bool,
    /// The one behind it comes first.
    pub(super) swapped: bool,
}

/// A queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    ready: BTreeMap<Place, Kept>,
    /// By when they come again, and their number among those that do.
    delayed: BTreeMap<(Instant, u64), Kept>,
    /// Handed out to whoever is first of `subscribers`.
    unsettled: BTreeMap<Tag, (Place, Kept)>,
    /// Who wants messages; the first has them.
    subscribers: VecDeque<u64>,
    /// Counts places, delays and tags.
    count: u64,
}

impl Queue {
    fn next_count(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// Puts a message at the end.
    pub(super) fn push(&mut self, message: Message, redelivered: bool) {
        let place = (self.next_count(), 0);
        let kept = Kept {
            message,
            redelivered,
        };
        self.ready.insert(place, kept);
    }

    /// Messages in it, wherever they are.
    pub(super) fn len(&self) -> usize {
        self.ready.len() + self.delayed.len() + self.unsettled.len()
    }

    /// Messages that wait, are handed out, and come again later.
    pub(super) fn fill(&self) -> (u64, u64, u64) {
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        (
            count(self.ready.len()),
            count(self.unsettled.len()),
            count(self.delayed.len()),
        )
    }

    /// Who wants its messages, those who wait for their turn too.
    pub(super) fn subscribers(&self) -> u64 {
        u64::try_from(self.subscribers.len()).unwrap_or(u64::MAX)
    }

    /// Puts those whose time has come at the end.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry()
            && entry.key().0 <= now
        {
            let kept = entry.remove();
            self.push(kept.message, true);
        }
    }

    /// When the next one comes again.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.delayed.first_key_value().map(|(key, _)| key.0)
    }

    pub(super) fn subscribe(&mut self, subscriber: u64) {
        self.subscribers.push_back(subscriber);
    }

    pub(super) fn is_subscribed(&self, subscriber: u64) -> bool {
        self.subscribers.contains(&subscriber)
    }

    /// Ends a subscription; what it has comes again, in its old order and first.
    pub(super) fn unsubscribe(&mut self, subscriber: u64) {
        if self.subscribers.front() == Some(&subscriber) {
            for (place, kept) in std::mem::take(&mut self.unsettled).into_values() {
                self.put_back(place, kept);
            }
        }
        self.subscribers.retain(|it| *it != subscriber);
    }

    /// Ends all subscriptions.
    pub(super) fn unsubscribe_all(&mut self) {
        while let Some(first) = self.subscribers.front().copied() {
            self.unsubscribe(first);
        }
    }

    fn put_back(&mut self, place: Place, kept: Kept) {
        let kept = Kept {
            redelivered: true,
            ..kept
        };
        self.ready.insert(place, kept);
    }

    /// Whether there is a message for `subscriber`.
    pub(super) fn has_for(&self, subscriber: u64, prefetch: u16) -> bool {
        self.subscribers.front() == Some(&subscriber)
            && self.unsettled.len() < usize::from(prefetch.max(1))
            && !self.ready.is_empty()
    }

    /// Hands out a message, where there is one.
    pub(super) fn hand_out(&mut self, wrong: Wrong) -> Option<Delivery> {
        let place = *self
            .ready
            .keys()
            .nth(usize::from(wrong.swapped))
            .or_else(|| self.ready.keys().next())?;
        let kept = self.ready.remove(&place)?;
        if wrong.doubled && place.1 == 0 {
            self.put_back((place.0, 1), kept.clone());
        }
        let tag = Tag(self.next_count());
        let delivery = Delivery {
            tag,
            message: kept.message.clone(),
            redelivered: kept.redelivered,
        };
        self.unsettled.insert(tag, (place, kept));
        Some(delivery)
    }

    /// Settles a message of `subscriber`; answers it where it is a dead letter now.
    pub(super) fn settle(
        &mut self,
        subscriber: u64,
        tag: Tag,
        how: Settle,
        now: Instant,
    ) -> Result<Option<Message>, BrokerError> {
        if self.subscribers.front() != Some(&subscriber) {
            return Err(BrokerError::Disconnected(
                "the subscription has ended".into(),
            ));
        }
        let Some((place, mut kept)) = self.unsettled.remove(&tag) else {
            return Err(BrokerError::Missing("the message".to_owned()));
        };
        match how {
            Settle::Ack => Ok(None),
            Settle::Requeue => {
                self.put_back(place, kept);
                Ok(None)
            }
            Settle::Retry { after, headers } => {
                kept.message.headers.extend(headers);
                self.delay(kept, now, after);
                Ok(None)
            }
            Settle::Reject(headers) => Ok(Some(dead(kept.message, headers))),
        }
    }

    fn delay(&mut self, kept: Kept, now: Instant, after: Duration) {
        let number = self.next_count();
        self.delayed.insert((now + after, number), kept);
    }
}

fn dead(mut message: Message, headers: Headers) -> Message {
    message.headers.extend(headers);
    message
}

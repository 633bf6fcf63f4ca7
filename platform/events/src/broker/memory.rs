//! A broker in memory, for tests: complete, deterministic, and faulty where a test wants it.
//!
//! It keeps what a [broker](super) promises, on tokio's clock. Faults come as they are
//! [scripted](Memory::script), one for each publication or delivery, and beyond the script by
//! [chance](Memory::chances), out of a seed. What it has taken is kept for tests to look at.

mod queue;
mod state;
mod tail;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{
    sync::Notify,
    time::{self, Duration, Instant},
};

use self::{
    queue::Wrong,
    state::{At, State},
    tail::Looking,
};
use super::{
    Broker, BrokerError, DeadLetter, Delivery, Fill, Group, Headers, PublishError, Settle, Settler,
    Subscription, Tag, Tail, Work,
};
use crate::Message;

/// What becomes of one publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPublish {
    /// It is taken and confirmed.
    Take,
    /// It is refused, as where a queue is full.
    Refuse,
    /// It is told to be unroutable.
    Unroutable,
    /// It is told that the broker takes nothing.
    Block,
    /// It is lost on its way, and no answer comes.
    LoseMessage,
    /// It is taken, and no answer comes.
    LoseConfirmation,
    /// The connection breaks off before it is taken, and with it all subscriptions; there is another
    /// one at once.
    DisconnectBefore,
    /// The connection breaks off once it is taken, and with it all subscriptions; there is another one
    /// at once.
    DisconnectAfter,
}

/// What becomes of one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDelivery {
    /// It is as it should be.
    Give,
    /// A copy of it comes next.
    Double,
    /// The message behind it comes first, whatever their keys.
    Swap,
    /// The subscription ends in its place.
    End,
}

/// What becomes of one message that is to be settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSettle {
    /// It is settled.
    Settle,
    /// It is told that it is not, and it is not.
    Fail,
    /// It is not, and no answer comes.
    Hang,
}

/// How likely each fault is, from 0 to 1, where nothing is scripted. They are tried in this order.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Chances {
    /// [`OnPublish::Refuse`].
    pub refuse: f64,
    /// [`OnPublish::Unroutable`].
    pub unroutable: f64,
    /// [`OnPublish::Block`].
    pub block: f64,
    /// [`OnPublish::LoseMessage`].
    pub lose_message: f64,
    /// [`OnPublish::LoseConfirmation`].
    pub lose_confirmation: f64,
    /// [`OnPublish::DisconnectBefore`], and as often [`OnPublish::DisconnectAfter`].
    pub disconnect: f64,
    /// [`OnDelivery::Double`].
    pub double: f64,
    /// [`OnDelivery::Swap`].
    pub swap: f64,
    /// [`OnDelivery::End`].
    pub end: f64,
}

/// A broker in memory; clones share it.
#[derive(Debug, Clone)]
pub struct Memory {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Told whenever a subscription may have something to hand out, or has ended.
    changed: Notify,
}

impl Memory {
    /// A broker without groups, whose chances come out of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State::new(seed)),
                changed: Notify::new(),
            }),
        }
    }

    /// What becomes of the next publications, one after the other.
    pub fn script(&self, publications: impl IntoIterator<Item = OnPublish>) {
        self.shared.lock().publications.extend(publications);
    }

    /// What becomes of the next deliveries, one after the other, in whichever queue.
    pub fn script_deliveries(&self, deliveries: impl IntoIterator<Item = OnDelivery>) {
        self.shared.lock().deliveries.extend(deliveries);
    }

    /// What becomes of the next messages that are to be settled, one after the other, in whichever queue.
    pub fn script_settling(&self, settling: impl IntoIterator<Item = OnSettle>) {
        self.shared.lock().settling.extend(settling);
    }

    /// How likely faults are from now on, where nothing is scripted.
    pub fn chances(&self, chances: Chances) {
        self.shared.lock().chances = chances;
    }

    /// How long a confirmation takes to come from now on, and how long one that is lost is waited for.
    pub fn timing(&self, latency: Duration, confirm_timeout: Duration) {
        let mut state = self.shared.lock();
        state.latency = latency;
        state.confirm_timeout = confirm_timeout;
    }

    /// Ends all subscriptions, and fails whatever is asked until [`Memory::reconnect`].
    pub fn disconnect(&self) {
        self.shared.lock().break_off(false);
        self.shared.changed.notify_waiters();
    }

    /// Ends the time of [`Memory::disconnect`].
    pub fn reconnect(&self) {
        self.shared.lock().connected = true;
    }

    /// Says nothing of groups while `silent`; whoever asks waits.
    pub fn hush(&self, silent: bool) {
        self.shared.lock().silent = silent;
        self.shared.changed.notify_waiters();
    }

    /// Takes no publication while `blocked`.
    pub fn block(&self, blocked: bool) {
        self.shared.lock().blocked = blocked;
    }

    /// Refuses every message of a key from now on.
    pub fn refuse(&self, key: &str) {
        self.shared.lock().refused.insert(key.to_owned());
    }

    /// All messages that were taken, in their order; those that were taken twice are there twice.
    #[must_use]
    pub fn taken(&self) -> Vec<Message> {
        self.shared.lock().taken.clone()
    }

    /// What a group wants; nothing where there is no such group.
    #[must_use]
    pub fn topics(&self, group: &str) -> Vec<String> {
        let mut state = self.shared.lock();
        let kept = state.kept(group);
        kept.map_or_else(|_| Vec::new(), |kept| kept.topics().to_vec())
    }

    /// How many publications there were, taken or not.
    #[must_use]
    pub fn publications(&self) -> u64 {
        self.shared.lock().asked
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` while the broker can be reached.
    fn reached<T>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let mut state = self.lock();
        if !state.connected {
            return Err(BrokerError::Disconnected("as scripted".into()));
        }
        state.wake();
        let done = work(&mut state);
        drop(state);
        self.changed.notify_waiters();
        done
    }
}

impl Broker for Memory {
    fn declare<'a>(&'a self, group: &'a Group) -> Work<'a, Result<(), BrokerError>> {
        Box::pin(async move { self.shared.reached(|state| state.declare(group, true)) })
    }

    fn narrow<'a>(&'a self, group: &'a Group) -> Work<'a, Result<(), BrokerError>> {
        Box::pin(async move { self.shared.reached(|state| state.declare(group, false)) })
    }

    fn publish_by(
        &self,
        epoch: Option<u64>,
        message: Message,
    ) -> Work<'_, Result<(), PublishError>> {
        Box::pin(async move {
            let (after, answer) = self.shared.lock().publish(epoch, &message);
            self.shared.changed.notify_waiters();
            if !after.is_zero() {
                time::sleep(after).await;
            }
            answer
        })
    }

    fn epoch(&self) -> Work<'_, Result<u64, BrokerError>> {
        Box::pin(async move { self.shared.reached(|state| Ok(state.epoch)) })
    }

    fn subscribe<'a>(
        &'a self,
        group: &'a str,
        partition: u16,
        prefetch: u16,
    ) -> Work<'a, Result<Box<dyn Subscription>, BrokerError>> {
        Box::pin(async move {
            let at = (group.to_owned(), partition);
            let number = self.shared.reached(|state| {
                state.subscriptions += 1;
                let number = state.subscriptions;
                state.queue(&at)?.subscribe(number);
                Ok(number)
            })?;
            let one = One {
                shared: Arc::clone(&self.shared),
                at,
                number,
            };
            let subscription: Box<dyn Subscription> = Box::new(Subscribed { one, prefetch });
            Ok(subscription)
        })
    }

    fn fill<'a>(&'a self, group: &'a str) -> Work<'a, Result<Fill, BrokerError>> {
        Box::pin(async move {
            loop {
                // Before the look: what changes after it is not missed.
                let changed = self.shared.changed.notified();
                if !self.shared.lock().silent {
                    break;
                }
                changed.await;
            }
            self.shared
                .reached(|state| state.kept(group).map(|kept| kept.fill()))
        })
    }

    fn dead_letters<'a>(
        &'a self,
        group: &'a str,
        after: u64,
        count_max: u16,
    ) -> Work<'a, Result<Vec<DeadLetter>, BrokerError>> {
        Box::pin(async move {
            self.shared.reached(|state| {
                let letters = state.kept(group)?.dead.range(after.saturating_add(1)..);
                let letters = letters.map(|(_, letter)| letter.clone());
                Ok(letters.take(usize::from(count_max)).collect())
            })
        })
    }

    fn settle_dead_letter<'a>(
        &'a self,
        group: &'a str,
        letter: &'a DeadLetter,
        headers: Option<Headers>,
    ) -> Work<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            self.shared.reached(|state| {
                let kept = state.kept(group)?;
                let Some(mut found) = kept.dead.remove(&letter.place) else {
                    return Err(BrokerError::Missing("the dead letter".to_owned()));
                };
                if let Some(headers) = headers {
                    found.message.headers = headers;
                    kept.queues[usize::from(found.partition)].push(found.message, false);
                }
                Ok(())
            })
        })
    }

    fn remove<'a>(&'a self, group: &'a str) -> Work<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            self.shared.reached(|state| {
                state.groups.remove(group);
                Ok(())
            })
        })
    }

    fn groups(&self) -> Work<'_, Result<Option<Vec<String>>, BrokerError>> {
        Box::pin(async move {
            self.shared
                .reached(|state| Ok(Some(state.groups.keys().cloned().collect())))
        })
    }

    fn tail<'a>(&'a self, topics: &'a [String]) -> Work<'a, Result<Box<dyn Tail>, BrokerError>> {
        Box::pin(async move {
            self.shared.reached(|state| {
                let tail: Box<dyn Tail> = Box::new(Looking::new(&self.shared, topics, state));
                Ok(tail)
            })
        })
    }

    fn ping(&self) -> Work<'_, Result<(), BrokerError>> {
        Box::pin(async move { self.shared.reached(|_| Ok(())) })
    }
}

/// One subscription, as it and what settles its messages know it.
#[derive(Debug, Clone)]
struct One {
    shared: Arc<Shared>,
    at: At,
    number: u64,
}

#[derive(Debug)]
struct Subscribed {
    one: One,
    prefetch: u16,
}

/// What a look at the queue found.
enum Found {
    Message(Delivery),
    Ended,
    Nothing { wakes_at: Option<Instant> },
}

impl Subscribed {
    fn look(&self) -> Found {
        let One { shared, at, number } = &self.one;
        let mut state = shared.lock();
        state.wake();
        let Ok(queue) = state.queue(at) else {
            return Found::Ended;
        };
        if !queue.is_subscribed(*number) {
            return Found::Ended;
        }
        if !queue.has_for(*number, self.prefetch) {
            return Found::Nothing {
                wakes_at: queue.wakes_at(),
            };
        }
        let what = state.on_delivery();
        let Ok(queue) = state.queue(at) else {
            return Found::Ended;
        };
        if what == OnDelivery::End {
            queue.unsubscribe(*number);
            drop(state);
            shared.changed.notify_waiters();
            return Found::Ended;
        }
        let wrong = Wrong {
            doubled: what == OnDelivery::Double,
            swapped: what == OnDelivery::Swap,
        };
        queue.hand_out(wrong).map_or(Found::Ended, Found::Message)
    }
}

impl Subscription for Subscribed {
    fn next(&mut self) -> Work<'_, Option<Delivery>> {
        Box::pin(async move {
            loop {
                // Before the look: what changes after it is not missed.
                let changed = self.one.shared.changed.notified();
                match self.look() {
                    Found::Message(delivery) => return Some(delivery),
                    Found::Ended => return None,
                    Found::Nothing { wakes_at: None } => changed.await,
                    Found::Nothing { wakes_at: Some(at) } => {
                        drop(time::timeout_at(at, changed).await);
                    }
                }
            }
        })
    }

    fn settler(&self) -> Box<dyn Settler> {
        Box::new(self.one.clone())
    }
}

impl Settler for One {
    fn settle(&self, tag: Tag, how: Settle) -> Work<'_, Result<(), BrokerError>> {
        Box::pin(async move {
            let what = self.shared.lock().settling.pop_front();
            match what.unwrap_or(OnSettle::Settle) {
                OnSettle::Settle => {}
                OnSettle::Fail => return Err(BrokerError::Disconnected("as scripted".into())),
                OnSettle::Hang => std::future::pending().await,
            }
            self.shared.reached(|state| {
                let now = Instant::now();
                let settled = state.queue(&self.at)?.settle(self.number, tag, how, now)?;
                if let Some(message) = settled {
                    let (group, partition) = &self.at;
                    state.kept(group)?.bury(*partition, message);
                }
                Ok(())
            })
        })
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        let One { shared, at, number } = &self.one;
        let mut state = shared.lock();
        if let Ok(queue) = state.queue(at) {
            queue.unsubscribe(*number);
        }
        drop(state);
        shared.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;

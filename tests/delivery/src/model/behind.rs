//! A broker behind the gate of a process.

use std::{sync::Arc, time::Duration};

use gantry_events::{
    Message,
    broker::{
        Broker, BrokerError, DeadLetter, Delivery, Fill, Group, Headers, PublishError, Settle,
        Settler, Subscription, Tag, Tail, Work,
    },
};

use super::gate::{Gate, Point};

/// A broker as a process has it.
#[derive(Debug)]
pub(super) struct Behind<B> {
    pub(super) gate: Arc<Gate>,
    pub(super) broker: B,
}

impl<B: Broker> Behind<B> {
    fn count(&self, published: Result<&(), &PublishError>) {
        let what = match published {
            Ok(()) => "confirmed",
            Err(PublishError::Unroutable) => "unroutable",
            Err(PublishError::Refused(_)) => "refused",
            Err(PublishError::Blocked { .. }) => "blocked",
            Err(PublishError::Awaiting(_)) => "awaiting a group",
            Err(PublishError::Denied(_)) => "denied",
            Err(PublishError::TimedOut) => "not confirmed in time",
            Err(PublishError::Disconnected(_)) => "disconnected while publishing",
        };
        self.gate.run.counts.one(what);
    }
}

impl<B: Broker> Broker for Behind<B> {
    fn system(&self) -> &'static str {
        self.broker.system()
    }

    fn pauses(&self) -> &'static [Duration] {
        self.broker.pauses()
    }

    fn declare<'a>(&'a self, group: &'a Group) -> Work<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            self.gate.pass().await;
            self.broker.declare(group).await
        })
    }

    fn narrow<'a>(&'a self, group: &'a Group) -> Work<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            self.gate.pass().await;
            self.broker.narrow(group).await
        })
    }

    fn publish_by(
        &self,
        epoch: Option<u64>,
        message: Message,
    ) -> Work<'_, Result<(), PublishError>> {
        Box::pin(async move {
            self.gate.pass().await;
            self.gate.reach(Point::P3).await;
            let published = self.broker.publish_by(epoch, message).await;
            if published.is_ok() {
                self.gate.reach(Point::P4).await;
            }
            self.gate.pass().await;
            self.count(published.as_ref());
            published
        })
    }

    fn epoch(&self) -> Work<'_, Result<u64, BrokerError>> {
        self.broker.epoch()
    }

    fn subscribe<'a>(
        &'a self,
        group: &'a str,
        partition: u16,
        prefetch: u16,
    ) -> Work<'a, Result<Box<dyn Subscription>, BrokerError>> {
        Box::pin(async move {
            self.gate.pass().await;
            let inner = self.broker.subscribe(group, partition, prefetch).await?;
            let subscription: Box<dyn Subscription> = Box::new(Messages {
                gate: Arc::clone(&self.gate),
                inner,
                next: None,
            });
            Ok(subscription)
        })
    }

    fn fill<'a>(&'a self, group: &'a str) -> Work<'a, Result<Fill, BrokerError>> {
        self.broker.fill(group)
    }

    fn dead_letters<'a>(
        &'a self,
        group: &'a str,
        after: u64,
        count_max: u16,
    ) -> Work<'a, Result<Vec<DeadLetter>, BrokerError>> {
        self.broker.dead_letters(group, after, count_max)
    }

    fn settle_dead_letter<'a>(
        &'a self,
        group: &'a str,
        letter: &'a DeadLetter,
        headers: Option<Headers>,
    ) -> Work<'a, Result<(), BrokerError>> {
        self.broker.settle_dead_letter(group, letter, headers)
    }

    fn remove<'a>(&'a self, group: &'a str) -> Work<'a, Result<(), BrokerError>> {
        self.broker.remove(group)
    }

    fn groups(&self) -> Work<'_, Result<Option<Vec<String>>, BrokerError>> {
        self.broker.groups()
    }

    fn tail<'a>(&'a self, topics: &'a [String]) -> Work<'a, Result<Box<dyn Tail>, BrokerError>> {
        self.broker.tail(topics)
    }

    fn ping(&self) -> Work<'_, Result<(), BrokerError>> {
        self.broker.ping()
    }
}

#[derive(Debug)]
struct Messages {
    gate: Arc<Gate>,
    inner: Box<dyn Subscription>,
    /// Handed out, and not yet seen by a process that stands still.
    next: Option<Delivery>,
}

impl Subscription for Messages {
    fn next(&mut self) -> Work<'_, Option<Delivery>> {
        Box::pin(async move {
            loop {
                self.gate.pass().await;
                if let Some(next) = self.next.take() {
                    return Some(next);
                }
                let next = self.inner.next().await;
                if next.is_none() {
                    self.gate.run.counts.one("subscriptions ended");
                    self.gate.pass().await;
                    return None;
                }
                self.next = next;
            }
        })
    }

    fn settler(&self) -> Box<dyn Settler> {
        Box::new(Settling {
            gate: Arc::clone(&self.gate),
            inner: self.inner.settler(),
        })
    }
}

#[derive(Debug)]
struct Settling {
    gate: Arc<Gate>,
    inner: Box<dyn Settler>,
}

impl Settler for Settling {
    fn settle(&self, tag: Tag, how: Settle) -> Work<'_, Result<(), BrokerError>> {
        Box::pin(async move {
            self.gate.pass().await;
            let settled = self.inner.settle(tag, how).await;
            self.gate.reach(Point::C4).await;
            settled
        })
    }
}

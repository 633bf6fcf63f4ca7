//! The door to a broker: writes down what passes, and plays tricks that the broker would not.
//!
//! A trick never breaks what brokers promise: messages of one key keep their order, but for copies of
//! what came before, which may come at any time.
//!
//! A process can be had to end at the point `door.p4`: the broker has taken a message, and nobody here
//! knows yet.

mod subscription;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gantry::{crash, status::chain};
use gantry_events::{
    Message,
    broker::{
        Broker, BrokerError, Connection, DeadLetter, Fill, Group, Headers, PublishError,
        Subscription, Tail, Work,
    },
    headers,
};
use gantry_store::Timestamp;
use tokio_util::sync::CancellationToken;

use self::subscription::Watched;
use crate::log::{Line, Log};

/// How often something is done to deliveries, in percent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tricks {
    /// A copy of it comes later.
    pub(crate) double: u8,
    /// The next one of another key comes first.
    pub(crate) swap: u8,
    /// What decides.
    pub(crate) seed: u64,
}

/// A broker behind its door.
#[derive(Debug)]
pub(crate) struct Door {
    broker: Arc<dyn Broker>,
    log: Arc<Log>,
    tricks: Tricks,
    numbers: Arc<Numbers>,
}

/// Numbers of what passes, for the log.
#[derive(Debug, Default)]
struct Numbers(AtomicU64);

impl Numbers {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

impl Door {
    pub(crate) fn of(broker: Arc<dyn Broker>, log: Arc<Log>, tricks: Tricks) -> Self {
        Self {
            broker,
            log,
            tricks,
            numbers: Arc::default(),
        }
    }
}

/// The identifier of a message's event.
fn event_id(message: &Message) -> String {
    message
        .headers
        .get(headers::ID)
        .cloned()
        .unwrap_or_default()
}

/// The time for the log.
fn now() -> i64 {
    Timestamp::now().micros()
}

/// An error with its causes.
fn told(error: &(impl std::error::Error + 'static)) -> String {
    chain(error)
}

impl Broker for Door {
    fn system(&self) -> &'static str {
        self.broker.system()
    }

    fn connections(&self) -> Vec<Connection> {
        self.broker.connections()
    }

    fn pauses(&self) -> &'static [Duration] {
        self.broker.pauses()
    }

    fn declare<'a>(&'a self, group: &'a Group) -> Work<'a, Result<(), BrokerError>> {
        self.broker.declare(group)
    }

    fn narrow<'a>(&'a self, group: &'a Group) -> Work<'a, Result<(), BrokerError>> {
        self.broker.narrow(group)
    }

    fn publish_by(
        &self,
        epoch: Option<u64>,
        message: Message,
    ) -> Work<'_, Result<(), PublishError>> {
        Box::pin(async move {
            let number = self.numbers.next();
            let event_id = event_id(&message);
            let at = now();
            self.log.add(&Line::Publish {
                number,
                event_id,
                at,
            });
            let published = self.broker.publish_by(epoch, message).await;
            if published.is_ok() {
                crash::point("door.p4");
            }
            self.log.add(&match &published {
                Ok(()) => Line::Confirmed { number },
                Err(error) => {
                    let error = told(error);
                    Line::NotConfirmed { number, error }
                }
            });
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
            let inner = self.broker.subscribe(group, partition, prefetch).await?;
            let number = self.numbers.next();
            let watched = Watched::new(
                inner,
                Arc::clone(&self.log),
                Arc::clone(&self.numbers),
                Tricks {
                    seed: self.tricks.seed.wrapping_add(number),
                    ..self.tricks
                },
            );
            let subscription: Box<dyn Subscription> = Box::new(watched);
            Ok(subscription)
        })
    }

    fn restore<'a>(
        &'a self,
        group: &'a Group,
        partition: u16,
    ) -> Work<'a, Result<(), BrokerError>> {
        self.broker.restore(group, partition)
    }

    fn tend<'a>(&'a self, group: &'a Group, stop: &'a CancellationToken) -> Work<'a, ()> {
        self.broker.tend(group, stop)
    }

    fn fill<'a>(&'a self, group: &'a str) -> Work<'a, Result<Fill, BrokerError>> {
        self.broker.fill(group)
    }

    fn knows<'a>(&'a self, group: &'a str) -> Work<'a, Result<bool, BrokerError>> {
        self.broker.knows(group)
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

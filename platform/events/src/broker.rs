//! What carries messages from outboxes to consumers: one trait, and one suite of tests for all that
//! implement it.
//!
//! A *group* is who consumes, as in `notifications.notices`: it wants some topics, and has a number of
//! queues, its *partitions*, over which messages are spread by [`bucket`](crate::bucket) of their key:
//! partition `bucket % partitions`. Of each message every group that wants its topic has one copy.
//!
//! What every broker promises:
//!
//! - What is confirmed is on disk in every queue that wants it, and is handed out until it is settled.
//! - A queue hands its messages to one subscription at a time, in the order in which they were
//!   published. Further subscriptions wait until that one is gone.
//! - A message that was handed out and not settled when its subscription ends, comes again, marked
//!   [`Delivery::redelivered`], before those behind it.
//! - At most `prefetch` messages are handed out and not settled.
//! - A message of which [`Settle::Retry`] is asked comes again after that time at the end of its queue;
//!   one that is [rejected](Settle::Reject) becomes a dead letter of its group.
//! - Messages may come more than once; they never come to be lost.

mod config;
#[cfg(feature = "testing")]
pub mod contract;
mod local;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
mod rabbit;

use std::{collections::BTreeMap, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use gantry::{BoxError, config::Live, journal::Journal, shutdown::Tasks};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Message, headers::SUBJECT};
use config::plain;
pub use config::{Config, Login, Scheme, Url, UrlError};

/// The broker that `config` names. Nothing waits and nothing fails here; it is connected in the
/// background.
///
/// What it does belongs to `tasks`: once those are stopped, nothing is published, handed out or
/// settled any more. Stop them after whoever uses it has ended.
#[must_use]
pub fn connect(config: &Live<Config>, tasks: &Tasks, journal: &Journal) -> Arc<dyn Broker> {
    match config.read(|config| config.url.scheme()) {
        Scheme::Grpc => Arc::new(local::Local::new(config, tasks, journal)),
        Scheme::Amqp | Scheme::Amqps => Arc::new(rabbit::Rabbit::new(config, tasks, journal)),
    }
}

/// A future of a broker.
pub type Work<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Headers of a message.
pub type Headers = BTreeMap<String, String>;

/// Who consumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name, as in `notifications.notices`: letters, digits, `.`, `-` and `_`, 100 of them at most.
    pub name: String,
    /// Number of its queues, from 1 to [`BUCKETS`](crate::BUCKETS).
    pub partitions: u16,
    /// What it wants.
    pub topics: Vec<String>,
    /// Most messages in one of its queues; publishing is refused beyond that. None for the broker's own.
    pub queue_messages_max: Option<u64>,
}

/// Carries messages. Building one does no I/O; it connects when it is used, and again whenever the
/// connection is gone.
pub trait Broker: fmt::Debug + Send + Sync + 'static {
    /// What kind of broker it is, by the name that OpenTelemetry has for it where it has one.
    fn system(&self) -> &'static str {
        "gantry"
    }

    /// How it is reached, for those who look after it; nothing is asked of it for that.
    fn connections(&self) -> Vec<Connection> {
        Vec::new()
    }

    /// The times, the shortest first, for which a message can wait that comes again later: whoever asks for
    /// another has the next longer one, or the longest. Any where there are none.
    fn pauses(&self) -> &'static [Duration] {
        &[]
    }

    /// Makes the queues of a group where they are missing, and has them want what `group` says beside
    /// what they want already.
    ///
    /// # Errors
    ///
    /// If they are there in another shape, or the broker does not answer in time.
    fn declare<'a>(&'a self, group: &'a Group) -> Work<'a, Result<(), BrokerError>>;

    /// Makes what the queues of a group share again where it is missing, and the queue of `partition`: what
    /// who consumes from that does as it finds it gone. Queues of others are left to them: one that is made
    /// again before its consumer has heard that it is gone may hand out to a consumer that is no more.
    ///
    /// # Errors
    ///
    /// As of [`Broker::declare`].
    fn restore<'a>(
        &'a self,
        group: &'a Group,
        partition: u16,
    ) -> Work<'a, Result<(), BrokerError>> {
        let _ = partition;
        self.declare(group)
    }

    /// As [`Broker::declare`], and has them want nothing else. What has come stays.
    ///
    /// # Errors
    ///
    /// As of [`Broker::declare`].
    fn narrow<'a>(&'a self, group: &'a Group) -> Work<'a, Result<(), BrokerError>>;

    /// Sends a message; ends once the broker has confirmed it. Dropped meanwhile, it may have been sent
    /// or not.
    ///
    /// # Errors
    ///
    /// If it is not confirmed in time; it may have been taken all the same where the error
    /// [says so](PublishError::may_be_taken).
    fn publish(&self, message: Message) -> Work<'_, Result<(), PublishError>> {
        self.publish_by(None, message)
    }

    /// As [`Broker::publish`], by the connection of that [epoch](Broker::epoch) and no other, where one is
    /// given.
    ///
    /// # Errors
    ///
    /// As of [`Broker::publish`]; if that connection is gone, it is [`PublishError::Disconnected`], also where
    /// there is another one, and nothing is sent by that.
    fn publish_by(
        &self,
        epoch: Option<u64>,
        message: Message,
    ) -> Work<'_, Result<(), PublishError>>;

    /// Which connection is published by, made where there is none: each has a number above zero of its own. A
    /// broker that has lost what it had is reached by another one, so what was asked of it after this holds
    /// for what is published by it.
    ///
    /// # Errors
    ///
    /// If there is none in time.
    fn epoch(&self) -> Work<'_, Result<u64, BrokerError>>;

    /// Asks for the messages of a queue.
    ///
    /// # Errors
    ///
    /// If there is no such queue, or the broker does not answer in time.
    fn subscribe<'a>(
        &'a self,
        group: &'a str,
        partition: u16,
        prefetch: u16,
    ) -> Work<'a, Result<Box<dyn Subscription>, BrokerError>>;

    /// Does what has to be done for a group as long as somebody consumes, where a broker does not do it by
    /// itself: moves [strays](Fill::strays). For each instance that consumes; those that have nothing to do
    /// wait. Ends soon after `stop`, with nothing in hand, and not before. Dropped, what was being moved may be
    /// there twice.
    fn tend<'a>(&'a self, group: &'a Group, stop: &'a CancellationToken) -> Work<'a, ()> {
        let _ = group;
        Box::pin(stop.cancelled())
    }

    /// How full the queues of a group are.
    ///
    /// # Errors
    ///
    /// If there is no such group, or the broker does not answer in time.
    fn fill<'a>(&'a self, group: &'a str) -> Work<'a, Result<Fill, BrokerError>>;

    /// Whether a group is there, with all that it needs to have what is published from now on.
    ///
    /// # Errors
    ///
    /// If the broker does not answer in time.
    fn knows<'a>(&'a self, group: &'a str) -> Work<'a, Result<bool, BrokerError>> {
        Box::pin(async move {
            match self.fill(group).await {
                Ok(_) => Ok(true),
                Err(BrokerError::Missing(_)) => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    /// Dead letters of a group after a place, the oldest first, `count_max` at most. A letter keeps
    /// its place for as long as it is there, and later ones have higher places.
    ///
    /// # Errors
    ///
    /// If there is no such group, or the broker does not answer in time.
    fn dead_letters<'a>(
        &'a self,
        group: &'a str,
        after: u64,
        count_max: u16,
    ) -> Work<'a, Result<Vec<DeadLetter>, BrokerError>>;

    /// Puts a dead letter at the end of the queue it comes from, with `headers` in place of its own, or
    /// drops it where there are none.
    ///
    /// # Errors
    ///
    /// If it is not there any more, or the broker does not answer in time.
    fn settle_dead_letter<'a>(
        &'a self,
        group: &'a str,
        letter: &'a DeadLetter,
        headers: Option<Headers>,
    ) -> Work<'a, Result<(), BrokerError>>;

    /// Removes a group with all that its queues keep, dead letters too; nothing where there is none.
    /// Subscriptions to them end. Dropped meanwhile, some of it may be left: ask again.
    ///
    /// # Errors
    ///
    /// If the broker does not answer in time.
    fn remove<'a>(&'a self, group: &'a str) -> Work<'a, Result<(), BrokerError>>;

    /// The groups that there are, by name; none where this kind of broker does not tell them.
    ///
    /// # Errors
    ///
    /// If the broker does not answer in time.
    fn groups(&self) -> Work<'_, Result<Option<Vec<String>>, BrokerError>> {
        Box::pin(async { Ok(None) })
    }

    /// Looks at what is taken from now on, of these topics, or of all where there are none, each once
    /// however many groups want it. It is no consumer: what no group wants stays unroutable, nothing is
    /// settled, and nobody waits for it.
    ///
    /// # Errors
    ///
    /// If the broker does not answer in time, or has no way to do it.
    fn tail<'a>(&'a self, topics: &'a [String]) -> Work<'a, Result<Box<dyn Tail>, BrokerError>> {
        let _ = topics;
        Box::pin(async { Err(BrokerError::Missing("a way to look at events".to_owned())) })
    }

    /// Whether it answers; for a health check.
    ///
    /// # Errors
    ///
    /// If it does not.
    fn ping(&self) -> Work<'_, Result<(), BrokerError>>;
}

/// The messages of one queue. Dropped, all that is not settled comes again.
pub trait Subscription: fmt::Debug + Send {
    /// The next message; none once the subscription has ended, whatever ended it. Cancel-safe.
    fn next(&mut self) -> Work<'_, Option<Delivery>>;

    /// Settles messages while further ones come.
    fn settler(&self) -> Box<dyn Settler>;
}

/// Settles messages of one subscription.
pub trait Settler: fmt::Debug + Send + Sync {
    /// Settles a message; ends once the broker has it on disk. Dropped meanwhile, it is settled or not.
    ///
    /// # Errors
    ///
    /// If the subscription has ended: the message comes again.
    fn settle(&self, tag: Tag, how: Settle) -> Work<'_, Result<(), BrokerError>>;
}

/// A message that is handed out, within its subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(pub u64);

/// A message that is handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Settles it.
    pub tag: Tag,
    /// The message.
    pub message: Message,
    /// Whether it may have been handed out before.
    pub redelivered: bool,
}

/// What becomes of a message that was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settle {
    /// It is done with.
    Ack,
    /// It comes again at once, before those behind it.
    Requeue,
    /// It comes again after a time, with these headers set or replaced.
    Retry {
        /// After how long; brokers may round it up to the next of the pauses they have.
        after: Duration,
        /// What is set.
        headers: Headers,
    },
    /// It becomes a dead letter, with these headers set or replaced.
    Reject(Headers),
}

/// Looks at what is published. Dropped, the broker does no more for it.
pub trait Tail: fmt::Debug + Send {
    /// The next one; none once the broker is gone. Cancel-safe.
    fn next(&mut self) -> Work<'_, Option<Sighting>>;
}

/// Something that was published, as far as it may be shown: neither its key nor its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Its topic.
    pub topic: String,
    /// Its headers; the one of CloudEvents that has its key, `subject`, is not among them.
    pub headers: Headers,
    /// Bytes of its body.
    pub body_bytes: u64,
    /// How many were taken before it and not seen, as the reader was too slow; at least so many, where
    /// the broker does not count them.
    pub missed: u64,
}

impl Sighting {
    /// What may be shown of a message.
    #[must_use]
    pub fn of(message: &Message, missed: u64) -> Self {
        let mut headers = message.headers.clone();
        headers.remove(SUBJECT);
        Self {
            topic: message.topic.clone(),
            headers,
            body_bytes: u64::try_from(message.body.len()).unwrap_or(u64::MAX),
            missed,
        }
    }
}

/// How a broker is reached for one purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// For what: `publishing` or `consuming`.
    pub purpose: &'static str,
    /// How it is.
    pub state: ConnectionState,
    /// Since when, where that is known.
    pub since: Option<Instant>,
    /// What is wrong, for people.
    pub error: Option<String>,
    /// How often it was made, or was to be.
    pub tries: u64,
}

/// How a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// Nobody has wanted it yet.
    Unused,
    /// It is there.
    Connected,
    /// It is there, and the broker takes nothing that is published on it.
    Blocked,
    /// There is none, as the broker does not let us in.
    Denied,
    /// There is none.
    Disconnected,
}

/// How full the queues of a group are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fill {
    /// Messages that wait, by partition.
    pub ready: Vec<u64>,
    /// Messages handed out and not settled, all together; by this client alone where the broker does
    /// not tell of others.
    pub unsettled: u64,
    /// Messages that come again later, all together.
    pub delayed: u64,
    /// Messages that nobody could do.
    pub dead_letters: u64,
    /// Messages that came while their queue was gone, and are to be moved there.
    pub strays: u64,
    /// Subscriptions to its queues, all together; those that wait for their turn too.
    pub consumers: u64,
}

/// A message that nobody could do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its place among those of the group.
    pub place: u64,
    /// Which queue it comes from.
    pub partition: u16,
    /// The message, with the headers that say why.
    pub message: Message,
}

/// Why a message is not confirmed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// No group wants its topic.
    #[error("no queue wants it")]
    Unroutable,
    /// The broker refused to take it, as where a queue is full.
    #[error("the broker did not take it: {0}")]
    Refused(String),
    /// The broker takes nothing for the time being, for want of memory or disk.
    #[error("the broker takes nothing now: {why}")]
    Blocked {
        /// What it is short of.
        why: String,
        /// Whether the message was on its way before that was known: it may be taken later on.
        sent: bool,
    },
    /// No confirmation came in time.
    #[error("not confirmed in time")]
    TimedOut,
    /// A group that is to have it is not there; it was not sent. No broker says so: whoever publishes does.
    #[error(
        "the group {0} of events.relay.groups is not there yet, which is to have it: it is made as its consumer starts"
    )]
    Awaiting(String),
    /// It does not let us in: who we are, or where to.
    #[error("the broker refuses us: {0}")]
    Denied(String),
    /// There is no connection, or it broke off.
    #[error("no connection to the broker")]
    Disconnected(#[source] BoxError),
}

impl PublishError {
    /// That the connection by which it was to go is gone, and there is another one.
    fn of_another_connection() -> Self {
        Self::Disconnected("it broke off, and there is another one".into())
    }

    /// Whether the broker may have taken the message all the same.
    #[must_use]
    pub fn may_be_taken(&self) -> bool {
        match self {
            Self::Unroutable | Self::Refused(_) | Self::Awaiting(_) | Self::Denied(_) => false,
            Self::Blocked { sent, .. } => *sent,
            Self::TimedOut | Self::Disconnected(_) => true,
        }
    }
}

/// Why a broker did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// There is no such group, queue, or dead letter.
    #[error("{0} is not there")]
    Missing(String),
    /// It is there in another shape.
    #[error("{what}: {difference}")]
    OtherShape {
        /// What is.
        what: String,
        /// How it differs, and what to do.
        difference: String,
    },
    /// It does not let us: who we are, or what we may.
    #[error("the broker refuses us: {0}")]
    Denied(String),
    /// It has as many groups, queues or consumers as it may.
    #[error("the broker has no room: {0}")]
    NoRoom(String),
    /// It did not take a message that is put elsewhere.
    #[error("a message is not put elsewhere")]
    Refused(#[source] PublishError),
    /// It did not answer in time.
    #[error("the broker did not answer in time")]
    TimedOut,
    /// There is no connection, or it broke off.
    #[error("no connection to the broker")]
    Disconnected(#[source] BoxError),
}

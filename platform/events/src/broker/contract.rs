//! What every broker is held to: one suite, for the tests of each.
//!
//! A test makes a [`Stand`] of the broker and gives it to [`run`], or to one of [`CASES`] after the
//! other. Every case has groups and topics of its own, so cases can share a broker, also with others.

mod dead;
mod faults;
mod order;
mod settle;
mod shape;
mod tail;

use std::{collections::BTreeMap, fmt, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time;
use uuid::Uuid;

use crate::{
    Message,
    broker::{
        Broker, BrokerError, Delivery, Group, Headers, PublishError, Settle, Settler, Subscription,
    },
};

/// Longest wait for what should come at once, on a busy machine and after a restart.
const SOON: Duration = Duration::from_mins(1);

/// How long nothing has to come where nothing may; the only waits that take all of their time.
const QUIET: Duration = Duration::from_millis(300);

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// A future of a test, on the thread that it began on.
pub type Running<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A broker on which the suite runs, and what can be done to it.
pub trait Stand: fmt::Debug + Send + Sync {
    /// A client of it with connections of its own.
    fn client(&self) -> Arc<dyn Broker>;

    /// Breaks every connection of every client off, with no word; they may come back at once. False
    /// where that cannot be done: then the cases of it are left out, which is told.
    fn cut(&self) -> Running<'_, bool> {
        Box::pin(async { false })
    }

    /// Kills the broker and starts it again with what it has on disk; ends once it answers. False where
    /// that cannot be done.
    fn restart(&self) -> Running<'_, bool> {
        Box::pin(async { false })
    }
}

/// One thing that a broker is held to.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What holds.
    pub name: &'static str,
    run: for<'a> fn(&'a Scope<'a>) -> Running<'a, ()>,
}

/// All that a broker is held to.
pub const CASES: &[&[Case]] = &[
    shape::CASES,
    order::CASES,
    settle::CASES,
    dead::CASES,
    tail::CASES,
    faults::CASES,
];

/// Runs the whole suite, one case after the other.
///
/// # Panics
///
/// If the broker does not do what all do; the last case told of is the one.
pub async fn run(stand: &dyn Stand) {
    for case in CASES.iter().copied().flatten() {
        case.run(stand).await;
    }
}

impl Case {
    /// Runs it.
    ///
    /// # Panics
    ///
    /// If the broker does not do what all do.
    #[expect(clippy::print_stderr, reason = "what a failure of a suite is told by")]
    pub async fn run(&self, stand: &dyn Stand) {
        eprintln!("broker contract: {}", self.name);
        let scope = Scope::new(stand);
        (self.run)(&scope).await;
        let groups = scope.groups.lock().await;
        for group in groups.iter() {
            soon("a group to be removed", scope.broker.remove(group))
                .await
                .expect("a group that can be removed");
        }
    }
}

/// Makes a case of an async function, under its name.
macro_rules! case {
    ($function:ident) => {
        $crate::broker::contract::Case {
            name: stringify!($function),
            run: |scope| Box::pin($function(scope)),
        }
    };
}
use case;

/// What one case has for its own.
struct Scope<'a> {
    stand: &'a dyn Stand,
    broker: Arc<dyn Broker>,
    mark: String,
    groups: tokio::sync::Mutex<Vec<String>>,
}

impl<'a> Scope<'a> {
    fn new(stand: &'a dyn Stand) -> Self {
        let id = Uuid::now_v7().simple().to_string();
        Self {
            stand,
            broker: stand.client(),
            mark: id[16..].to_owned(),
            groups: tokio::sync::Mutex::default(),
        }
    }

    /// The name of a topic that no other case has.
    fn topic(&self, name: &str) -> String {
        format!("suite.m{}.v1.{name}", self.mark)
    }

    /// What is asked of the broker for a group that no other case has.
    fn group(&self, name: &str, partitions: u16, topics: &[&str]) -> Group {
        Group {
            name: format!("suite-{}.{name}", self.mark),
            partitions,
            topics: topics.iter().map(|topic| self.topic(topic)).collect(),
            queue_messages_max: None,
        }
    }

    /// Has the group be there, until the case ends.
    async fn declare(&self, group: &Group) {
        self.groups.lock().await.push(group.name.clone());
        let declared = soon("a group to be made", self.broker.declare(group)).await;
        declared.expect("a group");
    }

    /// A group of one queue that wants the topic `Told`.
    async fn simple(&self) -> Group {
        let group = self.group("simple", 1, &["Told"]);
        self.declare(&group).await;
        group
    }

    async fn subscribe(&self, group: &Group, prefetch: u16) -> Reader {
        self.subscribe_to(group, 0, prefetch).await
    }

    async fn subscribe_to(&self, group: &Group, partition: u16, prefetch: u16) -> Reader {
        let subscribed = self.broker.subscribe(&group.name, partition, prefetch);
        let subscription = soon("a subscription", subscribed).await;
        Reader::new(subscription.expect("a subscription"))
    }

    /// A message of the topic `Told`; `number` is its body.
    fn told(&self, key: &str, number: usize) -> Message {
        message(self.topic("Told"), key, number)
    }

    async fn publish(&self, message: Message) {
        let published = soon("a confirmation", self.broker.publish(message)).await;
        published.expect("a confirmed message");
    }

    /// Publishes messages of the topic `Told`, the next once one is confirmed.
    async fn tell(&self, key: &str, numbers: impl IntoIterator<Item = usize>) {
        for number in numbers {
            self.publish(self.told(key, number)).await;
        }
    }

    /// Publishes until the broker takes it, as is done after a fault; it may come more than once.
    async fn insist(&self, message: Message) {
        let publish = async || self.broker.publish(message.clone()).await.ok();
        until("a message to be taken", publish).await;
    }

    /// Subscribes until the broker is there again.
    async fn subscribe_again(&self, group: &Group, partition: u16, prefetch: u16) -> Reader {
        let subscribe = async || {
            let subscribed = self.broker.subscribe(&group.name, partition, prefetch);
            subscribed.await.ok()
        };
        Reader::new(until("a subscription", subscribe).await)
    }
}

/// Reads a subscription, with a bound.
#[derive(Debug)]
struct Reader {
    subscription: Box<dyn Subscription>,
    settler: Box<dyn Settler>,
}

impl Reader {
    fn new(subscription: Box<dyn Subscription>) -> Self {
        let settler = subscription.settler();
        Self {
            subscription,
            settler,
        }
    }

    async fn next(&mut self) -> Delivery {
        let next = soon("a message", self.subscription.next()).await;
        next.expect("a subscription that goes on")
    }

    /// Takes that many messages, and gives the numbers in their bodies.
    async fn take(&mut self, count: usize) -> (Vec<usize>, Vec<Delivery>) {
        let mut deliveries = Vec::new();
        while deliveries.len() < count {
            deliveries.push(self.next().await);
        }
        (deliveries.iter().map(number).collect(), deliveries)
    }

    /// Takes messages and acks each, and gives the numbers in their bodies.
    async fn finish(&mut self, count: usize) -> Vec<usize> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            let delivery = self.next().await;
            numbers.push(number(&delivery));
            self.settle(&delivery, Settle::Ack).await;
        }
        numbers
    }

    async fn settle(&self, delivery: &Delivery, how: Settle) {
        let settled = soon(
            "a message to be settled",
            self.settler.settle(delivery.tag, how),
        );
        settled.await.expect("a settled message");
    }

    /// Has nothing come for a while.
    async fn stays_quiet(&mut self) {
        let next = time::timeout(QUIET, self.subscription.next()).await;
        assert!(next.is_err(), "nothing should come, but {next:?} did");
    }

    /// Has the subscription end.
    async fn ends(&mut self) {
        while soon("the end of a subscription", self.subscription.next())
            .await
            .is_some()
        {}
    }
}

fn message(topic: String, key: &str, number: usize) -> Message {
    let id = Uuid::now_v7().to_string();
    let headers = [
        ("id", id.as_str()),
        ("source", "/suite"),
        ("specversion", "1.0"),
        ("datacontenttype", "application/protobuf"),
        ("type", &topic),
        ("subject", key),
    ];
    Message {
        headers: headers_of(&headers),
        key: key.to_owned(),
        body: Bytes::from(number.to_string()),
        topic,
    }
}

fn headers_of(pairs: &[(&str, &str)]) -> Headers {
    let pairs = pairs.iter().copied();
    let owned = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    owned.collect::<BTreeMap<_, _>>()
}

/// The number in the body of a message.
fn number(delivery: &Delivery) -> usize {
    number_of(&delivery.message)
}

fn number_of(message: &Message) -> usize {
    let text = std::str::from_utf8(&message.body).expect("a number");
    text.parse().expect("a number")
}

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    let within = time::timeout(SOON, work).await;
    within.unwrap_or_else(|_| panic!("waited {SOON:?} for {what}"))
}

/// Waits until `condition` gives something.
async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    soon(what, async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            time::sleep(INTERVAL).await;
        }
    })
    .await
}

fn is_missing<T>(result: &Result<T, BrokerError>) -> bool {
    matches!(result, Err(BrokerError::Missing(_)))
}

fn is_unroutable(result: &Result<(), PublishError>) -> bool {
    matches!(result, Err(PublishError::Unroutable))
}

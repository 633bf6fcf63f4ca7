//! The local broker as a process: killed, frozen, started on data that cannot be used.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use gantry::{config::Live, journal::Journal, shutdown::Tasks};
use gantry_events::{
    Message,
    broker::{self, Broker, Config, Delivery, Group, PublishError, Settle, Subscription},
};
use rustix::process::Signal;
use tokio::time::{Instant, sleep, timeout};

#[path = "support/process.rs"]
mod support;

use support::{Process, refused};

/// Nothing here takes long; this is for a machine that is busy with other things.
const SOON: Duration = Duration::from_secs(30);

/// As long as nothing comes, there is nothing more.
const QUIET: Duration = Duration::from_secs(1);

const GROUP: &str = "shop.news";

/// A broker in a process of its own, and a client of it.
struct World {
    process: Process,
    broker: Arc<dyn Broker>,
}

impl World {
    fn start(folder: &Path, confirm_timeout: Duration) -> Self {
        let process = Process::start("broker", "127.0.0.1:0", folder);
        let config = Config {
            confirm_timeout,
            ..Config::to(format!("grpc://{}", process.address).parse().unwrap())
        };
        let tasks = Tasks::new(Journal::new());
        let broker = broker::connect(&Live::fixed(config), &tasks, &Journal::new());
        Self { process, broker }
    }

    /// Kills it, and starts it again where it was.
    fn restart(&mut self, folder: &Path) {
        self.process.kill();
        self.process = Process::start("broker", &self.process.address, folder);
    }

    async fn declare(&self) {
        let group = Group {
            name: GROUP.to_owned(),
            partitions: 1,
            topics: vec!["shop.Placed".to_owned()],
            queue_messages_max: None,
        };
        self.broker.declare(&group).await.unwrap();
    }

    /// Subscribes, as soon as it is there again.
    async fn subscribe(&self, prefetch: u16) -> Box<dyn Subscription> {
        let subscribing = async {
            loop {
                match self.broker.subscribe(GROUP, 0, prefetch).await {
                    Ok(subscription) => return subscription,
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
            }
        };
        timeout(SOON, subscribing).await.unwrap()
    }
}

fn message(key: &str, number: u64) -> Message {
    Message {
        topic: "shop.Placed".to_owned(),
        key: key.to_owned(),
        headers: BTreeMap::new(),
        body: Bytes::from(number.to_string()),
    }
}

fn number(delivery: &Delivery) -> u64 {
    let text = str::from_utf8(&delivery.message.body).unwrap();
    text.parse().unwrap()
}

/// A key and a number.
type One = (String, u64);

fn one(delivery: &Delivery) -> One {
    (delivery.message.key.clone(), number(delivery))
}

/// Publishes under a key, one after the other, until one fails or it is over; those that were
/// confirmed.
async fn publish(broker: &dyn Broker, key: String, over: &AtomicBool) -> Vec<One> {
    let mut confirmed = Vec::new();
    for number in 0.. {
        if over.load(Ordering::Relaxed) || broker.publish(message(&key, number)).await.is_err() {
            break;
        }
        confirmed.push((key.clone(), number));
    }
    confirmed
}

/// Settles all that comes until nothing does any more; those whose settling was confirmed. Answers with
/// the one of which that is not known, where there is one.
async fn settle(
    mut subscription: Box<dyn Subscription>,
    settled: &Mutex<BTreeSet<One>>,
) -> Option<One> {
    let settler = subscription.settler();
    while let Some(delivery) = subscription.next().await {
        if settler.settle(delivery.tag, Settle::Ack).await.is_err() {
            return Some(one(&delivery));
        }
        settled.lock().unwrap().insert(one(&delivery));
    }
    None
}

/// Goal: what was confirmed survives `kill -9` until it is settled, in the order of its key, and what
/// was settled never comes again.
/// Method: eight publishers and a consumer until the process is killed under them, three times over;
/// then all that is left is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::start(folder.path(), SOON);
    world.declare().await;
    for round in 0..3 {
        let (settled, over) = (Mutex::new(BTreeSet::new()), AtomicBool::new(false));
        let broker = Arc::clone(&world.broker);
        let subscription = world.subscribe(16).await;
        let keys = (0..8).map(|key| format!("{round}-{key}"));
        let publishing = join_all(keys.map(|key| publish(&*broker, key, &over)));
        let consuming = settle(subscription, &settled);
        let killing = async {
            let some = async {
                while settled.lock().unwrap().len() < 100 {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(SOON, some).await.unwrap();
            world.process.kill();
            over.store(true, Ordering::Relaxed);
            world.process = Process::start("broker", &world.process.address, folder.path());
        };
        let (confirmed, unknown, ()) = tokio::join!(publishing, consuming, killing);
        let settled = settled.into_inner().unwrap();
        // What was on its way at the end may have come to the broker that was started anew.
        let newest = confirmed.iter().filter_map(|of_key| of_key.last().cloned());
        let newest: BTreeMap<_, _> = newest.collect();
        let confirmed: BTreeSet<_> = confirmed.into_iter().flatten().collect();

        let mut left = BTreeSet::new();
        let mut last = BTreeMap::new();
        let mut subscription = world.subscribe(16).await;
        let settler = subscription.settler();
        while let Ok(Some(delivery)) = timeout(QUIET, subscription.next()).await {
            let (key, number) = one(&delivery);
            settler.settle(delivery.tag, Settle::Ack).await.unwrap();
            let was_there = newest.get(&key).is_some_and(|newest| number < *newest);
            assert!(
                delivery.redelivered || !was_there,
                "{key} {number} is not marked"
            );
            if let Some(last) = last.insert(key.clone(), number) {
                assert!(last < number, "{key}: {number} after {last}");
            }
            left.insert((key, number));
        }
        assert!(!left.is_empty(), "nothing was left");
        let again: Vec<_> = left.intersection(&settled).collect();
        assert!(again.is_empty(), "settled, and there again: {again:?}");
        // One may have been settled with nobody left to tell.
        let there = left.union(&settled).cloned();
        let there: BTreeSet<_> = there.chain(unknown).collect();
        let missing: Vec<_> = confirmed.difference(&there).collect();
        assert!(missing.is_empty(), "confirmed and lost: {missing:?}");
    }
}

/// Goal: a message that is to come again later does so after a kill, when it was to; a dead letter
/// stays one.
/// Method: settle one each way, kill, look at the time when the first comes.
#[tokio::test]
async fn what_was_put_off_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::start(folder.path(), SOON);
    world.declare().await;
    for number in 1..=2 {
        world.broker.publish(message("a", number)).await.unwrap();
    }
    let mut subscription = world.subscribe(2).await;
    let settler = subscription.settler();
    let first = subscription.next().await.unwrap();
    let second = subscription.next().await.unwrap();
    let headers = BTreeMap::from([("gantry-attempt".to_owned(), "1".to_owned())]);
    let after = Duration::from_secs(3);
    let retry = Settle::Retry {
        after,
        headers: headers.clone(),
    };
    settler.settle(first.tag, retry).await.unwrap();
    let put_off = Instant::now();
    let reject = Settle::Reject(headers.clone());
    settler.settle(second.tag, reject).await.unwrap();

    world.restart(folder.path());

    let mut subscription = world.subscribe(2).await;
    let again = timeout(SOON, subscription.next()).await.unwrap().unwrap();
    assert_eq!((1, true), (number(&again), again.redelivered));
    assert_eq!(headers, again.message.headers);
    // It was put off a little before we knew.
    let waited = put_off.elapsed() + Duration::from_millis(500);
    assert!(waited >= after, "{waited:?}");
    let letters = world.broker.dead_letters(GROUP, 0, 10).await.unwrap();
    assert_eq!(1, letters.len());
    assert_eq!(headers, letters[0].message.headers);
}

/// Goal: a broker that stands still costs what publishes to it the timeout and no more, and is used
/// again when it goes on.
/// Method: freeze it for longer than that; publish meanwhile and afterwards.
#[tokio::test]
async fn a_frozen_broker_is_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path(), Duration::from_millis(500));
    world.declare().await;
    world.broker.publish(message("a", 1)).await.unwrap();

    world.process.signal(Signal::STOP);
    let begun = Instant::now();
    let frozen = world.broker.publish(message("a", 2)).await.unwrap_err();
    assert!(matches!(frozen, PublishError::TimedOut), "{frozen}");
    assert!(frozen.may_be_taken());
    assert!(begun.elapsed() < Duration::from_secs(5));
    world.process.signal(Signal::CONT);

    let published = async { while world.broker.publish(message("a", 3)).await.is_err() {} };
    timeout(SOON, published).await.unwrap();
    let mut subscription = world.subscribe(100).await;
    let mut numbers = BTreeSet::new();
    while let Ok(Some(delivery)) = timeout(QUIET, subscription.next()).await {
        numbers.insert(number(&delivery));
    }
    assert!(numbers.is_superset(&BTreeSet::from([1, 3])), "{numbers:?}");
}

/// Goal: data that cannot be used is one line that names the file.
/// Method: a second process on the same folder; a file of garbage.
#[test]
fn unusable_data_is_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start("broker", "127.0.0.1:0", folder.path());
    let path = folder.path().join("broker.redb");
    let told = format!("{} is in use by another process", path.display());
    refused("broker", folder.path(), &told);
    drop(process);
    fs::write(&path, vec![7; 100_000]).unwrap();
    let told = format!("{} is damaged; remove it to begin anew", path.display());
    refused("broker", folder.path(), &told);
}

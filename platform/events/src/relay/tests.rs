//! A relay over an outbox and a broker in memory, on a paused clock.

mod slow;

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
};

use gantry::{
    config::Live,
    journal::{Journal, Kind},
};
use tokio::{
    sync::Notify,
    task::{AbortHandle, JoinSet},
    time::{self, Duration, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    Config, Unroutable,
    engine::Engine,
    ledger::memory::{Memory as Ledger, TOPIC},
    report::Report,
};
use crate::{
    broker::{
        Broker as _, Group,
        memory::{Chances, Memory as Broker, OnPublish},
    },
    bucket,
};

/// Everything that a relay works with.
struct World {
    seed: u64,
    ledger: Ledger,
    broker: Broker,
    config: Config,
    wake: Arc<Notify>,
    journal: Journal,
    relays: JoinSet<()>,
}

/// A relay that can be stopped and ended from outside.
struct Handle {
    task: AbortHandle,
    frozen: Arc<Frozen>,
    stopping: CancellationToken,
}

/// Whether a relay stands still, and who wakes it then.
#[derive(Default)]
struct Frozen {
    frozen: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Frozen {
    fn set(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::Relaxed);
        if let Some(waker) = self.waker.lock().unwrap().take() {
            waker.wake();
        }
    }

    /// Polls `future` while it does not stand still.
    async fn over(&self, future: impl Future<Output = ()>) {
        let mut future = pin!(future);
        poll_fn(|cx| {
            *self.waker.lock().unwrap() = Some(cx.waker().clone());
            if self.frozen.load(Ordering::Relaxed) {
                return Poll::Pending;
            }
            future.as_mut().poll(cx)
        })
        .await;
    }
}

impl World {
    async fn new(seed: u64, config: Config) -> Self {
        let broker = Broker::new(seed);
        let group = Group {
            name: "test.all".to_owned(),
            partitions: 1,
            topics: vec![TOPIC.to_owned()],
            queue_messages_max: None,
        };
        broker.declare(&group).await.unwrap();
        Self {
            seed,
            ledger: Ledger::new(seed),
            broker,
            config,
            wake: Arc::default(),
            journal: Journal::new(),
            relays: JoinSet::new(),
        }
    }

    fn add(&self, key: &str) {
        self.ledger.add(key);
        self.wake.notify_one();
    }

    fn relay(&mut self) -> Handle {
        let stopping = CancellationToken::new();
        let engine = Engine::new(
            self.ledger.clone(),
            Arc::new(self.broker.clone()),
            Live::fixed(self.config.clone()),
            Arc::clone(&self.wake),
            Report::new(Some(self.journal.clone()), "gantry", Arc::default()),
        );
        let frozen = Arc::new(Frozen::default());
        let (stands, stops) = (Arc::clone(&frozen), stopping.clone());
        let task = self.relays.spawn(async move {
            stands.over(engine.run(stops)).await;
        });
        Handle {
            task,
            frozen,
            stopping,
        }
    }

    fn is_done(&self) -> bool {
        self.ledger
            .keys()
            .iter()
            .all(|(_, last, sent)| last == sent)
    }

    /// Waits until everything is published.
    async fn done(&self) {
        let done = async {
            while !self.is_done() {
                time::sleep(Duration::from_millis(10)).await;
            }
        };
        let done = time::timeout(Duration::from_mins(30), done).await;
        assert!(done.is_ok(), "seed {}: {:?}", self.seed, self.ledger.keys());
    }

    /// What the broker has of each key, those that come again left out.
    fn first_taken(&self) -> BTreeMap<String, Vec<i64>> {
        let mut taken: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for message in self.broker.taken() {
            let sequence = message.headers["sequence"].parse().unwrap();
            let sequences = taken.entry(message.key).or_default();
            if !sequences.contains(&sequence) {
                sequences.push(sequence);
            }
        }
        taken
    }

    /// Every event is there, none that was not added, and those of a key are in their order.
    fn check(&self) {
        let taken = self.first_taken();
        let keys = self.ledger.keys();
        assert_eq!(keys.len(), taken.len(), "seed {}", self.seed);
        for (key, last, _) in keys {
            let all: Vec<_> = (1..=last).collect();
            assert_eq!(all, taken[&key], "seed {}, key {key}", self.seed);
        }
    }

    /// What the journal says of events.
    fn told(&self) -> Vec<String> {
        let entries = self.journal.watch().0.into_iter();
        let entries = entries.filter(|entry| entry.kind == Kind::Events);
        entries.map(|entry| entry.detail).collect()
    }
}

const FAULTS: Chances = Chances {
    refuse: 0.1,
    unroutable: 0.02,
    block: 0.02,
    lose_message: 0.03,
    lose_confirmation: 0.05,
    disconnect: 0.02,
    double: 0.0,
    swap: 0.0,
    end: 0.0,
};

/// One thing that happens to a world.
fn happen(world: &mut World, relays: &mut [Handle], random: &mut fastrand::Rng) {
    let which = random.usize(..relays.len());
    match random.u32(..100) {
        0..70 => {
            for _ in 0..random.u32(1..4) {
                world.add(&format!("k{}", random.u32(..6)));
            }
        }
        70..78 => {
            relays[which].task.abort();
            relays[which] = world.relay();
        }
        78..82 => {
            relays[which].stopping.cancel();
            relays[which] = world.relay();
        }
        82..88 => relays[which].frozen.set(true),
        88..94 => relays[which].frozen.set(false),
        94..97 => world.ledger.failing(random.f64() / 4.0),
        97 => world.ledger.failing(0.0),
        98 => world.broker.disconnect(),
        _ => world.broker.reconnect(),
    }
}

/// Goal: whatever fails, ends or stands still, nothing is lost, nothing comes that was not added, and
/// events of a key have their order on the wire.
/// Method: for each seed two relays, random additions and faults of broker, outbox and relays; then
/// everything is well, and all is to come.
#[tokio::test(start_paused = true)]
async fn faults_lose_and_reorder_nothing() {
    let mut repeated = 0;
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let config = Config {
            window: random.u16(1..8),
            lease: Duration::from_secs(2),
            ..Config::default()
        };
        let mut world = World::new(seed, config).await;
        let latency = Duration::from_millis(random.u64(0..20));
        world.broker.timing(latency, Duration::from_secs(3));
        world.broker.chances(FAULTS);
        let mut relays = [world.relay(), world.relay()];
        for _ in 0..120 {
            happen(&mut world, &mut relays, &mut random);
            time::sleep(Duration::from_millis(random.u64(0..300))).await;
        }
        world.broker.chances(Chances::default());
        world.broker.reconnect();
        world.ledger.failing(0.0);
        for relay in &relays {
            relay.frozen.set(false);
        }
        world.done().await;
        world.check();
        let taken: usize = world.first_taken().values().map(Vec::len).sum();
        repeated += world.broker.taken().len() - taken;
    }
    assert!(repeated > 100, "{repeated}: faults were not what they seem");
}

/// Goal: what is down for long is asked now and then, and neither it nor the database is busied.
/// Method: an hour of each fault with many keys; count publications and questions.
#[tokio::test(start_paused = true)]
async fn nothing_is_tried_in_a_hot_loop() {
    for (fault, publications_max, asked_max) in [
        (OnPublish::Block, 1_000, 20_000),
        (OnPublish::DisconnectBefore, 1_000, 20_000),
        (OnPublish::Unroutable, 300, 40_000),
        (OnPublish::Refuse, 6_000, 60_000),
        (OnPublish::LoseMessage, 6_000, 60_000),
    ] {
        let mut world = World::new(1, Config::default()).await;
        for number in 0..50 {
            world.add(&format!("k{number}"));
        }
        world.broker.script(std::iter::repeat_n(fault, 100_000));
        let relay = world.relay();
        time::sleep(Duration::from_hours(1)).await;
        let (publications, asked) = (world.broker.publications(), world.ledger.asked());
        assert!(
            publications <= publications_max,
            "{fault:?}: {publications}"
        );
        assert!(asked <= asked_max, "{fault:?}: {asked}");
        assert!(publications >= 100, "{fault:?}: {publications}");
        assert_eq!(1, world.told().len(), "{fault:?}: {:?}", world.told());
        relay.task.abort();
    }
}

/// Goal: a broker that comes back has everything within seconds, and that is told.
/// Method: an hour without a connection; then count the time.
#[tokio::test(start_paused = true)]
async fn all_goes_on_soon_after_an_outage() {
    let mut world = World::new(1, Config::default()).await;
    world.broker.disconnect();
    let _relay = world.relay();
    for number in 0..1_000 {
        world.add(&format!("k{number}"));
    }
    time::sleep(Duration::from_hours(1)).await;
    world.broker.reconnect();
    let began = Instant::now();
    world.done().await;
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    world.check();
    time::sleep(Duration::from_secs(10)).await;
    let told = world.told();
    assert!(told[0].contains("events wait, disconnected"), "{told:?}");
    assert_eq!("events wait no more, disconnected", told[1]);
    assert_eq!(2, told.len(), "{told:?}");
}

/// Goal: a queue that takes nothing holds up its own keys and no others.
/// Method: refuse what goes to one of two keys in different buckets; the other one's all come.
#[tokio::test(start_paused = true)]
async fn a_full_queue_holds_up_its_own_keys() {
    let mut world = World::new(1, Config::default()).await;
    let full = Group {
        name: "test.full".to_owned(),
        partitions: 64,
        topics: vec![TOPIC.to_owned()],
        queue_messages_max: Some(1),
    };
    world.broker.declare(&full).await.unwrap();
    let _relay = world.relay();
    for _ in 0..20 {
        world.add("full");
    }
    for number in 0..20 {
        world.add(&format!("other-{number}"));
    }
    time::sleep(Duration::from_mins(1)).await;
    let others = world.ledger.keys().into_iter();
    let others = others.filter(|(key, last, sent)| key != "full" && last == sent);
    // Two of them may share a bucket.
    assert!(others.count() >= 15, "{:?}", world.ledger.keys());
    world.broker.remove("test.full").await.unwrap();
    world.done().await;
    world.check();
}

/// Goal: what nobody wants is kept or passed over, as it is set.
/// Method: events of a topic without a group, both ways.
#[tokio::test(start_paused = true)]
async fn what_nobody_wants_is_kept_or_dropped() {
    for unroutable in [Unroutable::Keep, Unroutable::Drop] {
        let config = Config {
            unroutable,
            ..Config::default()
        };
        let mut world = World::new(1, config).await;
        world.broker.remove("test.all").await.unwrap();
        let _relay = world.relay();
        for _ in 0..3 {
            world.add("a");
        }
        time::sleep(Duration::from_mins(5)).await;
        assert_eq!(1, world.told().len(), "{:?}", world.told());
        if unroutable == Unroutable::Drop {
            assert_eq!(vec![1, 2, 3], world.ledger.dropped("a"));
            assert!(world.is_done());
        } else {
            assert_eq!(vec![("a".to_owned(), 3, 0)], world.ledger.keys());
        }
    }
}

/// Goal: nothing is published before all are there who are to have it, at the start and where a broker
/// comes back without them; nobody then misses anything.
/// Method: of two groups that are named one is late, at first, after a connection broke off while something
/// was published, and after one broke off while nothing was.
#[tokio::test(start_paused = true)]
async fn nothing_is_published_before_everybody_is_there() {
    let named = |name: &str| Group {
        name: name.to_owned(),
        partitions: 1,
        topics: vec![TOPIC.to_owned()],
        queue_messages_max: None,
    };
    let both = ["test.all", "test.late"].map(named);
    let config = Config {
        groups: both.iter().map(|group| group.name.clone()).collect(),
        ..Config::default()
    };
    let mut world = World::new(1, config).await;
    let _relay = world.relay();
    for key in ["a", "b", "c"] {
        let before = world.broker.taken().len();
        world.add(key);
        time::sleep(Duration::from_mins(1)).await;
        assert_eq!(before, world.broker.taken().len(), "{key}");
        world.broker.declare(&both[1]).await.unwrap();
        world.done().await;
        let late = world.broker.fill("test.late").await.unwrap();
        assert_eq!(vec![1], late.ready, "{key}");
        // The next time it comes back without one of them.
        world.broker.remove("test.late").await.unwrap();
        if key == "a" {
            world.broker.script([OnPublish::DisconnectBefore]);
        } else {
            world.broker.disconnect();
            world.broker.reconnect();
        }
    }
    let all = world.broker.fill("test.all").await.unwrap();
    assert_eq!(vec![3], all.ready);
    let told = world.told();
    let waits = told
        .iter()
        .filter(|it| it.contains("awaiting: the group test.late"));
    assert_eq!(3, waits.count(), "{told:?}");
}

/// Goal: a relay that stands still is passed by, and whatever it does later reorders nothing.
/// Method: one stands still with events under way; another one publishes all; the first goes on.
#[tokio::test(start_paused = true)]
async fn one_that_stands_still_is_passed_by() {
    let mut world = World::new(1, Config::default()).await;
    let first = world.relay();
    world
        .broker
        .timing(Duration::from_secs(1), Duration::from_secs(3));
    for _ in 0..5 {
        world.add("a");
    }
    while world.broker.publications() < 2 {
        time::sleep(Duration::from_millis(10)).await;
    }
    first.frozen.set(true);
    let _second = world.relay();
    let began = Instant::now();
    world.done().await;
    assert!(began.elapsed() < Duration::from_secs(30));
    first.frozen.set(false);
    world.add("a");
    time::sleep(Duration::from_mins(1)).await;
    // What it claims from now on is respected again.
    let taken = world.broker.taken().len();
    for number in 0..20 {
        world.add(&format!("k{number}"));
        time::sleep(Duration::from_secs(2)).await;
    }
    world.done().await;
    assert_eq!(taken + 20, world.broker.taken().len());
    world.check();
    assert!(
        world.told().contains(&"was passed by".to_owned()),
        "{:?}",
        world.told()
    );
}

/// Goal: an event that fails alone, while others of its queue are taken, is tried less and less often.
/// Method: refuse one key for good, beside another one of its bucket with an event every 50 ms.
#[tokio::test(start_paused = true)]
async fn an_event_that_fails_alone_is_tried_less_and_less() {
    let mut world = World::new(1, Config::default()).await;
    let same_bucket = |key: &String| bucket(key) == bucket("poison");
    let mut keys = (0..).map(|number| format!("k{number}"));
    let other = keys.find(same_bucket).unwrap();
    world.broker.refuse("poison");
    let _relay = world.relay();
    world.add("poison");
    for _ in 0..12_000 {
        world.add(&other);
        time::sleep(Duration::from_millis(50)).await;
    }
    let tried = world.broker.publications() - 12_000;
    assert!((15..40).contains(&tried), "{tried} in ten minutes");
    let keys = world.ledger.keys();
    let (_, last, sent) = keys.iter().find(|(key, _, _)| *key == other).unwrap();
    // No longer behind than the pauses that the one has brought upon its queue.
    assert!(last - sent < 1_000, "{last} {sent}");
    assert_eq!(1, world.told().len(), "{:?}", world.told());
}

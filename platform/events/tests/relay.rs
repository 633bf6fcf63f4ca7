//! Outbox and relay over real databases, SQLite and PostgreSQL.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap, future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration,
};

use gantry::{
    call::{Context, Ended, Scoped, TraceContext},
    config::Live,
    contract::{Access, Idempotency, Method},
    status::chain,
};
use gantry_events::{
    Envelope, Message, Outbox, Relay,
    broker::{
        Broker as _, Group,
        memory::{Chances, Memory},
    },
    relay::Config,
};
use gantry_harness::database::Place;
use gantry_store::{Database, Statement};
use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;

/// Longest wait for what should come soon, on a busy machine.
const SOON: Duration = Duration::from_mins(1);

const PENDING: Statement = Statement::new(
    "test.pending",
    "SELECT COUNT(*) AS events FROM event_outbox WHERE state = 0",
);
const ALL: Statement = Statement::new("test.all", "SELECT COUNT(*) AS events FROM event_outbox");
const UNSENT: Statement = Statement::new(
    "test.unsent",
    "SELECT COUNT(*) AS events FROM event_aggregates
     WHERE sent_sequence <> last_sequence",
);
const FORGET_RELAYS: Statement = Statement::new("test.forget_relays", "DELETE FROM event_relays");

gantry_harness::on_both!(
    what_is_committed_is_published_in_order,
    an_event_belongs_to_the_trace_of_its_call,
    faults_of_the_broker_lose_and_reorder_nothing,
    a_relay_that_ends_anywhere_loses_nothing,
    several_relays_share_the_work,
    one_that_stands_still_is_passed_by,
    whoever_adds_for_long_holds_up_nobody_else,
    old_events_are_forgotten,
    impossible_events_are_refused,
    one_that_cannot_be_read_holds_up_its_own_key,
);

/// A service's database with an outbox, and a broker that has a group for its events.
struct World {
    place: Place,
    database: Database,
    outbox: Outbox,
    broker: Memory,
    relays: JoinSet<()>,
}

fn config(place: &Place) -> gantry_store::Config {
    gantry_store::Config {
        url: place.url().parse().unwrap(),
        acquire_timeout: SOON,
        statement_timeout: SOON,
        busy_timeout: SOON,
        open_timeout: SOON,
        ..gantry_store::Config::default()
    }
}

impl World {
    async fn new(place: Place, seed: u64) -> Self {
        let database = Database::open(&config(&place), &[]).await.unwrap();
        let outbox = Outbox::open(&database, "orders").await.unwrap();
        let broker = Memory::new(seed);
        let group = Group {
            name: "test.all".to_owned(),
            partitions: 4,
            topics: vec!["google.protobuf.StringValue".to_owned()],
            queue_messages_max: None,
        };
        broker.declare(&group).await.unwrap();
        Self {
            place,
            database,
            outbox,
            broker,
            relays: JoinSet::new(),
        }
    }

    /// The outbox as another process of the service has it.
    async fn another(&self) -> Outbox {
        let database = Database::open(&config(&self.place), &[]).await.unwrap();
        Outbox::open(&database, "orders").await.unwrap()
    }

    /// Commits an event for each of `keys`.
    async fn add(&self, keys: &[&str]) {
        let mut transaction = self.database.begin("test.add").await.unwrap();
        for key in keys {
            let event = (*key).to_owned();
            self.outbox
                .add(&mut transaction, key, &event)
                .await
                .unwrap();
        }
        transaction.commit().await.unwrap();
    }

    fn relay_of(&self, outbox: &Outbox, config: Config) -> Relay {
        Relay::new(outbox, Arc::new(self.broker.clone()), Live::fixed(config))
    }

    /// Starts a relay.
    fn start(&mut self, outbox: &Outbox, config: Config) -> CancellationToken {
        let stopping = CancellationToken::new();
        let relay = self.relay_of(outbox, config);
        self.relays.spawn(relay.run(stopping.clone()));
        stopping
    }

    fn publish(&mut self) -> CancellationToken {
        let outbox = self.outbox.clone();
        self.start(&outbox, quick())
    }

    async fn count(&self, statement: &Statement) -> i64 {
        let row = self.database.statement(statement).fetch_one().await;
        row.unwrap().integer("events").unwrap()
    }

    /// Waits until all that was committed is published and written down as such.
    async fn done(&self) {
        let done = async {
            while self.count(&PENDING).await > 0 || self.count(&UNSENT).await > 0 {
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(SOON, done).await.expect("all is published");
    }

    /// Waits until the broker has taken so many messages.
    async fn taken(&self, count: usize) {
        let taken = async {
            while self.broker.taken().len() < count {
                time::sleep(Duration::from_millis(1)).await;
            }
        };
        time::timeout(SOON, taken)
            .await
            .expect("the broker takes them");
    }

    /// Sees that the broker has every event of each key, in its order, and no others; answers how many
    /// came more than once.
    #[track_caller]
    fn check(&self, expected: &[(&str, u64)]) -> usize {
        let mut firsts: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let mut ids = BTreeMap::new();
        let taken = self.broker.taken();
        for message in &taken {
            let Envelope { id, sequence, .. } = Envelope::read(message).unwrap();
            let known = ids.insert(id, (message.key.clone(), sequence));
            if known.is_none() {
                firsts
                    .entry(message.key.clone())
                    .or_default()
                    .push(sequence);
            }
        }
        let expected = expected.iter();
        let expected: BTreeMap<_, Vec<u64>> = expected
            .map(|(key, count)| ((*key).to_owned(), (1..=*count).collect()))
            .collect();
        assert_eq!(expected, firsts);
        taken.len() - ids.len()
    }
}

/// Settings of a relay that waits for little.
fn quick() -> Config {
    Config {
        look_interval: Duration::from_millis(20),
        pause_min: Duration::from_millis(5),
        pause_max: Duration::from_millis(50),
        ..Config::default()
    }
}

/// Goal: what is committed is published, once and with all that is known of it, and what is rolled
/// back is not.
/// Method: transactions of several keys, one rolled back and one dropped, while a relay runs; then one
/// that comes when it has nothing to do.
async fn what_is_committed_is_published_in_order(place: Place) {
    let mut world = World::new(place, 1).await;
    let stopping = world.publish();
    for _ in 0..10 {
        world.add(&["a", "b", "a"]).await;
    }
    for rolls_back in [true, false] {
        let mut transaction = world.database.begin("test.undone").await.unwrap();
        let event = "never".to_owned();
        let add = world.outbox.add(&mut transaction, "a", &event);
        add.await.unwrap();
        if rolls_back {
            transaction.rollback().await.unwrap();
        }
    }
    world.add(&["a"]).await;
    world.done().await;
    assert_eq!(0, world.check(&[("a", 21), ("b", 10)]));

    world.add(&["c"]).await;
    world.taken(32).await;
    let Message {
        topic,
        key,
        headers,
        body,
    } = world.broker.taken().pop().unwrap();
    assert_eq!(("google.protobuf.StringValue", "c"), (&*topic, &*key));
    assert_eq!("/orders", headers["source"]);
    assert_eq!(
        "protobuf:google.protobuf.StringValue/1",
        headers["dataschema"]
    );
    assert_eq!(b"\x0a\x01c", &*body);
    stopping.cancel();
    time::timeout(SOON, world.relays.join_next()).await.unwrap();
    assert_eq!(0, world.count(&PENDING).await);
}

/// Goal: an event carries the trace of the call that it came about in, and none where there is none.
/// Method: add one within a call, and one outside.
async fn an_event_belongs_to_the_trace_of_its_call(place: Place) {
    static METHOD: Method = Method {
        path: "/test.v1.TestService/Add",
        client_streaming: false,
        server_streaming: false,
        idempotency: Idempotency::Unknown,
        access: Access::Internal,
        role: None,
    };
    let mut world = World::new(place, 1).await;
    let trace = TraceContext::root(true);
    let call = Context {
        method: &METHOD,
        peer: None,
        deadline: None,
        trace: trace.clone(),
        previous_attempts: 0,
        criticality: None,
        ended: Ended::default(),
    };
    Scoped::new(Arc::new(call), world.add(&["a"])).await;
    world.add(&["a"]).await;
    world.publish();
    world.taken(2).await;
    let parents: Vec<_> = world
        .broker
        .taken()
        .into_iter()
        .map(|message| Envelope::read(&message).unwrap().traceparent)
        .collect();
    assert_eq!([Some(format!("00-{trace}-01")), None], *parents);
}

/// Goal: refusals and lost confirmations reorder no key and lose nothing.
/// Method: a broker that fails half of the time, and many events of a few keys.
async fn faults_of_the_broker_lose_and_reorder_nothing(place: Place) {
    let mut world = World::new(place, 3).await;
    let brief = Duration::from_millis(5);
    world.broker.timing(Duration::from_millis(1), brief);
    world.broker.chances(Chances {
        refuse: 0.1,
        block: 0.05,
        lose_message: 0.1,
        lose_confirmation: 0.2,
        disconnect: 0.05,
        ..Chances::default()
    });
    world.publish();
    for _ in 0..15 {
        world.add(&["a", "b", "c", "d"]).await;
    }
    world.done().await;
    let repeated = world.check(&[("a", 15), ("b", 15), ("c", 15), ("d", 15)]);
    assert!(repeated > 0, "no confirmation was lost");
}

/// Polls `future` so many times, then drops it; answers whether it ended before.
async fn polled(times: u32, future: impl Future<Output = ()>) -> bool {
    let mut future = pin!(future);
    let mut polls = 0;
    poll_fn(move |cx| {
        polls += 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending if polls >= times => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Goal: a process that ends at any place of its work, between any two steps, loses nothing and
/// reorders nothing; after some of them events come again.
/// Method: drop a relay after one poll, after two, and so on, until one gets through; after each another
/// one publishes what is left.
async fn a_relay_that_ends_anywhere_loses_nothing(place: Place) {
    let mut world = World::new(place, 1).await;
    world.broker.timing(Duration::from_millis(2), SOON);
    let mut rounds = 0;
    for times in 1..500 {
        world.add(&["a", "b", "b"]).await;
        rounds += 1;
        let relay = world.relay_of(&world.outbox, quick());
        let run = relay.run(CancellationToken::new());
        let ended = time::timeout(SOON, polled(times, run)).await.unwrap();
        assert!(!ended, "nobody stops it");
        if world.count(&PENDING).await == 0 {
            break;
        }
        // As if its lease had run out.
        let forget = world.database.statement(&FORGET_RELAYS);
        forget.execute().await.unwrap();
        let stopping = world.publish();
        world.done().await;
        stopping.cancel();
        time::timeout(SOON, world.relays.join_next()).await.unwrap();
    }
    assert_eq!(0, world.count(&PENDING).await, "no relay got through");
    let repeated = world.check(&[("a", rounds), ("b", 2 * rounds)]);
    assert!(
        rounds > 5 && repeated > 0,
        "{rounds} rounds, {repeated} came again"
    );
}

/// Goal: relays of several processes work at once, and no event comes twice while all are well.
/// Method: three of them, and events of many keys from all processes.
async fn several_relays_share_the_work(place: Place) {
    let mut world = World::new(place, 1).await;
    for _ in 0..3 {
        let outbox = world.another().await;
        world.start(
            &outbox,
            Config {
                window: 4,
                ..quick()
            },
        );
    }
    let keys: Vec<_> = (0..12).map(|number| format!("k{number}")).collect();
    let keys: Vec<&str> = keys.iter().map(|key| &**key).collect();
    for _ in 0..6 {
        world.add(&keys).await;
    }
    world.done().await;
    let expected: Vec<_> = keys.iter().map(|key| (*key, 6)).collect();
    assert_eq!(0, world.check(&expected));
}

/// Goal: a relay that stands still keeps others from nothing for longer than its lease, and what it
/// does later reorders nothing.
/// Method: one stands still with events under way, and another publishes them; then the first goes on.
async fn one_that_stands_still_is_passed_by(place: Place) {
    let mut world = World::new(place, 1).await;
    let lease = Duration::from_millis(300);
    let settings = Config { lease, ..quick() };
    let still = world.relay_of(&world.another().await, settings.clone());
    let mut still = Box::pin(still.run(CancellationToken::new()));
    world.broker.timing(Duration::from_millis(50), SOON);
    world.add(&["a", "a", "a", "b"]).await;
    tokio::select! {
        () = &mut still => unreachable!("nobody stops it"),
        () = world.taken(2) => {}
    }
    let outbox = world.outbox.clone();
    world.start(&outbox, settings);
    world.done().await;
    // It goes on, with what it had under way and with what comes.
    world.relays.spawn(still);
    world.add(&["a", "b"]).await;
    world.done().await;
    let repeated = world.check(&[("a", 4), ("b", 2)]);
    assert!(repeated > 0, "it had nothing under way");
}

/// Goal: a long transaction that has written an event down holds up its own key, and no other relay's
/// or transaction's work; what others commit meanwhile is published.
/// Method: on a server, hold a transaction of one key open, whose earlier event is under way; commit
/// others, in the reversed order of their beginning; then the first.
async fn whoever_adds_for_long_holds_up_nobody_else(place: Place) {
    // A file has one writer at a time.
    if place.is_file() {
        return;
    }
    let mut world = World::new(place, 1).await;
    world.publish();
    world.add(&["a"]).await;
    world.taken(1).await;
    let mut long = world.database.begin("test.long").await.unwrap();
    let event = "late".to_owned();
    world.outbox.add(&mut long, "a", &event).await.unwrap();
    let mut short = world.database.begin("test.short").await.unwrap();
    world.outbox.add(&mut short, "b", &event).await.unwrap();
    short.commit().await.unwrap();
    world.taken(2).await;
    world.add(&["b", "c"]).await;
    world.taken(4).await;
    world.check(&[("a", 1), ("b", 2), ("c", 1)]);
    long.commit().await.unwrap();
    world.taken(5).await;
    world.done().await;
    assert_eq!(0, world.check(&[("a", 2), ("b", 2), ("c", 1)]));
}

/// Goal: events that were done with long ago are forgotten, and numbers go on from where they were.
/// Method: publish some, start a relay that keeps none, and add another one.
async fn old_events_are_forgotten(place: Place) {
    let mut world = World::new(place, 1).await;
    let stopping = world.publish();
    world.add(&["a", "b"]).await;
    world.done().await;
    stopping.cancel();
    time::timeout(SOON, world.relays.join_next()).await.unwrap();
    let retention = Duration::ZERO;
    let outbox = world.outbox.clone();
    let settings = Config {
        retention,
        ..quick()
    };
    world.start(&outbox, settings);
    let forgotten = async {
        while world.count(&ALL).await > 0 {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(SOON, forgotten)
        .await
        .expect("they are forgotten");
    world.add(&["a"]).await;
    world.taken(3).await;
    assert_eq!(0, world.check(&[("a", 2), ("b", 1)]));
}

/// Goal: an event that could not be published is refused where it is written down.
/// Method: keys and bodies at their bounds and beyond.
async fn impossible_events_are_refused(place: Place) {
    let world = World::new(place, 1).await;
    let longest = "k".repeat(gantry_events::KEY_MAX);
    let too_long = format!("{longest}k");
    let body = "b".repeat(gantry_events::BODY_MAX);
    for (key, event, expected) in [
        ("", "", "is empty; expected"),
        (&*longest, "", "fine"),
        (&*too_long, "", "has 201 bytes; expected 200 at most"),
        ("k", &*body, "bytes; expected 262144 at most"),
        ("k", &body[10..], "fine"),
    ] {
        let mut transaction = world.database.begin("test.add").await.unwrap();
        let event = event.to_owned();
        let added = world.outbox.add(&mut transaction, key, &event).await;
        let said = added.map_or_else(|error| chain(&error), |_| "fine".to_owned());
        assert!(said.contains(expected), "{said}");
    }
}

/// Goal: an event that somebody has damaged holds up its key, and nothing else; put right, it goes on.
/// Method: damage the second of three events of a key beside another one, then mend it.
async fn one_that_cannot_be_read_holds_up_its_own_key(place: Place) {
    const DAMAGE: Statement = Statement::new(
        "test.damage",
        "UPDATE event_outbox SET headers = 'x' || headers
         WHERE aggregate_key = 'a' AND sequence = 2",
    );
    const MEND: Statement = Statement::new(
        "test.mend",
        "UPDATE event_outbox SET headers = SUBSTR(headers, 2)
         WHERE aggregate_key = 'a' AND sequence = 2",
    );
    let mut world = World::new(place, 1).await;
    world.add(&["a", "a", "a", "b", "b"]).await;
    let damage = world.database.statement(&DAMAGE).execute().await;
    assert_eq!(1, damage.unwrap());
    world.publish();
    world.taken(3).await;
    world.check(&[("a", 1), ("b", 2)]);
    world.database.statement(&MEND).execute().await.unwrap();
    world.done().await;
    assert_eq!(0, world.check(&[("a", 3), ("b", 2)]));
}

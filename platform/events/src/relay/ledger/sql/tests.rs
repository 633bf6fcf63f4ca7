use std::sync::Arc;

use gantry::config::Live;
use gantry_harness::database::Place;
use tokio::{
    task::JoinSet,
    time::{self, Duration, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{super::Release, *};
use crate::{
    BODY_MAX, Outbox, Relay,
    broker::{Broker as _, Group, memory::Memory},
    relay::Config,
};

/// Longest wait for what should come soon, on a busy machine.
const SOON: Duration = Duration::from_mins(1);

const RELAY: &str = "test";
/// As much as there is.
const ALL: Most = Most {
    keys: 100,
    events: 1_000,
    bytes: 1_000_000,
};

gantry_harness::on_both!(
    each_key_has_its_share,
    bodies_are_read_up_to_a_bound,
    what_is_written_down_is_not_claimed_again,
    times_far_away_are_brought_near,
    long_bodies_are_published_bit_by_bit,
    a_key_that_many_add_to_has_its_turn,
);

struct World {
    place: Place,
    database: Database,
    outbox: Outbox,
    ledger: Sql,
}

async fn opened(place: &Place) -> Database {
    let config = gantry_store::Config {
        url: place.url().parse().unwrap(),
        pool_max: 24,
        acquire_timeout: SOON,
        statement_timeout: SOON,
        open_timeout: SOON,
        ..gantry_store::Config::default()
    };
    Database::open(&config, &[]).await.unwrap()
}

impl World {
    async fn new(place: Place) -> Self {
        let database = opened(&place).await;
        let outbox = Outbox::open(&database, "orders").await.unwrap();
        let ledger = Sql::new(database.clone());
        let until = ledger.now().after(SOON);
        ledger.enter(RELAY, until).await.unwrap();
        Self {
            place,
            database,
            outbox,
            ledger,
        }
    }

    /// Commits so many events of each key, each with a body of that length.
    async fn add(&self, keys: &[&str], count: usize, bytes: usize) {
        let event = "x".repeat(bytes);
        let mut transaction = self.database.begin("test.add").await.unwrap();
        for _ in 0..count {
            for key in keys {
                let added = self.outbox.add(&mut transaction, key, &event).await;
                added.unwrap();
            }
        }
        transaction.commit().await.unwrap();
    }

    /// Claims, and answers the numbers of the events of each key, and whether it has some that were not
    /// read.
    async fn claim(&self, claim: i64, most: Most) -> Vec<(String, Vec<i64>, bool)> {
        let claimed = self.ledger.claim(RELAY, claim, most).await.unwrap();
        let mut claimed: Vec<_> = claimed
            .into_iter()
            .map(|it| {
                let events = it.events.iter().map(|event| event.sequence);
                (it.key, events.collect(), it.unread)
            })
            .collect();
        claimed.sort();
        claimed
    }
}

fn key(name: &str, events: &[i64], unread: bool) -> (String, Vec<i64>, bool) {
    (name.to_owned(), events.to_vec(), unread)
}

/// Goal: however many events keys have, as many are looked at as were asked for, shared among the keys.
/// Method: claim some keys with many events, for fewer than there are.
async fn each_key_has_its_share(place: Place) {
    let world = World::new(place).await;
    world.add(&["a", "b", "c"], 10, 1).await;
    let few = Most { events: 7, ..ALL };
    let shares = [
        key("a", &[1, 2, 3], false),
        key("b", &[1, 2, 3], false),
        key("c", &[1, 2, 3], false),
    ];
    assert_eq!(shares.to_vec(), world.claim(1, few).await);
}

/// Goal: bodies are read as far as they were asked for, the first of each key before the second of any;
/// keys without any are told from such as have none.
/// Method: claim some keys for fewer bytes than there are: for all of the first events, and for some.
async fn bodies_are_read_up_to_a_bound(place: Place) {
    let world = World::new(place).await;
    world.add(&["a", "b", "c"], 2, 1_000).await;
    let some = Most {
        bytes: 3_500,
        ..ALL
    };
    let claimed = world.claim(1, some).await;
    let counts: Vec<_> = claimed.iter().map(|(_, events, _)| events.len()).collect();
    assert_eq!((3, 4), (counts.len(), counts.iter().sum()), "{claimed:?}");
    assert!(
        claimed
            .iter()
            .all(|(_, events, unread)| events[0] == 1 && !unread)
    );
    // As nobody is known, all of it is free again.
    world.ledger.leave(RELAY).await.unwrap();
    let few = Most { bytes: 1, ..ALL };
    let claimed = world.claim(2, few).await;
    let unread = claimed
        .iter()
        .filter(|(_, events, unread)| events.is_empty() && *unread);
    assert_eq!((3, 2), (claimed.len(), unread.count()), "{claimed:?}");
    let read = claimed
        .iter()
        .filter(|(_, events, unread)| *events == [1] && !unread);
    assert_eq!(1, read.count(), "{claimed:?}");
}

/// Goal: what is written down as sent while its key stays claimed is not claimed again by whoever comes
/// next, however little they ask for; and a key that is given back has no more than what is left.
/// Method: settle some events of a key without giving it back; claim it as another relay; give it back
/// with further ones settled, and claim again.
async fn what_is_written_down_is_not_claimed_again(place: Place) {
    let world = World::new(place).await;
    world.add(&["a"], 8, 1).await;
    world.claim(1, ALL).await;
    let outcome = |before, sent, release: Option<Release>| Outcome {
        key: "a".to_owned(),
        before,
        sent,
        dropped: Vec::new(),
        advances: release.is_some(),
        release,
    };
    let settled = [Settled::Written].to_vec();
    let five = [outcome(0, 5, None)];
    assert_eq!(settled, world.ledger.settle(RELAY, &five).await.unwrap());
    world.ledger.leave(RELAY).await.unwrap();
    let few = Most { events: 2, ..ALL };
    assert_eq!(vec![key("a", &[6, 7], false)], world.claim(2, few).await);

    // Whoever had it before knows no better, and what they know is true.
    let release = Some(Release {
        due_at: world.ledger.now(),
        tries: 0,
    });
    let seven = [outcome(5, 7, release)];
    assert_eq!(settled, world.ledger.settle(RELAY, &seven).await.unwrap());
    let lost = [Settled::Lost].to_vec();
    assert_eq!(lost, world.ledger.settle(RELAY, &seven).await.unwrap());
    assert_eq!(vec![key("a", &[8], false)], world.claim(3, ALL).await);
    let until = world.ledger.now().after(SOON);
    world.ledger.enter(RELAY, until).await.unwrap();
    assert_eq!(
        Vec::<(String, Vec<i64>, bool)>::new(),
        world.claim(4, ALL).await
    );
}

/// Goal: keys and relays of a clock that was ahead are no further away than the longest pauses, once that
/// is right.
/// Method: times of a year ahead, and such as may be; bring them near.
async fn times_far_away_are_brought_near(place: Place) {
    const AHEAD: Statement = Statement::new(
        "test.ahead",
        "UPDATE event_aggregates SET due_at = $1 WHERE aggregate_key = 'a'",
    );
    let world = World::new(place).await;
    world.add(&["a", "b"], 1, 1).await;
    let (now, year) = (world.ledger.now(), Duration::from_hours(24 * 365));
    let ahead = world.database.statement(&AHEAD).bind(now.after(year));
    ahead.execute().await.unwrap();
    world.ledger.enter("ahead", now.after(year)).await.unwrap();
    assert_eq!(vec![key("b", &[1], false)], world.claim(1, ALL).await);
    let near = async |due| world.ledger.bring_near(due, now.after(SOON)).await.unwrap();
    assert_eq!(1, near(now).await);
    assert_eq!(vec![key("a", &[1], false)], world.claim(2, ALL).await);
    assert_eq!(0, near(now).await);
    let later = now.after(2 * SOON);
    assert!(
        world
            .ledger
            .renew(RELAY, later, later.after(SOON))
            .await
            .unwrap()
    );
    // It was known for another year.
    assert!(!world.ledger.renew("ahead", later, later).await.unwrap());
}

/// A broker that has a group for all events.
async fn broker() -> Memory {
    let broker = Memory::new(1);
    let group = Group {
        name: "test.all".to_owned(),
        partitions: 4,
        topics: vec!["google.protobuf.StringValue".to_owned()],
        queue_messages_max: None,
    };
    broker.declare(&group).await.unwrap();
    broker
}

/// Goal: events that are long together are read bit by bit, and published without a pause between.
/// Method: more than is read at once, with pauses that are longer than the test; wait for all of them.
async fn long_bodies_are_published_bit_by_bit(place: Place) {
    const KEYS: usize = 100;
    let world = World::new(place).await;
    let keys: Vec<_> = (0..KEYS).map(|number| format!("k{number}")).collect();
    let keys: Vec<&str> = keys.iter().map(|key| &**key).collect();
    world.add(&keys, 1, BODY_MAX - 10).await;
    let broker = broker().await;
    let config = Config {
        pause_min: 2 * SOON,
        pause_max: 2 * SOON,
        ..Config::default()
    };
    let relay = Relay::new(&world.outbox, Arc::new(broker.clone()), Live::fixed(config));
    let all = async {
        while broker.taken().len() < KEYS {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = relay.run(CancellationToken::new()) => unreachable!("nobody stops it"),
        all = time::timeout(SOON, all) => all.expect("all are published"),
    }
}

/// Goal: a key that has somebody adding to it at any time has its events published all the same.
/// Method: on a server, many who add to one key, each keeping it for a while; how old the oldest event
/// becomes that waits.
async fn a_key_that_many_add_to_has_its_turn(place: Place) {
    const OLDEST: Statement = Statement::new(
        "test.oldest",
        "SELECT MIN(created_at) AS oldest FROM event_outbox WHERE state = 0",
    );
    const KEEP: Statement = Statement::new("test.keep", "SELECT 1 AS one FROM pg_sleep(0.02)");
    // A file has one writer at a time.
    if place.is_file() {
        return;
    }
    let world = World::new(place).await;
    let mut all = JoinSet::new();
    for _ in 0..16 {
        let (database, outbox) = (world.database.clone(), world.outbox.clone());
        all.spawn(async move {
            loop {
                let mut transaction = database.begin("test.add").await.unwrap();
                // Others may have it for longer than anybody waits.
                let event = "happened".to_owned();
                if outbox.add(&mut transaction, "a", &event).await.is_ok() {
                    transaction.statement(&KEEP).fetch_one().await.unwrap();
                    transaction.commit().await.unwrap();
                }
            }
        });
    }
    // Its own connections: none of those that add waits for it there.
    let outbox = Outbox::over(&opened(&world.place).await, "orders");
    let config = Live::fixed(Config::default());
    let relay = Relay::new(&outbox, Arc::new(broker().await), config);
    all.spawn(relay.run(CancellationToken::new()));
    let began = Instant::now();
    let mut oldest = Duration::ZERO;
    while began.elapsed() < Duration::from_secs(15) {
        time::sleep(Duration::from_millis(50)).await;
        let row = world.database.statement(&OLDEST).fetch_one().await.unwrap();
        let at = row.optional_integer("oldest").unwrap();
        let age = at.map_or(0, |at| Timestamp::now().micros() - at);
        oldest = oldest.max(Duration::from_micros(
            u64::try_from(age).unwrap_or_default(),
        ));
    }
    assert!(oldest < Duration::from_secs(8), "{oldest:?}");
}

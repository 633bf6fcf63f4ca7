//! What events ask of a database: each statement is a way to a server and back.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gantry::{
    config::Live,
    names::field,
    testing::telemetry::{self, Capture},
};
use gantry_events::{
    Outbox, Relay,
    broker::{Broker as _, Group, memory::Memory},
    relay::Config,
};
use gantry_harness::database::Place;
use gantry_store::Database;
use tokio::time;
use tokio_util::sync::CancellationToken;

/// Longest wait for what should come soon, on a busy machine.
const SOON: Duration = Duration::from_mins(1);

gantry_harness::on_both!(
    () an_event_is_written_down_by_few_statements,
    a_relay_asks_for_all_of_a_window_at_once,
);

async fn opened(place: &Place) -> (Database, Outbox) {
    let config = gantry_store::Config {
        url: place.url().parse().unwrap(),
        acquire_timeout: SOON,
        statement_timeout: SOON,
        busy_timeout: SOON,
        open_timeout: SOON,
        ..gantry_store::Config::default()
    };
    let database = Database::open(&config, &[]).await.unwrap();
    let outbox = Outbox::open(&database, "orders").await.unwrap();
    (database, outbox)
}

async fn add(database: &Database, outbox: &Outbox, keys: usize) {
    let mut transaction = database.begin("test.add").await.unwrap();
    for number in 0..keys {
        let (key, event) = (format!("k{number}"), "happened".to_owned());
        let added = outbox.add(&mut transaction, &key, &event).await;
        added.unwrap();
    }
    transaction.commit().await.unwrap();
}

/// How often each statement was run since there were `before` spans, once so many have ended.
async fn counted(capture: &Capture, before: usize, least: usize) -> BTreeMap<String, usize> {
    let spans = loop {
        // The engine's thread lets go of a span a moment after it has answered.
        let mut spans = capture.spans().split_off(before);
        // Messages have spans, too.
        spans.retain(|span| span.attributes.contains_key(field::DB_SYSTEM));
        if spans.len() >= least {
            break spans;
        }
        tokio::task::yield_now().await;
    };
    let mut counts = BTreeMap::new();
    for span in spans {
        *counts.entry(span.name).or_default() += 1;
    }
    counts
}

/// Goal: an event costs a transaction one statement on a server, and two on a file, where they are no
/// way to go.
/// Method: three of them in a transaction; count.
async fn an_event_is_written_down_by_few_statements(place: Place) {
    let capture = telemetry::capture();
    let (database, outbox) = opened(&place).await;
    time::sleep(Duration::from_millis(1)).await;
    let before = capture.spans().len();
    add(&database, &outbox, 3).await;
    let mut expected = vec![
        ("events.next_sequence", 3),
        ("store.commit", 1),
        ("test.add", 1),
    ];
    if place.is_file() {
        expected.push(("events.add", 3));
    }
    let least = expected.iter().map(|(_, count)| count).sum();
    let counts = counted(&capture, before, least).await;
    let expected: BTreeMap<_, usize> = expected
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect();
    assert_eq!(expected, counts);
}

/// Goal: what a relay asks of its database does not grow with the number of keys.
/// Method: two hundred events, each of another key; count until all are written down as published.
async fn a_relay_asks_for_all_of_a_window_at_once(place: Place) {
    const KEYS: usize = 200;
    let capture = telemetry::capture();
    let (database, outbox) = opened(&place).await;
    add(&database, &outbox, KEYS).await;
    let broker = Memory::new(1);
    let group = Group {
        name: "test.all".to_owned(),
        partitions: 4,
        topics: vec!["google.protobuf.StringValue".to_owned()],
        queue_messages_max: None,
    };
    broker.declare(&group).await.unwrap();
    let config = Live::fixed(Config::default());
    let relay = Relay::new(&outbox, Arc::new(broker.clone()), config);
    let before = capture.spans().len();
    let stopping = CancellationToken::new();
    let ending = async {
        while broker.taken().len() < KEYS {
            time::sleep(Duration::from_millis(1)).await;
        }
        stopping.cancel();
    };
    let both = async { tokio::join!(relay.run(stopping.clone()), ending) };
    time::timeout(SOON, both).await.expect("all is published");
    let counts = counted(&capture, before, 8).await;
    // Once, or as often as some were confirmed while others were written down.
    for (name, most) in [
        ("events.claim", 3),
        ("events.claimed", 3),
        ("events.advance", 20),
        ("events.mark", 20),
        ("events.held", 0),
    ] {
        let count = counts.get(name).copied().unwrap_or(0);
        assert!(count <= most, "{name}: {count} of {counts:?}");
    }
}

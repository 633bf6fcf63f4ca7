use std::{collections::BTreeSet, num::NonZeroU32};

use bytes::Bytes;
use tokio::time::Instant;

use super::*;
use crate::{
    Message,
    broker::{Group, Settle, Subscription, memory::Memory},
    headers::{ATTEMPT, FIRST_SEEN, SOURCE, TRACEPARENT},
};

const GROUP: &str = "notifications.notices";
const TOPIC: &str = "shop.orders.v1.OrderPlaced";
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn headers(pairs: &[(&str, &str)]) -> Headers {
    let pairs = pairs.iter();
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.map(owned).collect()
}

/// A broker with a group of one queue.
async fn broker() -> Memory {
    let broker = Memory::new(1);
    let group = Group {
        name: GROUP.to_owned(),
        partitions: 1,
        topics: vec![TOPIC.to_owned()],
        queue_messages_max: None,
    };
    broker.declare(&group).await.unwrap();
    broker
}

/// What a consumer says of an event that it cannot do.
fn why(reason: &str) -> Headers {
    headers(&[
        (ATTEMPT, "5"),
        (FIRST_SEEN, "2026-01-01T00:00:00Z"),
        (DEAD_REASON, reason),
        (DEAD_ERROR, "no such account"),
        (DEAD_ATTEMPTS, "5"),
        (DEAD_TIME, "2026-01-01T00:01:00Z"),
    ])
}

/// Has `ids` become dead letters, in their order.
async fn bury(broker: &Memory, ids: &[String]) {
    let mut queue = broker.subscribe(GROUP, 0, 1).await.unwrap();
    for id in ids {
        let message = Message {
            topic: TOPIC.to_owned(),
            key: "order-1".to_owned(),
            headers: headers(&[(ID, id), (SOURCE, "/orders"), (TRACEPARENT, TRACE)]),
            body: Bytes::from_static(b"\x0a\x01a"),
        };
        broker.publish(message).await.unwrap();
        reject(&mut *queue, "rejected").await;
    }
}

async fn reject(queue: &mut dyn Subscription, reason: &str) {
    let delivery = queue.next().await.unwrap();
    let settled = queue
        .settler()
        .settle(delivery.tag, Settle::Reject(why(reason)))
        .await;
    settled.unwrap();
}

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("event-{number}")).collect()
}

/// The letters of a walk.
async fn all(broker: &Memory, chosen: &Chosen) -> Vec<DeadLetter> {
    let mut walk = Walk::begin(broker, GROUP, chosen).await.unwrap();
    let mut letters = Vec::new();
    while let Some(letter) = walk.next().await.unwrap() {
        letters.push(letter);
    }
    letters
}

async fn only(broker: &Memory) -> DeadLetter {
    let letters = all(broker, &Chosen::default()).await;
    let [letter] = letters.try_into().unwrap();
    letter
}

/// Goal: a letter that goes back begins anew, with all that says where it comes from, and is counted.
/// Method: send one back; look at what its queue hands out.
#[tokio::test(start_paused = true)]
async fn a_letter_goes_back_as_new() {
    let broker = broker().await;
    bury(&broker, &ids(1)).await;
    let letter = only(&broker).await;
    assert_eq!(Some(5), letter.attempts());
    assert_eq!(Some("rejected"), letter.reason());
    assert_eq!(Some("no such account"), letter.error());
    assert_eq!(Some("2026-01-01T00:01:00Z"), letter.time());
    let outcome = redrive(&broker, GROUP, &letter, REDRIVEN_MAX).await;
    assert_eq!(Outcome::Done, outcome.unwrap());
    assert!(all(&broker, &Chosen::default()).await.is_empty());
    let mut queue = broker.subscribe(GROUP, 0, 1).await.unwrap();
    let message = queue.next().await.unwrap().message;
    let expected = [
        (ID, "event-0"),
        (SOURCE, "/orders"),
        (TRACEPARENT, TRACE),
        (REDRIVEN, "1"),
    ];
    assert_eq!(headers(&expected), message.headers);
    assert_eq!(
        (TOPIC, "order-1", &b"\x0a\x01a"[..]),
        (&*message.topic, &*message.key, &*message.body)
    );
}

/// Goal: what fails again and again does not go round for ever, but when somebody says so.
/// Method: one that fails each time; then a higher bound; one whose count cannot be read.
#[tokio::test(start_paused = true)]
async fn nothing_goes_round_for_ever() {
    let broker = broker().await;
    bury(&broker, &ids(1)).await;
    let mut queue = broker.subscribe(GROUP, 0, 1).await.unwrap();
    for count in 0..REDRIVEN_MAX {
        let letter = only(&broker).await;
        assert_eq!(count, letter.redriven());
        let outcome = redrive(&broker, GROUP, &letter, REDRIVEN_MAX).await;
        assert_eq!(Outcome::Done, outcome.unwrap());
        reject(&mut *queue, "rejected").await;
    }
    let letter = only(&broker).await;
    let outcome = redrive(&broker, GROUP, &letter, REDRIVEN_MAX).await;
    assert_eq!(Outcome::TooOften, outcome.unwrap());
    assert_eq!(letter, only(&broker).await, "it stays");
    let outcome = redrive(&broker, GROUP, &letter, REDRIVEN_MAX + 1).await;
    assert_eq!(Outcome::Done, outcome.unwrap());
    let mut strange = letter;
    let headers = &mut strange.message.headers;
    headers.insert(REDRIVEN.to_owned(), "often".to_owned());
    let outcome = redrive(&broker, GROUP, &strange, REDRIVEN_MAX).await;
    assert_eq!(Outcome::TooOften, outcome.unwrap());
}

/// Goal: a walk through all ends, though what it sends back becomes a letter again at once.
/// Method: more letters than a page has, each of which is rejected again as soon as it is back.
#[tokio::test(start_paused = true)]
async fn a_walk_ends_with_what_was_there() {
    let broker = broker().await;
    let ids = ids(usize::from(PAGE) * 2 + 3);
    bury(&broker, &ids).await;
    let mut queue = broker.subscribe(GROUP, 0, 1).await.unwrap();
    let chosen = Chosen::default();
    let mut walk = Walk::begin(&broker, GROUP, &chosen).await.unwrap();
    let mut seen = Vec::new();
    while let Some(letter) = walk.next().await.unwrap() {
        seen.push(letter.id().unwrap().to_owned());
        assert!(seen.len() <= ids.len(), "it does not end");
        let outcome = redrive(&broker, GROUP, &letter, REDRIVEN_MAX).await;
        assert_eq!(Outcome::Done, outcome.unwrap());
        reject(&mut *queue, "rejected").await;
    }
    assert_eq!(ids, seen);
    assert_eq!(ids.len(), all(&broker, &chosen).await.len());
}

/// Goal: letters are named by place or event, or chosen by topic and reason; names that are none
/// are told.
/// Method: four letters of two reasons.
#[tokio::test(start_paused = true)]
async fn letters_are_chosen() {
    let broker = broker().await;
    bury(&broker, &ids(3)).await;
    let message = only_first(&broker).await.message;
    broker.publish(message).await.unwrap();
    let mut queue = broker.subscribe(GROUP, 0, 1).await.unwrap();
    reject(&mut *queue, Reason::Malformed.as_str()).await;
    let letters = all(&broker, &Chosen::default()).await;
    let places: Vec<_> = letters.iter().map(|letter| letter.place).collect();
    let found = async |chosen: Chosen| {
        let letters = all(&broker, &chosen).await;
        let places = letters.into_iter().map(|letter| letter.place);
        places.collect::<Vec<_>>()
    };
    let reason = |reason| Chosen {
        reason: Some(reason),
        ..Chosen::default()
    };
    assert_eq!(places[..3], found(reason(Reason::Rejected)).await);
    assert_eq!(places[3..], found(reason(Reason::Malformed)).await);
    let topic = |topic: &str| Chosen {
        topic: Some(topic.to_owned()),
        ..Chosen::default()
    };
    assert_eq!(places, found(topic(TOPIC)).await);
    assert!(found(topic("shop.orders.v1.Other")).await.is_empty());
    let place = places[1].to_string();
    let names = ["event-2", &place, "nobody"].map(|name| name.parse::<Name>().unwrap());
    let chosen = Chosen {
        names: names.iter().cloned().collect(),
        ..Chosen::default()
    };
    let mut walk = Walk::begin(&broker, GROUP, &chosen).await.unwrap();
    let mut seen = BTreeSet::new();
    while let Some(letter) = walk.next().await.unwrap() {
        seen.insert(letter.place);
    }
    assert_eq!(BTreeSet::from([places[1], places[2]]), seen);
    assert_eq!(vec![&names[2]], walk.missing().collect::<Vec<_>>());
}

async fn only_first(broker: &Memory) -> DeadLetter {
    all(broker, &Chosen::default()).await.swap_remove(0)
}

/// Goal: letters go no faster than asked for, and what is not meant costs no time.
/// Method: 21 letters at ten a second; one of them by its name.
#[tokio::test(start_paused = true)]
async fn a_walk_keeps_its_pace() {
    let broker = broker().await;
    bury(&broker, &ids(21)).await;
    let rate = NonZeroU32::new(10).unwrap();
    let pace = async |chosen: Chosen| {
        let walk = Walk::begin(&broker, GROUP, &chosen).await.unwrap();
        let (mut walk, begun) = (walk.paced(rate), Instant::now());
        while walk.next().await.unwrap().is_some() {}
        begun.elapsed()
    };
    assert_eq!(Duration::from_secs(2), pace(Chosen::default()).await);
    let one = Chosen::one("event-20".parse().unwrap());
    assert_eq!(Duration::ZERO, pace(one).await);
}

/// Goal: a letter that somebody else has settled is told as that, and dropping drops.
/// Method: drop one; then drop it, and send it back, once more.
#[tokio::test(start_paused = true)]
async fn a_letter_can_be_gone() {
    let broker = broker().await;
    bury(&broker, &ids(2)).await;
    let letter = only_first(&broker).await;
    let outcome = discard(&broker, GROUP, &letter).await;
    assert_eq!(Outcome::Done, outcome.unwrap());
    let outcome = discard(&broker, GROUP, &letter).await;
    assert_eq!(Outcome::Gone, outcome.unwrap());
    let outcome = redrive(&broker, GROUP, &letter, REDRIVEN_MAX).await;
    assert_eq!(Outcome::Gone, outcome.unwrap());
    assert_eq!(Some("event-1"), only(&broker).await.id());
    broker.disconnect();
    let failed = discard(&broker, GROUP, &letter).await;
    assert!(matches!(failed, Err(BrokerError::Disconnected(_))));
}

/// Goal: whatever a broker calls it, the reason of a dead letter is one of ours.
/// Method: every word that RabbitMQ has, and one that it has not.
#[test]
fn a_broker_has_reasons_of_ours() {
    let words = ["delivery_limit", "rejected", "expired", "maxlen", "new"];
    let reasons = words.map(|word| Reason::of_rabbit(word).as_str());
    let ours = [
        "never_settled",
        "rejected",
        "expired",
        "no_room",
        "given_up",
    ];
    assert_eq!(ours, reasons);
}

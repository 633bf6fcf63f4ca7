//! Looking at what is published.

use std::time::Duration;

use crate::{
    broker::{
        Settle, Sighting, Tail,
        contract::{Case, Scope, case, headers_of, is_unroutable, soon, until},
    },
    headers::SUBJECT,
};

pub(super) const CASES: &[Case] = &[
    case!(what_is_published_is_seen),
    case!(a_tail_sees_its_topics_alone),
    case!(what_comes_again_is_not_seen_again),
    case!(looking_takes_nothing),
];

/// Looks at topics of the case.
async fn look(scope: &Scope<'_>, topics: &[&str]) -> Box<dyn Tail> {
    let topics: Vec<_> = topics.iter().map(|topic| scope.topic(topic)).collect();
    let tail = soon("a look at events", scope.broker.tail(&topics)).await;
    tail.expect("a look at events")
}

async fn see(tail: &mut dyn Tail) -> Sighting {
    let seen = soon("an event to be seen", tail.next()).await;
    seen.expect("a look that goes on")
}

async fn what_is_published_is_seen(scope: &Scope<'_>) {
    // Two groups want it: it is seen once.
    let groups = [
        scope.group("one", 1, &["Told"]),
        scope.group("two", 2, &["Told"]),
    ];
    for group in &groups {
        scope.declare(group).await;
    }
    let mut tail = look(scope, &["Told"]).await;
    let sent = scope.told("a", 12_345);
    scope.publish(sent.clone()).await;
    scope.tell("b", [7]).await;
    let mut headers = sent.headers;
    headers.remove(SUBJECT).expect("a key among its headers");
    let expected = Sighting {
        topic: sent.topic,
        headers,
        body_bytes: 5,
        missed: 0,
    };
    assert_eq!(expected, see(&mut *tail).await);
    assert_eq!(1, see(&mut *tail).await.body_bytes);
}

async fn a_tail_sees_its_topics_alone(scope: &Scope<'_>) {
    let group = scope.group("simple", 1, &["Told", "Other", "Third"]);
    scope.declare(&group).await;
    let mut tail = look(scope, &["Other", "Third"]).await;
    for topic in ["Told", "Other", "Told", "Third"] {
        let mut message = scope.told("a", 1);
        message.topic = scope.topic(topic);
        scope.publish(message).await;
    }
    assert_eq!(scope.topic("Other"), see(&mut *tail).await.topic);
    assert_eq!(scope.topic("Third"), see(&mut *tail).await.topic);
}

async fn what_comes_again_is_not_seen_again(scope: &Scope<'_>) {
    let group = scope.simple().await;
    let mut tail = look(scope, &["Told"]).await;
    scope.tell("a", [1]).await;
    assert_eq!(1, see(&mut *tail).await.body_bytes);
    let mut reader = scope.subscribe(&group, 1).await;
    let delivery = reader.next().await;
    reader.settle(&delivery, Settle::Requeue).await;
    let delivery = reader.next().await;
    let later = Settle::Retry {
        after: Duration::from_millis(1),
        headers: headers_of(&[]),
    };
    reader.settle(&delivery, later).await;
    let delivery = reader.next().await;
    reader
        .settle(&delivery, Settle::Reject(headers_of(&[])))
        .await;
    let letters = until("a dead letter", async || {
        let listed = scope.broker.dead_letters(&group.name, 0, 1).await;
        listed.ok().filter(|letters| !letters.is_empty())
    })
    .await;
    let settled = scope.broker.settle_dead_letter(
        &group.name,
        &letters[0],
        Some(letters[0].message.headers.clone()),
    );
    soon("a dead letter to be settled", settled)
        .await
        .expect("a dead letter");
    let delivery = reader.next().await;
    reader.settle(&delivery, Settle::Ack).await;
    scope.tell("a", [22]).await;
    assert_eq!(2, see(&mut *tail).await.body_bytes, "only the next");
}

async fn looking_takes_nothing(scope: &Scope<'_>) {
    let group = scope.simple().await;
    let tail = look(scope, &["Told", "Lonely"]).await;
    let mut message = scope.told("a", 1);
    message.topic = scope.topic("Lonely");
    let published = soon("an answer", scope.broker.publish(message)).await;
    assert!(is_unroutable(&published), "{published:?}");
    scope.tell("a", 0..50).await;
    let mut reader = scope.subscribe(&group, 100).await;
    assert_eq!((0..50).collect::<Vec<_>>(), reader.finish(50).await);
    drop(tail);
    scope.tell("a", [50]).await;
    assert_eq!(vec![50], reader.finish(1).await);
}

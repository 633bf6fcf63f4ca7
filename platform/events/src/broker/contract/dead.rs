//! Messages that nobody could do.

use std::collections::BTreeSet;

use crate::{
    broker::{
        DeadLetter, Group, Headers, Settle,
        contract::{Case, Scope, case, headers_of, is_missing, number_of, soon, until},
    },
    bucket,
};

pub(super) const CASES: &[Case] = &[
    case!(what_is_rejected_becomes_a_dead_letter),
    case!(dead_letters_are_listed_in_pages),
    case!(a_dead_letter_is_put_back_into_its_queue),
    case!(a_dead_letter_is_dropped),
    case!(groups_have_dead_letters_of_their_own),
];

/// Publishes messages to a partition, and rejects each.
async fn reject(scope: &Scope<'_>, group: &Group, key: &str, count: usize, headers: &Headers) {
    scope.tell(key, 0..count).await;
    let partition = bucket(key) % group.partitions;
    let mut reader = scope.subscribe_to(group, partition, 10).await;
    for _ in 0..count {
        let delivery = reader.next().await;
        reader
            .settle(&delivery, Settle::Reject(headers.clone()))
            .await;
    }
    reader.stays_quiet().await;
}

/// The dead letters of a group, once there are that many.
async fn letters(scope: &Scope<'_>, group: &Group, count: usize) -> Vec<DeadLetter> {
    until("dead letters", async || {
        let listed = soon("a list", scope.broker.dead_letters(&group.name, 0, 100)).await;
        let listed = listed.expect("a list");
        (listed.len() == count).then_some(listed)
    })
    .await
}

fn numbers(letters: &[DeadLetter]) -> Vec<usize> {
    letters.iter().map(|it| number_of(&it.message)).collect()
}

async fn settle(scope: &Scope<'_>, group: &Group, letter: &DeadLetter, headers: Option<Headers>) {
    let settled = scope
        .broker
        .settle_dead_letter(&group.name, letter, headers);
    let settled = soon("a dead letter to be settled", settled).await;
    settled.expect("a dead letter");
}

async fn what_is_rejected_becomes_a_dead_letter(scope: &Scope<'_>) {
    let group = scope.group("dead", 3, &["Told"]);
    scope.declare(&group).await;
    let sent = scope.told("a", 7);
    scope.publish(sent.clone()).await;
    let partition = bucket("a") % 3;
    let mut reader = scope.subscribe_to(&group, partition, 10).await;
    let delivery = reader.next().await;
    let why = headers_of(&[
        ("gantry-dead-reason", "rejected"),
        ("gantry-dead-error", "no such order"),
        ("gantry-attempt", "4"),
    ]);
    reader.settle(&delivery, Settle::Reject(why.clone())).await;
    let found = letters(scope, &group, 1).await;
    let mut expected = sent;
    expected.headers.extend(why);
    assert_eq!(expected, found[0].message);
    assert_eq!(partition, found[0].partition);
    // It is there however often it is looked at, for others too, and comes no more by itself.
    assert_eq!(found, letters(scope, &group, 1).await);
    let other = scope.stand.client();
    let listed = soon("a list", other.dead_letters(&group.name, 0, 100)).await;
    assert_eq!(found, listed.expect("a list"));
    reader.stays_quiet().await;
}

async fn dead_letters_are_listed_in_pages(scope: &Scope<'_>) {
    let group = scope.simple().await;
    reject(scope, &group, "a", 7, &headers_of(&[])).await;
    let all = letters(scope, &group, 7).await;
    assert_eq!((0..7).collect::<Vec<_>>(), numbers(&all));
    let places: BTreeSet<_> = all.iter().map(|letter| letter.place).collect();
    assert_eq!(7, places.len(), "each has a place of its own");
    assert!(all.is_sorted_by_key(|letter| letter.place));
    let mut paged = Vec::new();
    loop {
        let after = paged.last().map_or(0, |letter: &DeadLetter| letter.place);
        let page = soon("a page", scope.broker.dead_letters(&group.name, after, 3)).await;
        let page = page.expect("a page");
        assert!(page.len() <= 3);
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(all, paged);
}

async fn a_dead_letter_is_put_back_into_its_queue(scope: &Scope<'_>) {
    let group = scope.group("again", 3, &["Told"]);
    scope.declare(&group).await;
    let why = headers_of(&[("gantry-dead-reason", "rejected"), ("gantry-attempt", "4")]);
    reject(scope, &group, "a", 3, &why).await;
    let all = letters(scope, &group, 3).await;
    let partition = bucket("a") % 3;
    scope.tell("a", [10]).await;
    let mut headers = all[1].message.headers.clone();
    headers.remove("gantry-dead-reason");
    headers.extend(headers_of(&[("gantry-redriven", "1")]));
    settle(scope, &group, &all[1], Some(headers.clone())).await;
    let mut reader = scope.subscribe_to(&group, partition, 1).await;
    assert_eq!(vec![10], reader.finish(1).await, "it is at the end");
    let delivery = reader.next().await;
    let mut expected = all[1].message.clone();
    expected.headers = headers;
    assert_eq!(expected, delivery.message);
    reader.settle(&delivery, Settle::Ack).await;
    assert_eq!(vec![0, 2], numbers(&letters(scope, &group, 2).await));
    // It is not there any more, whoever asks.
    let again = scope
        .broker
        .settle_dead_letter(&group.name, &all[1], Some(headers_of(&[])));
    let again = soon("an answer", again).await;
    assert!(is_missing(&again), "{again:?}");
    reader.stays_quiet().await;
    // Rejected once more, it is a dead letter once more.
    settle(scope, &group, &all[0], Some(headers_of(&[]))).await;
    let delivery = reader.next().await;
    assert!(delivery.message.headers.is_empty(), "{delivery:?}");
    reader.settle(&delivery, Settle::Reject(why)).await;
    assert_eq!(vec![2, 0], numbers(&letters(scope, &group, 2).await));
}

async fn a_dead_letter_is_dropped(scope: &Scope<'_>) {
    let group = scope.simple().await;
    reject(scope, &group, "a", 3, &headers_of(&[])).await;
    let all = letters(scope, &group, 3).await;
    settle(scope, &group, &all[2], None).await;
    assert_eq!(vec![0, 1], numbers(&letters(scope, &group, 2).await));
    let again = scope.broker.settle_dead_letter(&group.name, &all[2], None);
    let again = soon("an answer", again).await;
    assert!(is_missing(&again), "{again:?}");
    for letter in &all[..2] {
        settle(scope, &group, letter, None).await;
    }
    letters(scope, &group, 0).await;
    let mut reader = scope.subscribe(&group, 10).await;
    reader.stays_quiet().await;
}

async fn groups_have_dead_letters_of_their_own(scope: &Scope<'_>) {
    let (one, other) = (
        scope.group("one", 1, &["Told"]),
        scope.group("other", 1, &["Told"]),
    );
    for group in [&one, &other] {
        scope.declare(group).await;
    }
    reject(scope, &one, "a", 2, &headers_of(&[])).await;
    letters(scope, &one, 2).await;
    letters(scope, &other, 0).await;
    let mut reader = scope.subscribe(&other, 10).await;
    assert_eq!(vec![0, 1], reader.finish(2).await);
}

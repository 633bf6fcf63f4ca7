//! What is left after connections broke off, and after the broker itself was killed.

use std::{collections::BTreeSet, time::Duration};

use crate::broker::{
    PublishError, Settle,
    contract::{Case, Scope, case, headers_of, number, soon, until},
};

pub(super) const CASES: &[Case] = &[
    case!(a_broken_connection_gives_back_what_was_not_settled),
    case!(what_is_confirmed_survives_broken_connections),
    case!(what_belongs_to_a_lost_connection_goes_by_no_other),
    case!(all_that_is_kept_survives_a_restart),
    case!(what_is_confirmed_survives_restarts),
];

/// Says which cases a stand cannot do.
#[expect(clippy::print_stderr, reason = "what is left out is told")]
fn left_out(can: bool) -> bool {
    if !can {
        eprintln!("broker contract: left out, as this broker cannot be treated so");
    }
    !can
}

async fn a_broken_connection_gives_back_what_was_not_settled(scope: &Scope<'_>) {
    let group = scope.simple().await;
    scope.tell("a", 0..5).await;
    let mut reader = scope.subscribe(&group, 3).await;
    let (numbers, deliveries) = reader.take(3).await;
    assert_eq!(vec![0, 1, 2], numbers);
    if left_out(scope.stand.cut().await) {
        return;
    }
    reader.ends().await;
    let settled = reader.settler.settle(deliveries[0].tag, Settle::Ack).await;
    settled.expect_err("its subscription has ended");
    let mut reader = scope.subscribe_again(&group, 0, 5).await;
    let (numbers, deliveries) = reader.take(5).await;
    assert_eq!(vec![0, 1, 2, 3, 4], numbers);
    for delivery in &deliveries[..3] {
        assert!(delivery.redelivered, "it was handed out: {delivery:?}");
    }
    // The client is as good as new.
    for delivery in &deliveries {
        reader.settle(delivery, Settle::Ack).await;
    }
    scope.insist(scope.told("a", 5)).await;
    assert_eq!(vec![5], reader.finish(1).await);
}

async fn what_is_confirmed_survives_broken_connections(scope: &Scope<'_>) {
    let cut = async || scope.stand.cut().await;
    sent_through(scope, 60, cut).await;
}

async fn what_belongs_to_a_lost_connection_goes_by_no_other(scope: &Scope<'_>) {
    let group = scope.simple().await;
    let broker = &scope.broker;
    let epoch = soon("a connection", broker.epoch()).await;
    let epoch = epoch.expect("a connection");
    assert!(epoch > 0);
    let publish = async |epoch, number| {
        let published = broker.publish_by(Some(epoch), scope.told("a", number));
        soon("an end", published).await
    };
    publish(epoch, 0).await.expect("a confirmed message");
    assert_eq!(Some(epoch), broker.epoch().await.ok());
    if left_out(scope.stand.cut().await) {
        return;
    }
    // Whether anybody has noticed yet or not.
    let at_once = publish(epoch, 1).await;
    let another = async || {
        let another = broker.epoch().await.ok();
        another.filter(|another| *another != epoch)
    };
    let another = until("another connection", another).await;
    let late = publish(epoch, 2).await;
    for refused in [at_once, late] {
        let gone = matches!(refused, Err(PublishError::Disconnected(_)));
        assert!(gone, "{refused:?}");
    }
    publish(another, 3).await.expect("a confirmed message");
    let mut reader = scope.subscribe_again(&group, 0, 5).await;
    assert_eq!(vec![0, 3], reader.finish(2).await);
}

async fn what_is_confirmed_survives_restarts(scope: &Scope<'_>) {
    let restart = async || scope.stand.restart().await;
    sent_through(scope, 400, restart).await;
}

/// Sends messages of two keys while something befalls the broker three times, and reads them all.
async fn sent_through(scope: &Scope<'_>, count: usize, mut befalls: impl AsyncFnMut() -> bool) {
    let group = scope.group("through", 1, &["Told"]);
    scope.declare(&group).await;
    let send = async |key: &str, numbers: std::ops::Range<usize>| {
        for number in numbers {
            scope.insist(scope.told(key, number)).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let trouble = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(30)).await;
            if !befalls().await {
                return false;
            }
        }
        true
    };
    let (can, (), ()) = tokio::join!(trouble, send("a", 0..count), send("b", count..2 * count));
    if left_out(can) {
        return;
    }
    let mut seen = [const { Vec::new() }; 2];
    let mut different = BTreeSet::new();
    let mut reader = scope.subscribe_again(&group, 0, 20).await;
    while different.len() < 2 * count {
        let delivery = reader.next().await;
        reader.settle(&delivery, Settle::Ack).await;
        if different.insert(number(&delivery)) {
            seen[usize::from(delivery.message.key == "b")].push(number(&delivery));
        }
    }
    // Some came more than once; by when they came first, they are in order.
    for numbers in &seen {
        assert!(numbers.is_sorted(), "{numbers:?}");
    }
}

async fn all_that_is_kept_survives_a_restart(scope: &Scope<'_>) {
    let group = scope.group("kept", 1, &["Told"]);
    scope.declare(&group).await;
    scope.tell("a", 0..8).await;
    let mut reader = scope.subscribe(&group, 4).await;
    let (_, deliveries) = reader.take(4).await;
    let note = headers_of(&[("gantry-attempt", "1")]);
    let later = Settle::Retry {
        after: Duration::from_secs(1),
        headers: note.clone(),
    };
    reader.settle(&deliveries[0], later).await;
    reader
        .settle(&deliveries[1], Settle::Reject(note.clone()))
        .await;
    if left_out(scope.stand.restart().await) {
        return;
    }
    reader.ends().await;
    let mut reader = scope.subscribe_again(&group, 0, 20).await;
    let mut first = Vec::new();
    let mut retried = false;
    while first.len() < 6 || !retried {
        let delivery = reader.next().await;
        reader.settle(&delivery, Settle::Ack).await;
        match number(&delivery) {
            // The copy that is to come later; the first one may come too, if its end got lost.
            0 => {
                let tries = delivery.message.headers.get("gantry-attempt");
                retried |= tries == note.get("gantry-attempt");
            }
            1 => assert!(delivery.redelivered, "its end got lost"),
            number => first.push(number),
        }
    }
    assert_eq!(vec![2, 3, 4, 5, 6, 7], first);
    let dead = async || {
        let listed = scope.broker.dead_letters(&group.name, 0, 10).await;
        listed.ok().filter(|listed| !listed.is_empty())
    };
    let dead = until("a dead letter", dead).await;
    assert_eq!(deliveries[1].message.body, dead[0].message.body);
    scope.insist(scope.told("a", 9)).await;
    assert_eq!(vec![9], reader.finish(1).await);
}

//! In which order messages come, how many at once, and to whom.

use std::collections::BTreeSet;

use tokio::{task::JoinSet, time};

use crate::broker::{
    PublishError, Settle,
    contract::{Case, INTERVAL, Reader, Scope, case, message, number, soon},
};

pub(super) const CASES: &[Case] = &[
    case!(a_queue_keeps_the_order),
    case!(messages_sent_at_once_all_arrive),
    case!(each_message_has_the_answer_that_is_its_own),
    case!(prefetch_bounds_what_is_handed_out),
    case!(to_wait_for_a_message_can_be_given_up),
    case!(one_subscription_has_a_queue_and_hands_it_over),
    case!(what_is_not_settled_comes_again_first),
];

async fn a_queue_keeps_the_order(scope: &Scope<'_>) {
    let group = scope.simple().await;
    let mut reader = scope.subscribe(&group, 20).await;
    scope.tell("a", 0..50).await;
    assert_eq!((0..50).collect::<Vec<_>>(), reader.finish(50).await);
    // Those that waited before anybody read come in order as well.
    drop(reader);
    scope.tell("a", 50..100).await;
    let mut reader = scope.subscribe(&group, 20).await;
    assert_eq!((50..100).collect::<Vec<_>>(), reader.finish(50).await);
}

async fn messages_sent_at_once_all_arrive(scope: &Scope<'_>) {
    let group = scope.simple().await;
    let mut sending = JoinSet::new();
    for number in 0..200 {
        let (broker, message) = (scope.broker.clone(), scope.told("a", number));
        sending.spawn(async move { broker.publish(message).await });
    }
    while let Some(sent) = soon("confirmations", sending.join_next()).await {
        sent.expect("no panic").expect("a confirmed message");
    }
    let mut reader = scope.subscribe(&group, 20).await;
    let numbers = reader.finish(200).await;
    let different: BTreeSet<_> = numbers.iter().copied().collect();
    assert_eq!(200, different.len(), "each comes once: {numbers:?}");
}

async fn each_message_has_the_answer_that_is_its_own(scope: &Scope<'_>) {
    let group = scope.simple().await;
    let mut sending = JoinSet::new();
    for number in 0..300 {
        // Every third is wanted by nobody.
        let topic = if number % 3 == 0 { "Unwanted" } else { "Told" };
        let message = message(scope.topic(topic), "a", number);
        let broker = scope.broker.clone();
        sending.spawn(async move { (number, broker.publish(message).await) });
    }
    let mut taken = BTreeSet::new();
    while let Some(sent) = soon("answers", sending.join_next()).await {
        let (number, published) = sent.expect("no panic");
        match published {
            Ok(()) => assert!(taken.insert(number)),
            Err(PublishError::Unroutable) => assert_eq!(0, number % 3, "{number} is wanted"),
            Err(error) => panic!("{number}: {error}"),
        }
    }
    let mut reader = scope.subscribe(&group, 20).await;
    let arrived: BTreeSet<_> = reader.finish(200).await.into_iter().collect();
    assert_eq!(taken, arrived, "what is confirmed is there");
}

async fn prefetch_bounds_what_is_handed_out(scope: &Scope<'_>) {
    let group = scope.simple().await;
    scope.tell("a", 0..5).await;
    let mut reader = scope.subscribe(&group, 2).await;
    let (numbers, deliveries) = reader.take(2).await;
    assert_eq!(vec![0, 1], numbers);
    reader.stays_quiet().await;
    // Whichever is settled makes room for one.
    reader.settle(&deliveries[1], Settle::Ack).await;
    let (numbers, _) = reader.take(1).await;
    assert_eq!(vec![2], numbers);
    reader.stays_quiet().await;
}

async fn to_wait_for_a_message_can_be_given_up(scope: &Scope<'_>) {
    let group = scope.simple().await;
    let mut reader = scope.subscribe(&group, 50).await;
    let mut numbers = Vec::new();
    let sending = scope.tell("a", 0..30);
    let reading = async {
        while numbers.len() < 30 {
            // Mostly too short for a message to come within it.
            let next = time::timeout(INTERVAL / 20, reader.subscription.next());
            if let Ok(delivery) = next.await {
                numbers.push(number(&delivery.expect("it goes on")));
            }
        }
    };
    soon("messages", async { tokio::join!(sending, reading) }).await;
    assert_eq!((0..30).collect::<Vec<_>>(), numbers);
}

async fn one_subscription_has_a_queue_and_hands_it_over(scope: &Scope<'_>) {
    let group = scope.simple().await;
    let mut first = scope.subscribe(&group, 5).await;
    scope.tell("a", 0..3).await;
    let (numbers, deliveries) = first.take(3).await;
    assert_eq!(vec![0, 1, 2], numbers);
    let other = scope.stand.client();
    let subscribed = soon("a subscription", other.subscribe(&group.name, 0, 5)).await;
    let mut second = Reader::new(subscribed.expect("one that waits"));
    scope.tell("a", 3..5).await;
    second.stays_quiet().await;
    let (numbers, _) = first.take(2).await;
    assert_eq!(vec![3, 4], numbers);
    first.settle(&deliveries[1], Settle::Ack).await;
    drop(first);
    // All that the first has not settled, in order; then what is new.
    assert_eq!(vec![0, 2, 3, 4], second.finish(4).await);
    scope.tell("a", [5]).await;
    assert_eq!(vec![5], second.finish(1).await);
}

async fn what_is_not_settled_comes_again_first(scope: &Scope<'_>) {
    let group = scope.simple().await;
    scope.tell("a", 0..6).await;
    let mut reader = scope.subscribe(&group, 3).await;
    let (numbers, deliveries) = reader.take(3).await;
    assert_eq!(vec![0, 1, 2], numbers);
    reader.settle(&deliveries[0], Settle::Ack).await;
    let settler = reader.subscription.settler();
    drop(reader);
    // Whoever still holds the other end of it is told, and changes nothing.
    let late = soon("an answer", settler.settle(deliveries[1].tag, Settle::Ack)).await;
    late.expect_err("its subscription has ended");
    let mut reader = scope.subscribe(&group, 10).await;
    let (numbers, deliveries) = reader.take(5).await;
    assert_eq!(vec![1, 2, 3, 4, 5], numbers);
    let marked: Vec<_> = deliveries.iter().map(|it| it.redelivered).collect();
    assert!(marked[0] && marked[1], "they came before: {marked:?}");
}

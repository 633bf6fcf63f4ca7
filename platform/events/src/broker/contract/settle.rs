//! What becomes of messages by how they are settled, as long as somebody may do them.

use std::time::Duration;

use tokio::time::Instant;

use crate::broker::{
    Settle,
    contract::{Case, Scope, case, headers_of},
};

/// The shortest time that every broker can have a message wait.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) const CASES: &[Case] = &[
    case!(what_is_acked_never_comes_again),
    case!(what_is_put_back_comes_again_before_others),
    case!(what_is_to_be_retried_comes_again_later),
    case!(retries_come_again_where_they_were),
];

async fn what_is_acked_never_comes_again(scope: &Scope<'_>) {
    let group = scope.simple().await;
    scope.tell("a", 0..10).await;
    let mut reader = scope.subscribe(&group, 20).await;
    let (_, deliveries) = reader.take(10).await;
    // In any order.
    for delivery in deliveries.iter().rev() {
        reader.settle(delivery, Settle::Ack).await;
    }
    drop(reader);
    scope.tell("a", [10]).await;
    let mut reader = scope.subscribe(&group, 20).await;
    assert_eq!(vec![10], reader.finish(1).await);
}

async fn what_is_put_back_comes_again_before_others(scope: &Scope<'_>) {
    let group = scope.simple().await;
    scope.tell("a", 0..4).await;
    let mut reader = scope.subscribe(&group, 1).await;
    let first = reader.next().await;
    assert!(!first.redelivered);
    reader.settle(&first, Settle::Requeue).await;
    let again = reader.next().await;
    assert_eq!(first.message, again.message);
    assert!(again.redelivered, "it was handed out before");
    reader.settle(&again, Settle::Ack).await;
    assert_eq!(vec![1, 2, 3], reader.finish(3).await);
    // Several at once keep the order among them.
    drop(reader);
    scope.tell("a", 10..13).await;
    let mut reader = scope.subscribe(&group, 3).await;
    let (_, deliveries) = reader.take(3).await;
    for delivery in &deliveries {
        reader.settle(delivery, Settle::Requeue).await;
    }
    assert_eq!(vec![10, 11, 12], reader.finish(3).await);
}

async fn what_is_to_be_retried_comes_again_later(scope: &Scope<'_>) {
    let group = scope.simple().await;
    scope.publish(scope.told("a", 0)).await;
    scope.tell("a", 1..3).await;
    let mut reader = scope.subscribe(&group, 1).await;
    let first = reader.next().await;
    let started = Instant::now();
    let headers = headers_of(&[("gantry-attempt", "1"), ("sequence", "7")]);
    let later = Settle::Retry {
        after: PAUSE,
        headers: headers.clone(),
    };
    reader.settle(&first, later).await;
    // It holds nobody up.
    assert_eq!(vec![1, 2], reader.finish(2).await);
    let again = reader.next().await;
    // Clocks of two programs may differ a little in how they measure.
    let waited = started.elapsed();
    assert!(waited > PAUSE.mul_f64(0.95), "after {waited:?}");
    let mut expected = first.message.clone();
    expected.headers.extend(headers);
    assert_eq!(expected, again.message);
    // And once more, as often as it is asked for.
    let later = Settle::Retry {
        after: Duration::from_millis(1),
        headers: headers_of(&[("gantry-attempt", "2")]),
    };
    reader.settle(&again, later).await;
    let again = reader.next().await;
    expected
        .headers
        .extend(headers_of(&[("gantry-attempt", "2")]));
    assert_eq!(expected, again.message);
    reader.settle(&again, Settle::Ack).await;
    reader.stays_quiet().await;
}

async fn retries_come_again_where_they_were(scope: &Scope<'_>) {
    let group = scope.group("several", 4, &["Told"]);
    let other = scope.group("other", 4, &["Told"]);
    scope.declare(&group).await;
    scope.declare(&other).await;
    let mut readers = Vec::new();
    for partition in 0..4 {
        readers.push(scope.subscribe_to(&group, partition, 1).await);
    }
    let partition = usize::from(crate::bucket("a") % 4);
    scope.tell("a", [1]).await;
    let delivery = readers[partition].next().await;
    let later = Settle::Retry {
        after: PAUSE,
        headers: headers_of(&[]),
    };
    readers[partition].settle(&delivery, later).await;
    assert_eq!(vec![1], readers[partition].finish(1).await);
    for reader in &mut readers {
        reader.stays_quiet().await;
    }
    // The other group has the one copy it always had.
    let mut reader = scope.subscribe_to(&other, crate::bucket("a") % 4, 10).await;
    assert_eq!(vec![1], reader.finish(1).await);
    reader.stays_quiet().await;
}

//! Which messages go where: groups, topics, partitions, and what is not there.

use crate::{
    broker::{
        BrokerError, Fill, PublishError, Settle,
        contract::{
            Case, Scope, case, headers_of, is_missing, is_unroutable, message, soon, until,
        },
    },
    bucket,
};

/// Most messages in a queue that is meant to be full. Brokers may take some more than that.
const FULL: u64 = 10;

pub(super) const CASES: &[Case] = &[
    case!(the_broker_answers),
    case!(each_group_that_wants_a_topic_has_its_copy),
    case!(a_message_arrives_as_it_was_sent),
    case!(a_key_decides_on_the_partition),
    case!(what_nobody_wants_is_unroutable),
    case!(what_others_want_is_not_let_go),
    case!(topics_are_let_go_that_are_not_wanted_any_more),
    case!(a_full_queue_refuses_until_there_is_room),
    case!(to_declare_again_keeps_messages),
    case!(another_number_of_partitions_is_refused),
    case!(what_is_not_there_is_missing),
    case!(a_removed_group_is_gone),
    case!(how_full_a_group_is_can_be_read),
];

async fn the_broker_answers(scope: &Scope<'_>) {
    let answer = soon("an answer", scope.broker.ping()).await;
    answer.expect("a broker that answers");
}

async fn each_group_that_wants_a_topic_has_its_copy(scope: &Scope<'_>) {
    let both = scope.group("both", 1, &["Told", "Sold"]);
    let one = scope.group("one", 1, &["Sold"]);
    for group in [&both, &one] {
        scope.declare(group).await;
    }
    scope.tell("a", [1]).await;
    scope.publish(message(scope.topic("Sold"), "a", 2)).await;
    let mut of_both = scope.subscribe(&both, 10).await;
    let mut of_one = scope.subscribe(&one, 10).await;
    assert_eq!(vec![1, 2], of_both.finish(2).await);
    assert_eq!(vec![2], of_one.finish(1).await);
    for reader in [&mut of_both, &mut of_one] {
        reader.stays_quiet().await;
    }
}

async fn a_message_arrives_as_it_was_sent(scope: &Scope<'_>) {
    let group = scope.simple().await;
    let mut sent = scope.told("order 7, of Zoë", 0);
    sent.body = (0..=u8::MAX).cycle().take(100_000).collect();
    let headers = [
        ("sequence", "18446744073709551615"),
        ("time", "2026-11-30T08:00:00.123456789Z"),
        ("dataschema", "protobuf:shop.orders.v1.OrderPlaced/1"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("tracestate", "a=1,b=2"),
        ("gantry-attempt", "3"),
        ("gantry-note", "grün, 緑, and \"quotes\""),
        ("empty", ""),
        ("long", &"x".repeat(4_000)),
    ];
    sent.headers.extend(headers_of(&headers));
    let mut bare = scope.told("", 0);
    bare.body.clear();
    bare.headers.clear();
    scope.publish(sent.clone()).await;
    scope.publish(bare.clone()).await;
    let mut reader = scope.subscribe(&group, 10).await;
    for expected in [sent, bare] {
        let delivery = reader.next().await;
        assert_eq!(expected, delivery.message);
        assert!(!delivery.redelivered, "it comes for the first time");
        reader.settle(&delivery, Settle::Ack).await;
    }
}

async fn a_key_decides_on_the_partition(scope: &Scope<'_>) {
    let group = scope.group("spread", 3, &["Told"]);
    scope.declare(&group).await;
    let mut expected = [const { Vec::new() }; 3];
    for number in 0..40 {
        let key = format!("key-{number}");
        expected[usize::from(bucket(&key) % 3)].push(number);
        scope.tell(&key, [number]).await;
    }
    for (partition, expected) in (0..).zip(expected) {
        assert!(!expected.is_empty(), "keys for each partition");
        let mut reader = scope.subscribe_to(&group, partition, 50).await;
        assert_eq!(expected, reader.finish(expected.len()).await);
        reader.stays_quiet().await;
    }
}

async fn what_nobody_wants_is_unroutable(scope: &Scope<'_>) {
    let group = scope.simple().await;
    for topic in ["Sold", "Told.More", "Tol"] {
        let unwanted = message(scope.topic(topic), "a", 1);
        let published = soon("an answer", scope.broker.publish(unwanted)).await;
        assert!(is_unroutable(&published), "{topic}: {published:?}");
    }
    // Nothing of it is in the way of what is wanted.
    scope.tell("a", [2]).await;
    let mut reader = scope.subscribe(&group, 10).await;
    assert_eq!(vec![2], reader.finish(1).await);
}

async fn what_others_want_is_not_let_go(scope: &Scope<'_>) {
    let both = scope.group("news", 1, &["Told", "Sold"]);
    scope.declare(&both).await;
    // As by an instance of another version, which handles others of them.
    let client = scope.stand.client();
    let other = scope.group("news", 1, &["Told", "Held"]);
    soon("an answer", client.declare(&other))
        .await
        .expect("a group that is there");
    for (number, topic) in (1..).zip(["Told", "Sold", "Held"]) {
        let sent = message(scope.topic(topic), "a", number);
        scope.publish(sent).await;
    }
    let mut reader = scope.subscribe(&both, 10).await;
    assert_eq!(vec![1, 2, 3], reader.finish(3).await);
    // Who lets go does so of all that was added.
    let narrowed = soon(
        "an answer",
        client.narrow(&scope.group("news", 1, &["Held"])),
    )
    .await;
    narrowed.expect("a group that is there");
    for topic in ["Told", "Sold"] {
        let unwanted = message(scope.topic(topic), "a", 4);
        let published = soon("an answer", scope.broker.publish(unwanted)).await;
        assert!(is_unroutable(&published), "{topic}: {published:?}");
    }
}

async fn topics_are_let_go_that_are_not_wanted_any_more(scope: &Scope<'_>) {
    let mut group = scope.group("news", 2, &["Told", "Sold"]);
    scope.declare(&group).await;
    scope.publish(message(scope.topic("Sold"), "a", 1)).await;
    group.topics = vec![scope.topic("Told"), scope.topic("Held")];
    let narrowed = soon("an answer", scope.broker.narrow(&group)).await;
    narrowed.expect("a group that is there");
    let sold = message(scope.topic("Sold"), "a", 2);
    let published = soon("an answer", scope.broker.publish(sold)).await;
    assert!(is_unroutable(&published), "{published:?}");
    scope.tell("a", [3]).await;
    scope.publish(message(scope.topic("Held"), "a", 4)).await;
    // What came while it was wanted, is kept.
    let partition = bucket("a") % 2;
    let mut reader = scope.subscribe_to(&group, partition, 10).await;
    assert_eq!(vec![1, 3, 4], reader.finish(3).await);
}

async fn a_full_queue_refuses_until_there_is_room(scope: &Scope<'_>) {
    let mut group = scope.group("full", 1, &["Told"]);
    group.queue_messages_max = Some(FULL);
    scope.declare(&group).await;
    let mut taken = Vec::new();
    let refusal = loop {
        let number = taken.len();
        let published = soon("an answer", scope.broker.publish(scope.told("a", number))).await;
        match published {
            Ok(()) => taken.push(number),
            Err(refusal) => break refusal,
        }
        assert!(taken.len() < 1_000, "a queue for {FULL} takes no end");
    };
    assert!(matches!(refusal, PublishError::Refused(_)), "{refusal:?}");
    assert!(!refusal.may_be_taken());
    assert!(
        taken.len() as u64 >= FULL,
        "it refuses after {}",
        taken.len()
    );
    let mut reader = scope.subscribe(&group, 10).await;
    assert_eq!(taken, reader.finish(taken.len()).await);
    scope.insist(scope.told("a", 5_000)).await;
    assert_eq!(vec![5_000], reader.finish(1).await);
}

async fn to_declare_again_keeps_messages(scope: &Scope<'_>) {
    let group = scope.simple().await;
    scope.tell("a", [1]).await;
    let other = scope.stand.client();
    for broker in [&scope.broker, &other] {
        let again = soon("a group that is there", broker.declare(&group)).await;
        again.expect("the same group");
    }
    scope.tell("a", [2]).await;
    let mut reader = scope.subscribe(&group, 10).await;
    assert_eq!(vec![1, 2], reader.finish(2).await);
    reader.stays_quiet().await;
}

async fn another_number_of_partitions_is_refused(scope: &Scope<'_>) {
    let group = scope.group("shape", 2, &["Told"]);
    scope.declare(&group).await;
    scope.tell("a", [1]).await;
    for partitions in [1, 3] {
        let mut other = group.clone();
        other.partitions = partitions;
        let declared = soon("an answer", scope.broker.declare(&other)).await;
        let Err(BrokerError::OtherShape { what, difference }) = declared else {
            panic!("{partitions} in place of 2 partitions: {declared:?}");
        };
        assert!(what.contains(&group.name), "{what}");
        assert!(!difference.is_empty());
    }
    // It is as it was.
    scope.tell("a", [2]).await;
    let mut reader = scope.subscribe_to(&group, bucket("a") % 2, 10).await;
    assert_eq!(vec![1, 2], reader.finish(2).await);
}

async fn what_is_not_there_is_missing(scope: &Scope<'_>) {
    let nobody = scope.group("nobody", 1, &[]).name;
    let broker = &scope.broker;
    let subscribed = soon("an answer", broker.subscribe(&nobody, 0, 1)).await;
    assert!(is_missing(&subscribed), "{subscribed:?}");
    let fill = soon("an answer", broker.fill(&nobody)).await;
    assert!(is_missing(&fill), "{fill:?}");
    let letters = soon("an answer", broker.dead_letters(&nobody, 0, 1)).await;
    assert!(is_missing(&letters), "{letters:?}");
    let removed = soon("an answer", broker.remove(&nobody)).await;
    assert!(removed.is_ok(), "{removed:?}");
    assert!(!known(scope, &nobody).await);
    let group = scope.simple().await;
    assert!(known(scope, &group.name).await);
    let subscribed = soon("an answer", broker.subscribe(&group.name, 1, 1)).await;
    assert!(is_missing(&subscribed), "{subscribed:?}");
}

/// Whether the broker says that a group is there.
async fn known(scope: &Scope<'_>, group: &str) -> bool {
    let known = soon("an answer", scope.broker.knows(group)).await;
    known.expect("an answer")
}

async fn a_removed_group_is_gone(scope: &Scope<'_>) {
    let group = scope.simple().await;
    scope.tell("a", [1]).await;
    let mut reader = scope.subscribe(&group, 1).await;
    reader.take(1).await;
    let removed = soon("a removal", scope.broker.remove(&group.name)).await;
    removed.expect("a removed group");
    assert!(!known(scope, &group.name).await);
    reader.ends().await;
    let subscribed = soon("an answer", scope.broker.subscribe(&group.name, 0, 1)).await;
    assert!(is_missing(&subscribed), "{subscribed:?}");
    let published = soon("an answer", scope.broker.publish(scope.told("a", 2))).await;
    assert!(is_unroutable(&published), "{published:?}");
    // One that is made under its name has nothing of it.
    let mut again = group.clone();
    again.partitions = 2;
    scope.declare(&again).await;
    scope.tell("a", [3]).await;
    let mut reader = scope.subscribe_to(&again, bucket("a") % 2, 10).await;
    assert_eq!(vec![3], reader.finish(1).await);
}

async fn how_full_a_group_is_can_be_read(scope: &Scope<'_>) {
    let group = scope.group("fill", 2, &["Told"]);
    scope.declare(&group).await;
    let partition = bucket("a") % 2;
    scope.tell("a", 0..5).await;
    let mut reader = scope.subscribe_to(&group, partition, 4).await;
    let (_, deliveries) = reader.take(4).await;
    let later = Settle::Retry {
        after: super::SOON,
        headers: headers_of(&[]),
    };
    reader.settle(&deliveries[0], later).await;
    let reject = Settle::Reject(headers_of(&[]));
    reader.settle(&deliveries[1], reject).await;
    reader.settle(&deliveries[2], Settle::Ack).await;
    // Two are in hand then: one that was, and the last.
    reader.take(1).await;
    let mut ready = vec![0, 0];
    let expected = async || {
        let fill = scope.broker.fill(&group.name).await.expect("a group");
        let expected = Fill {
            ready: ready.clone(),
            unsettled: 2,
            delayed: 1,
            strays: 0,
            dead_letters: 1,
            consumers: 1,
        };
        (fill == expected).then_some(())
    };
    until("two in hand, one for later and one dead letter", expected).await;
    drop(reader);
    ready[usize::from(partition)] = 2;
    let expected = async || {
        let fill = scope.broker.fill(&group.name).await.expect("a group");
        (fill.ready == ready && fill.unsettled == 0 && fill.consumers == 0).then_some(())
    };
    until("two that wait", expected).await;
}

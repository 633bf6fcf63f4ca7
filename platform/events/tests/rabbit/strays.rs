//! A queue that is deleted, and what is published while it is gone.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use gantry::status::chain;
use gantry_events::{
    Message,
    broker::{Broker, BrokerError, Delivery, Group, PublishError, Settle},
};
use gantry_harness::wait::{self, SOON};
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::stand::Server;

const TOPIC: &str = "strays.v1.Told";
const PARTITIONS: u16 = 2;

fn group(name: &str) -> Group {
    Group {
        name: name.to_owned(),
        partitions: PARTITIONS,
        topics: vec![TOPIC.to_owned()],
        queue_messages_max: None,
    }
}

fn told(key: usize, number: usize) -> Message {
    Message {
        topic: TOPIC.to_owned(),
        key: format!("k{key}"),
        headers: [("id".to_owned(), format!("{key}-{number}"))].into(),
        body: number.to_string().into(),
    }
}

/// Publishes `numbers` of each of some keys: those of one after the other, those of different ones at once.
async fn publish(rabbit: &dyn Broker, keys: usize, numbers: std::ops::Range<usize>) {
    let of_key = async |key| {
        for number in numbers.clone() {
            rabbit.publish(told(key, number)).await.unwrap();
        }
    };
    join_all((0..keys).map(of_key)).await;
}

/// What has come of each key, in the order in which each came first: after a connection that broke off, as on a
/// machine that is busy, some come again.
type Seen = BTreeMap<String, Vec<usize>>;

fn note(seen: &mut Seen, delivery: &Delivery) {
    let number = std::str::from_utf8(&delivery.message.body).unwrap();
    let of_key = seen.entry(delivery.message.key.clone()).or_default();
    let number = number.parse().unwrap();
    if !of_key.contains(&number) {
        of_key.push(number);
    }
}

/// Reads and acks what comes to a group until there are that many different ones.
async fn read(rabbit: &dyn Broker, group: &Group, count: usize) -> Seen {
    let mut seen = Seen::new();
    let mut subscriptions = Vec::new();
    for partition in 0..group.partitions {
        let subscribe = async || rabbit.subscribe(&group.name, partition, 50).await.ok();
        let subscription = wait::until("a subscription", SOON, subscribe).await;
        let settler = subscription.settler();
        subscriptions.push((subscription, settler));
    }
    let reading = async {
        while seen.values().map(Vec::len).sum::<usize>() < count {
            for (subscription, settler) in &mut subscriptions {
                let next = time::timeout(Duration::from_millis(20), subscription.next());
                if let Ok(next) = next.await {
                    let delivery = next.expect("a subscription that goes on");
                    note(&mut seen, &delivery);
                    settler.settle(delivery.tag, Settle::Ack).await.unwrap();
                }
            }
        }
    };
    time::timeout(SOON * 2, reading).await.expect("all of it");
    seen
}

fn all(keys: usize, count: usize) -> Seen {
    let of_key = |key| (format!("k{key}"), (0..count).collect());
    (0..keys).map(of_key).collect()
}

async fn strays(rabbit: &dyn Broker, group: &Group) -> u64 {
    rabbit.fill(&group.name).await.unwrap().strays
}

/// Goal: what is published while a queue of a group is gone is lost to nobody, also where another group takes
/// the same: once somebody consumes again, it has all, in order.
/// Method: two groups, and who looks; delete a queue of one of them, and publish; make it again while what is
/// written down about the group is not to be seen, as while others read it; publish on, and have strays be moved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_queue_that_is_gone() {
    const KEYS: usize = 40;
    let Some(server) = Server::start().await else {
        return;
    };
    let rabbit = server.rabbit();
    let (deleted, other) = (group("strays.deleted"), group("strays.other"));
    rabbit.declare(&deleted).await.unwrap();
    rabbit.declare(&other).await.unwrap();
    let _looking = rabbit.tail(&[]).await.unwrap();
    publish(&*rabbit, KEYS, 0..2).await;
    assert_eq!(0, strays(&*rabbit, &deleted).await);
    let first = read(&*rabbit, &deleted, 2 * KEYS).await;
    assert_eq!(all(KEYS, 2), first);
    server
        .rabbitmq
        .lock()
        .await
        .delete_queue("strays.deleted.0");
    publish(&*rabbit, KEYS, 0..5).await;
    let purge = ["purge_queue", "strays.deleted.about"];
    server.rabbitmq.lock().await.must(&purge);
    // As who consumes does that is started again.
    let rabbit = server.rabbit();
    rabbit.declare(&deleted).await.unwrap();
    let kept = strays(&*rabbit, &deleted).await;
    assert!((5..=5 * KEYS as u64).contains(&kept), "{kept}");
    assert_eq!(0, strays(&*rabbit, &other).await);
    // What comes now is not before what came then.
    publish(&*rabbit, KEYS, 5..8).await;
    let stop = CancellationToken::new();
    let seen = async {
        let seen = read(&*rabbit, &deleted, 8 * KEYS).await;
        // It has what is published again.
        let bound = async || {
            let columns = ["list_bindings", "source_name", "destination_name"];
            let bindings = server.rabbitmq.lock().await.must(&columns);
            let of_it = "strays.deleted.parts\tstrays.deleted.0";
            let of_it = bindings.lines().filter(|line| *line == of_it);
            (of_it.count() == 32).then_some(())
        };
        wait::until("a queue that is bound", SOON, bound).await;
        stop.cancel();
        seen
    };
    let ((), seen) = tokio::join!(rabbit.tend(&deleted, &stop), seen);
    assert_eq!(all(KEYS, 8), seen);
    // Nobody moves strays any more.
    publish(&*rabbit, KEYS, 0..1).await;
    assert_eq!(0, strays(&*rabbit, &deleted).await);
    assert_eq!(all(KEYS, 8), read(&*rabbit, &other, 8 * KEYS).await);
    // A group without a queue for them, and what waits elsewhere, is seen all the same.
    for queue in ["strays.other.strays", "strays.other.wait.1s"] {
        server.rabbitmq.lock().await.delete_queue(queue);
    }
    assert_eq!(0, strays(&*rabbit, &other).await);
}

/// Goal: strays whose queue takes nothing stay where they are, and hold up none of another queue; they go on
/// once it does.
/// Method: delete both queues, of which one is to have room for two, and publish; have strays be moved; then
/// give it room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_queue_that_takes_none() {
    const KEYS: usize = 20;
    let Some(server) = Server::start().await else {
        return;
    };
    let rabbit = server.rabbit();
    let group = group("strays.full");
    rabbit.declare(&group).await.unwrap();
    {
        let rabbitmq = server.rabbitmq.lock().await;
        for partition in 0..PARTITIONS {
            rabbitmq.delete_queue(&format!("{}.{partition}", group.name));
        }
        let policy = r#"{"max-length":2}"#;
        let of = [
            "set_policy",
            "bound",
            "^strays.full.0$",
            policy,
            "--apply-to",
            "queues",
        ];
        rabbitmq.must(&of);
    }
    publish(&*rabbit, KEYS, 0..3).await;
    let all = u64::try_from(3 * KEYS).unwrap();
    assert_eq!(all, strays(&*rabbit, &group).await);
    // As who consumes does that finds them gone.
    rabbit.declare(&group).await.unwrap();
    let stop = CancellationToken::new();
    let test = async {
        let fill = async || rabbit.fill(&group.name).await.ok();
        let moved = async || {
            let fill = fill().await?;
            let [first, second] = fill.ready[..] else {
                return None;
            };
            // Those in hand are counted as well.
            (first >= 2 && second >= 15 && first + second + fill.strays == all).then_some(fill)
        };
        let fill = wait::until("those of the other queue", SOON, moved).await;
        assert!(fill.strays > 0, "{fill:?}");
        server
            .rabbitmq
            .lock()
            .await
            .must(&["clear_policy", "bound"]);
        read(&*rabbit, &group, 3 * KEYS).await
    };
    let stopped = async {
        let seen = test.await;
        stop.cancel();
        seen
    };
    let ((), seen) = tokio::join!(rabbit.tend(&group, &stop), stopped);
    assert_eq!(self::all(KEYS, 3), seen);
}

/// Goal: what nobody wants is still told to be so, and who looks takes nothing.
/// Method: publish to a topic without a group, with and without a group for another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_are_what_nobody_wants() {
    let Some(server) = Server::start().await else {
        return;
    };
    let rabbit: Arc<dyn Broker> = server.rabbit();
    let _looking = rabbit.tail(&[]).await.unwrap();
    rabbit.declare(&group("strays.some")).await.unwrap();
    let unwanted = Message {
        topic: "strays.v1.Unwanted".to_owned(),
        ..told(1, 1)
    };
    let published = rabbit.publish(unwanted).await;
    assert!(
        matches!(published, Err(PublishError::Unroutable)),
        "{published:?}"
    );
    rabbit.remove("strays.some").await.unwrap();
    let published = rabbit.publish(told(1, 1)).await;
    assert!(
        matches!(published, Err(PublishError::Unroutable)),
        "{published:?}"
    );
}

/// Goal: where what is to keep strays is there in another shape, one line says so, and what to do, after which
/// all is well.
/// Method: an exchange of that name without the argument; declare the group, remove it, and declare it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_another_shape() {
    let Some(server) = Server::start().await else {
        return;
    };
    let rabbit = server.rabbit();
    let declare = "rabbit_exchange:declare(rabbit_misc:r(<<\"/\">>, exchange, <<\"strays.other.parts\">>), \
                   topic, true, false, false, [], <<\"test\">>).";
    server.rabbitmq.lock().await.must(&["eval", declare]);
    let group = group("strays.other");
    let error = rabbit.declare(&group).await.unwrap_err();
    let shown = chain(&error);
    assert!(matches!(error, BrokerError::OtherShape { .. }), "{shown}");
    for word in [
        "strays.other.parts",
        "alternate-exchange",
        "gantry events remove",
    ] {
        assert!(shown.contains(word), "{shown}");
    }
    assert_eq!(1, shown.lines().count(), "{shown}");
    rabbit.remove(&group.name).await.unwrap();
    rabbit.declare(&group).await.unwrap();
    publish(&*rabbit, 2, 0..1).await;
    assert_eq!(0, strays(&*rabbit, &group).await);
}

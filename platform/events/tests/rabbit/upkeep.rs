//! What somebody deletes of a group that is in use.

use std::time::Duration;

use gantry_events::{
    Message,
    broker::{Broker, BrokerError, Group, Settle},
};
use gantry_harness::wait::{self, SOON};
use tokio_util::sync::CancellationToken;

use crate::stand::Server;

const TOPIC: &str = "upkeep.v1.Told";

fn group(name: &str) -> Group {
    Group {
        name: name.to_owned(),
        partitions: 2,
        topics: vec![TOPIC.to_owned()],
        queue_messages_max: None,
    }
}

fn told(key: &str) -> Message {
    Message {
        topic: TOPIC.to_owned(),
        key: key.to_owned(),
        headers: [("id".to_owned(), key.to_owned())].into(),
        body: "1".into(),
    }
}

/// Messages of a group that wait to be handed out.
async fn ready(rabbit: &dyn Broker, group: &Group) -> Option<u64> {
    let fill = rabbit.fill(&group.name).await.ok()?;
    Some(fill.ready.iter().sum())
}

/// Goal: what is deleted of a group is made again: exchanges, of which nobody is told and a relay that asks is
/// told to wait meanwhile; queues that nobody consumes from; and the queue of each consumer by that consumer.
/// Method: as said below, one after the other on one server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gone_is_made_again() {
    let Some(server) = Server::start().await else {
        return;
    };
    each_makes_its_own_queue_again(&server).await;
    queues_that_nobody_consumes_from(&server).await;
    exchanges(&server).await;
}

/// Goal: exchanges of a group that are deleted under it, of which nobody is told, are made again as long as
/// somebody consumes, and have what is published then; until then a relay that asks is told to wait.
/// Method: two groups that want the same; delete each exchange in turn, and publish until it comes.
async fn exchanges(server: &Server) {
    let rabbit = server.rabbit();
    let (deleted, other) = (group("upkeep.deleted"), group("upkeep.other"));
    rabbit.declare(&deleted).await.unwrap();
    rabbit.declare(&other).await.unwrap();
    let stop = CancellationToken::new();
    let test = async {
        for (number, exchange) in [
            "upkeep.deleted",
            "upkeep.deleted.parts",
            "upkeep.deleted.strays",
            "gantry.return",
            "gantry.events",
        ]
        .into_iter()
        .enumerate()
        {
            server.rabbitmq.lock().await.delete_exchange(exchange);
            let own = number < 2;
            if own {
                assert!(!rabbit.knows(&deleted.name).await.unwrap(), "{exchange}");
            }
            // Whoever makes an exchange again that all share, the other has what is published as well.
            for group in [&deleted, &other] {
                let before = ready(&*rabbit, group).await.unwrap();
                let comes = async || {
                    let known = rabbit.knows(&group.name).await.ok()?;
                    rabbit.publish(told("a")).await.ok()?;
                    let after = ready(&*rabbit, group).await?;
                    (known && after > before).then_some(())
                };
                wait::until(exchange, SOON, comes).await;
            }
        }
        stop.cancel();
    };
    tokio::join!(
        rabbit.tend(&deleted, &stop),
        rabbit.tend(&other, &stop),
        test
    );
}

/// Goal: what waits, or is to be a dead letter, finds its queue again that was deleted.
/// Method: delete both, and have a message come again later, and become a dead letter.
async fn queues_that_nobody_consumes_from(server: &Server) {
    let rabbit = server.rabbit();
    let group = group("upkeep.queues");
    rabbit.declare(&group).await.unwrap();
    rabbit.publish(told("a")).await.unwrap();
    let stop = CancellationToken::new();
    let test = async {
        let partition = u16::from(ready_of(&*rabbit, &group, 1).await);
        let mut subscription = rabbit.subscribe(&group.name, partition, 5).await.unwrap();
        let settler = subscription.settler();
        let delivery = subscription.next().await.unwrap();
        for queue in ["upkeep.queues.wait.1s", "upkeep.queues.dead"] {
            server.rabbitmq.lock().await.delete_queue(queue);
        }
        let later = Settle::Retry {
            after: Duration::from_millis(1),
            headers: [].into(),
        };
        settler.settle(delivery.tag, later).await.unwrap();
        let delivery = subscription.next().await.unwrap();
        let rejected = Settle::Reject([].into());
        settler.settle(delivery.tag, rejected).await.unwrap();
        let dead = async || {
            let fill = rabbit.fill(&group.name).await.ok()?;
            (fill.dead_letters == 1).then_some(())
        };
        wait::until("a dead letter", SOON, dead).await;
        stop.cancel();
    };
    tokio::join!(rabbit.tend(&group, &stop), test);
}

/// Whether the message is in that partition.
async fn ready_of(rabbit: &dyn Broker, group: &Group, partition: usize) -> bool {
    let has = async || {
        let fill = rabbit.fill(&group.name).await.ok()?;
        let some = fill.ready.iter().any(|ready| *ready > 0);
        some.then(|| fill.ready[partition] > 0)
    };
    wait::until("a message", SOON, has).await
}

/// Goal: who finds its queue gone makes that one again, and none of another consumer, which may not have heard
/// yet that its own is gone.
/// Method: delete both, and have one restored; then on a broker that has lost everything.
async fn each_makes_its_own_queue_again(server: &Server) {
    let rabbit = server.rabbit();
    let group = group("upkeep.own");
    rabbit.declare(&group).await.unwrap();
    for queue in ["upkeep.own.0", "upkeep.own.1"] {
        server.rabbitmq.lock().await.delete_queue(queue);
    }
    rabbit.restore(&group, 0).await.unwrap();
    drop(rabbit.subscribe(&group.name, 0, 5).await.unwrap());
    let missing = rabbit.subscribe(&group.name, 1, 5).await;
    assert!(
        matches!(missing, Err(BrokerError::Missing(_))),
        "{missing:?}"
    );
    rabbit.restore(&group, 1).await.unwrap();
    drop(rabbit.subscribe(&group.name, 1, 5).await.unwrap());
    rabbit.remove(&group.name).await.unwrap();
    rabbit.restore(&group, 1).await.unwrap();
    assert!(rabbit.knows(&group.name).await.unwrap());
    drop(rabbit.subscribe(&group.name, 0, 5).await.unwrap());
}

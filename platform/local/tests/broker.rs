//! The local broker, through the client that services have.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use gantry::{
    config::{Live, Size},
    journal::Journal,
    shutdown::Tasks,
};
use gantry_events::{
    Message,
    broker::{
        self, Broker, BrokerError, Config, Delivery, Group, PublishError, Settle, Subscription,
    },
};
use gantry_local::broker::{Broker as Server, Config as Serve, Data, Listen};
use tokio::time::timeout;

/// Nothing here takes long.
const SOON: Duration = Duration::from_secs(10);

/// A broker in this process, and a client of it.
struct World {
    tasks: Tasks,
    server: Tasks,
    address: std::net::SocketAddr,
    broker: Arc<dyn Broker>,
}

fn serve(config: Serve) -> (Tasks, std::net::SocketAddr) {
    let server = Server::open(config).unwrap();
    let address = server.handle().address();
    let tasks = Tasks::new(Journal::new());
    let own = tasks.clone();
    tasks.spawn("server", async move { server.run(own).await.unwrap() });
    (tasks, address)
}

impl World {
    fn new(config: Serve) -> Self {
        let (server, address) = serve(config);
        let tasks = Tasks::new(Journal::new());
        let config = Config::to(format!("grpc://{address}").parse().unwrap());
        let broker = broker::connect(&Live::fixed(config), &tasks, &Journal::new());
        Self {
            tasks,
            server,
            address,
            broker,
        }
    }

    async fn subscribe(&self, partition: u16, prefetch: u16) -> Box<dyn Subscription> {
        let subscribed = self.broker.subscribe("shop.news", partition, prefetch);
        subscribed.await.unwrap()
    }

    /// Ends the server, and lets go of its data.
    async fn end_server(&self) {
        assert!(self.server.stop_within(SOON).await.is_empty());
    }
}

fn in_folder(folder: &Path) -> Serve {
    Serve {
        data: Data::Folder(folder.to_owned()),
        ..Serve::default()
    }
}

fn group(partitions: u16) -> Group {
    Group {
        name: "shop.news".to_owned(),
        partitions,
        topics: vec!["shop.Placed".to_owned()],
        queue_messages_max: None,
    }
}

fn message(key: &str, body: &str) -> Message {
    Message {
        topic: "shop.Placed".to_owned(),
        key: key.to_owned(),
        headers: BTreeMap::from([("id".to_owned(), body.to_owned())]),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

async fn next(subscription: &mut Box<dyn Subscription>) -> Delivery {
    let next = timeout(SOON, subscription.next()).await;
    next.expect("a message in time")
        .expect("the subscription goes on")
}

fn body(delivery: &Delivery) -> &str {
    str::from_utf8(&delivery.message.body).unwrap()
}

/// Goal: a message goes from one end to the other, and what becomes of it is what was said.
/// Method: publish, settle in each way, look at how full it is.
#[tokio::test]
async fn a_message_goes_through_and_is_settled() {
    let world = World::new(Serve::default());
    let broker = &world.broker;
    let unroutable = broker.publish(message("a", "0")).await;
    assert!(matches!(unroutable, Err(PublishError::Unroutable)));
    broker.declare(&group(1)).await.unwrap();
    for body in ["1", "2", "3", "4"] {
        broker.publish(message("a", body)).await.unwrap();
    }

    let mut subscription = world.subscribe(0, 4).await;
    let settler = subscription.settler();
    let headers = BTreeMap::from([("gantry-attempt".to_owned(), "1".to_owned())]);
    for (expected, how) in [
        ("1", Settle::Ack),
        ("2", Settle::Requeue),
        (
            "3",
            Settle::Retry {
                after: Duration::from_millis(50),
                headers: headers.clone(),
            },
        ),
        ("4", Settle::Reject(headers.clone())),
    ] {
        let delivery = next(&mut subscription).await;
        assert_eq!((expected, false), (body(&delivery), delivery.redelivered));
        settler.settle(delivery.tag, how).await.unwrap();
    }
    let again = next(&mut subscription).await;
    assert_eq!(("2", true), (body(&again), again.redelivered));
    let retried = next(&mut subscription).await;
    assert_eq!("3", body(&retried));
    assert_eq!("1", retried.message.headers["gantry-attempt"]);

    let letters = broker.dead_letters("shop.news", 0, 10).await.unwrap();
    assert_eq!(1, letters.len());
    assert_eq!("4", letters[0].message.headers["id"]);
    assert_eq!("1", letters[0].message.headers["gantry-attempt"]);
    let settled = broker.settle_dead_letter("shop.news", &letters[0], Some(BTreeMap::new()));
    settled.await.unwrap();
    let redriven = next(&mut subscription).await;
    assert_eq!("4", body(&redriven));
    assert!(redriven.message.headers.is_empty());
    let fill = broker.fill("shop.news").await.unwrap();
    assert_eq!(
        (vec![0], 3, 0),
        (fill.ready, fill.unsettled, fill.dead_letters)
    );
}

/// Goal: what was taken and not settled is there after a restart, marked, and the client finds the
/// broker again by itself.
/// Method: end the server between publishing and consuming; publish, subscribe and settle after.
#[tokio::test]
async fn what_was_taken_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(in_folder(folder.path()));
    let broker = &world.broker;
    broker.declare(&group(1)).await.unwrap();
    for body in ["1", "2", "3"] {
        broker.publish(message("a", body)).await.unwrap();
    }
    let mut subscription = world.subscribe(0, 1).await;
    let first = next(&mut subscription).await;
    subscription
        .settler()
        .settle(first.tag, Settle::Ack)
        .await
        .unwrap();
    let second = next(&mut subscription).await;

    world.end_server().await;
    assert!(timeout(SOON, subscription.next()).await.unwrap().is_none());
    let settled = subscription.settler().settle(second.tag, Settle::Ack).await;
    assert!(
        matches!(settled, Err(BrokerError::Disconnected(_))),
        "{settled:?}"
    );
    let (server, _) = serve(Serve {
        listen: Listen::Address(world.address),
        ..in_folder(folder.path())
    });
    // The publisher may notice only now that its stream is gone.
    let published = async { while broker.publish(message("a", "4")).await.is_err() {} };
    timeout(SOON, published).await.unwrap();
    let mut subscription = world.subscribe(0, 10).await;
    for (expected, redelivered) in [("2", true), ("3", true), ("4", false)] {
        let delivery = next(&mut subscription).await;
        assert_eq!(
            (expected, redelivered),
            (body(&delivery), delivery.redelivered)
        );
    }
    drop(subscription);
    assert!(world.tasks.stop_within(SOON).await.is_empty());
    server.stop_within(SOON).await;
}

/// Goal: a broker without room, a queue and a group without room, and a message that is none are told
/// apart, and so is one group too many; none of them is a wrong password.
/// Method: each once, with room for six messages and five groups; what is settled makes room.
#[tokio::test]
async fn refusals_are_told_apart() {
    let world = World::new(Serve {
        messages_max: 6,
        groups_max: 5,
        message_max: Size::kib(1),
        ..Serve::default()
    });
    let broker = &world.broker;
    let bounded = Group {
        queue_messages_max: Some(2),
        ..group(1)
    };
    broker.declare(&bounded).await.unwrap();
    let large = broker.publish(message("a", &"x".repeat(2_000))).await;
    assert!(matches!(large, Err(PublishError::Refused(_))), "{large:?}");
    for body in ["1", "2"] {
        broker.publish(message("a", body)).await.unwrap();
    }
    let full = broker.publish(message("a", "3")).await;
    let Err(PublishError::Refused(why)) = full else {
        panic!("{full:?}");
    };
    assert!(why.contains("shop.news"), "{why}");
    broker.declare(&group(1)).await.unwrap();
    broker.publish(message("a", "3")).await.unwrap();
    let full = broker.publish(message("a", "4")).await;
    assert!(matches!(full, Err(PublishError::Refused(_))), "{full:?}");
    // Others have what is left: each of them has room for it, and not all together.
    let others = |name: &str| Group {
        name: name.to_owned(),
        topics: vec!["Wide".to_owned()],
        ..group(1)
    };
    for name in ["a.wide", "b.wide", "c.wide", "d.wide"] {
        broker.declare(&others(name)).await.unwrap();
    }
    let wide = || Message {
        topic: "Wide".to_owned(),
        ..message("a", "5")
    };
    let full = broker.publish(wide()).await;
    assert!(
        matches!(full, Err(PublishError::Blocked { .. })),
        "{full:?}"
    );
    let many = broker.declare(&others("e.wide")).await;
    assert!(matches!(many, Err(BrokerError::NoRoom(_))), "{many:?}");
    broker.remove("d.wide").await.unwrap();
    broker.publish(wide()).await.unwrap();
    for name in ["a.wide", "b.wide"] {
        broker.remove(name).await.unwrap();
    }

    let mut subscription = world.subscribe(0, 1).await;
    let first = next(&mut subscription).await;
    let settler = subscription.settler();
    settler.settle(first.tag, Settle::Ack).await.unwrap();
    broker.publish(message("a", "4")).await.unwrap();
}

/// Goal: a letter that came with as many headers as a message may have is put back like others.
/// Method: one with 64, rejected with one more, put back with all of them.
#[tokio::test]
async fn letters_with_many_headers_are_put_back() {
    let world = World::new(Serve::default());
    let broker = &world.broker;
    broker.declare(&group(1)).await.unwrap();
    let mut many = message("a", "1");
    let headers = (0..64).map(|number| (format!("h{number}"), String::new()));
    many.headers = headers.collect();
    broker.publish(many).await.unwrap();
    let mut subscription = world.subscribe(0, 1).await;
    let delivery = next(&mut subscription).await;
    let why = BTreeMap::from([("gantry-dead-reason".to_owned(), "rejected".to_owned())]);
    let settler = subscription.settler();
    let settled = settler.settle(delivery.tag, Settle::Reject(why));
    settled.await.unwrap();
    let letters = broker.dead_letters("shop.news", 0, 10).await.unwrap();
    let headers = letters[0].message.headers.clone();
    assert_eq!(65, headers.len());
    let settled = broker.settle_dead_letter("shop.news", &letters[0], Some(headers.clone()));
    settled.await.unwrap();
    assert_eq!(headers, next(&mut subscription).await.message.headers);
}

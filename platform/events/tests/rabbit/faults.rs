//! What is lost when RabbitMQ goes wrong: nothing. What is told: what went wrong.

use std::{collections::BTreeSet, future::poll_fn, task::Poll, time::Duration};

use gantry::journal::Kind;
use gantry_events::{
    Message,
    broker::{Broker, BrokerError, Delivery, Group, PublishError, Settle, Settler, Subscription},
};
use gantry_harness::{
    rabbitmq::RabbitMq,
    wait::{self, SOON},
};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::stand::Server;

const TOPIC: &str = "faults.v1.Told";

fn group(partitions: u16) -> Group {
    Group {
        name: "faults.all".to_owned(),
        partitions,
        topics: vec![TOPIC.to_owned()],
        queue_messages_max: None,
    }
}

fn told(number: usize) -> Message {
    Message {
        topic: TOPIC.to_owned(),
        key: "a".to_owned(),
        headers: [("id".to_owned(), format!("id-{number}"))].into(),
        body: number.to_string().into(),
    }
}

fn number(delivery: &Delivery) -> usize {
    std::str::from_utf8(&delivery.message.body)
        .unwrap()
        .parse()
        .unwrap()
}

/// Publishes until it is taken.
async fn insist(rabbit: &dyn Broker, message: Message) {
    wait::until("a message to be taken", SOON * 2, async || {
        rabbit.publish(message.clone()).await.ok()
    })
    .await;
}

async fn subscribe(
    rabbit: &dyn Broker,
    prefetch: u16,
) -> (Box<dyn Subscription>, Box<dyn Settler>) {
    let subscription = wait::until("a subscription", SOON * 2, async || {
        rabbit.subscribe("faults.all", 0, prefetch).await.ok()
    })
    .await;
    let settler = subscription.settler();
    (subscription, settler)
}

async fn next(subscription: &mut Box<dyn Subscription>) -> Delivery {
    let next = time::timeout(SOON, subscription.next()).await;
    next.expect("a message in time").expect("a message")
}

async fn ends(subscription: &mut Box<dyn Subscription>, bound: Duration) {
    let end = async { while subscription.next().await.is_some() {} };
    time::timeout(bound, end).await.expect("the end in time");
}

/// What the journal has of the broker, in order.
fn entries(server: &Server) -> Vec<String> {
    let (recent, _) = server.journal.watch();
    let brokers = recent.into_iter().filter(|it| it.kind == Kind::Broker);
    brokers
        .map(|it| format!("{}: {}", it.subject, it.detail))
        .collect()
}

/// Goal: a broker killed before it confirms leaves a message that may be taken or not, and is told so;
/// sent again, it arrives.
/// Method: stop the server, publish, kill it, start it again; send again what failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_it_confirms() {
    let Some(server) = Server::start().await else {
        return;
    };
    let rabbit = server.rabbit();
    rabbit.declare(&group(1)).await.unwrap();
    rabbit.publish(told(1)).await.unwrap();
    let sent = {
        let mut rabbitmq = server.rabbitmq.lock().await;
        rabbitmq.freeze();
        let publish = rabbit.publish(told(2));
        let kill = async {
            time::sleep(Duration::from_millis(300)).await;
            rabbitmq.kill().await;
        };
        let (sent, ()) = tokio::join!(publish, kill);
        rabbitmq.restart().await;
        sent
    };
    let error = sent.unwrap_err();
    assert!(error.may_be_taken(), "{error:?}");
    insist(&*rabbit, told(2)).await;
    let (mut subscription, settler) = subscribe(&*rabbit, 10).await;
    let mut seen = Vec::new();
    while !seen.contains(&2) {
        let delivery = next(&mut subscription).await;
        settler.settle(delivery.tag, Settle::Ack).await.unwrap();
        seen.push(number(&delivery));
    }
    assert_eq!(1, seen[0], "what was confirmed is there: {seen:?}");
    let told = entries(&server);
    assert_eq!(
        4,
        told.len(),
        "each connection once when it is gone, once when it is back: {told:?}"
    );
}

/// Goal: a broker without memory takes nothing, says so, and takes what is settled all the same.
/// Method: raise its alarm; publish, and ack what is in hand; let it go again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_memory() {
    let Some(server) = Server::start().await else {
        return;
    };
    let rabbit = server.rabbit();
    rabbit.declare(&group(1)).await.unwrap();
    for number in 0..3 {
        rabbit.publish(told(number)).await.unwrap();
    }
    let (mut subscription, settler) = subscribe(&*rabbit, 2).await;
    let held = [next(&mut subscription).await, next(&mut subscription).await];
    server.rabbitmq.lock().await.block(true);
    // The first after it goes on its way, and is confirmed in the end; none after that does.
    let first = rabbit.publish(told(3));
    let others = async {
        let blocked = async || {
            let published = time::timeout(Duration::from_secs(1), rabbit.publish(told(4)));
            match published.await {
                Ok(Err(error @ PublishError::Blocked { .. })) => Some(error),
                _ => None,
            }
        };
        let error = wait::until("the broker to take nothing", SOON, blocked).await;
        assert!(!error.may_be_taken());
        assert!(error.to_string().contains("memory"), "{error}");
        for delivery in &held {
            settler.settle(delivery.tag, Settle::Ack).await.unwrap();
        }
        // It handed out the next one, so it knows.
        assert_eq!(2, number(&next(&mut subscription).await));
        rabbit.ping().await.unwrap();
        server.rabbitmq.lock().await.block(false);
        let started = Instant::now();
        insist(&*rabbit, told(5)).await;
        started.elapsed()
    };
    let (first, took) = tokio::join!(first, others);
    first.unwrap();
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    // The fourth had been on its way too.
    let mut arrived = BTreeSet::new();
    while !arrived.is_superset(&BTreeSet::from([3, 5])) {
        let delivery = next(&mut subscription).await;
        settler.settle(delivery.tag, Settle::Ack).await.unwrap();
        arrived.insert(number(&delivery));
    }
    let told = entries(&server);
    assert_eq!(2, told.len(), "{told:?}");
    assert!(
        told[0].contains("takes nothing") && told[1].contains("again"),
        "{told:?}"
    );
}

/// Goal: a subscription that is given up before it has come about keeps nobody from the queue.
/// Method: give it up after each step, until one comes about before; then read by another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn giving_up_a_subscription() {
    let Some(server) = Server::start().await else {
        return;
    };
    let rabbit = server.rabbit();
    rabbit.declare(&group(1)).await.unwrap();
    for steps in 1.. {
        let mut left = steps;
        let mut subscribing = rabbit.subscribe("faults.all", 0, 10);
        let comes_about = poll_fn(|context| {
            left -= 1;
            match subscribing.as_mut().poll(context) {
                Poll::Pending if left > 0 => Poll::Pending,
                polled => Poll::Ready(polled.is_ready()),
            }
        })
        .await;
        if comes_about {
            assert!(steps > 3, "{steps}");
            break;
        }
    }
    rabbit.publish(told(1)).await.unwrap();
    let (mut subscription, _) = subscribe(&*rabbit, 10).await;
    assert_eq!(1, number(&next(&mut subscription).await));
}

/// Goal: a broker that stands still is noticed within three heartbeats, and nothing waits for ever.
/// Method: stop its process; publish, ask, and read; let it run again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standing_still() {
    let Some(server) = Server::start().await else {
        return;
    };
    let rabbit = server.rabbit();
    rabbit.declare(&group(1)).await.unwrap();
    rabbit.publish(told(1)).await.unwrap();
    let (mut subscription, _) = subscribe(&*rabbit, 10).await;
    assert_eq!(1, number(&next(&mut subscription).await));
    server.rabbitmq.lock().await.freeze();
    let started = Instant::now();
    let publish = async {
        let error = rabbit.publish(told(2)).await.unwrap_err();
        assert!(error.may_be_taken(), "{error:?}");
    };
    let ping = async { rabbit.ping().await.unwrap_err() };
    let ((), error, ()) = tokio::join!(publish, ping, ends(&mut subscription, SOON));
    assert!(matches!(error, BrokerError::TimedOut), "{error:?}");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(31), "it took {took:?}");
    // Now there is no connection, and none comes about.
    let error = rabbit.publish(told(2)).await.unwrap_err();
    assert!(matches!(error, PublishError::Disconnected(_)), "{error:?}");
    server.rabbitmq.lock().await.thaw();
    insist(&*rabbit, told(2)).await;
    let (mut subscription, settler) = subscribe(&*rabbit, 10).await;
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        let delivery = next(&mut subscription).await;
        settler.settle(delivery.tag, Settle::Ack).await.unwrap();
        seen.insert(number(&delivery));
    }
}

/// Goal: connections that break off again and again lose nothing and leave nothing behind.
/// Method: cut them twenty times, each time with a message in hand and one on its way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn breaking_off_again_and_again() {
    let Some(server) = Server::start().await else {
        return;
    };
    let rabbit = server.rabbit();
    rabbit.declare(&group(1)).await.unwrap();
    let mut missing: BTreeSet<_> = (0..20).collect();
    for round in 0..20 {
        let (mut subscription, settler) = subscribe(&*rabbit, 5).await;
        let cut = async {
            time::sleep(Duration::from_millis(round)).await;
            server.way.cut();
        };
        let number_of_round = usize::try_from(round).unwrap();
        tokio::join!(insist(&*rabbit, told(number_of_round)), cut);
        while let Ok(Some(delivery)) = time::timeout(SOON, subscription.next()).await {
            if settler.settle(delivery.tag, Settle::Ack).await.is_ok() {
                missing.remove(&number(&delivery));
            }
        }
    }
    let (mut subscription, settler) = subscribe(&*rabbit, 5).await;
    while let Ok(Some(delivery)) = time::timeout(SOON / 10, subscription.next()).await {
        settler.settle(delivery.tag, Settle::Ack).await.unwrap();
        missing.remove(&number(&delivery));
    }
    assert!(missing.is_empty(), "lost: {missing:?}");
}

/// Goal: whoever holds a message longer than the broker allows loses its subscription, and not the
/// message.
/// Method: a server that allows a second; hold one for longer, then subscribe again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holding_for_too_long() {
    let settings = [
        ("consumer_timeout", "1000"),
        ("{channel_tick_interval", "500"),
    ];
    let Some(rabbitmq) = RabbitMq::configured(&settings).await else {
        return;
    };
    let server = Server::with(rabbitmq).await;
    let rabbit = server.rabbit();
    rabbit.declare(&group(1)).await.unwrap();
    rabbit.publish(told(1)).await.unwrap();
    let (mut subscription, settler) = subscribe(&*rabbit, 5).await;
    let held = next(&mut subscription).await;
    ends(&mut subscription, SOON).await;
    let late = settler.settle(held.tag, Settle::Ack).await;
    late.expect_err("it is not in hand any more");
    // The connection is as good as it was.
    let (mut subscription, settler) = subscribe(&*rabbit, 5).await;
    let again = next(&mut subscription).await;
    assert!(again.redelivered);
    settler.settle(again.tag, Settle::Ack).await.unwrap();
    assert_eq!(Vec::<String>::new(), entries(&server));
}

/// Goal: what kills whoever has it ends as a dead letter, with all that was in hand beside it; nothing
/// of that is lost.
/// Method: take messages and break off, until none comes; look at dead letters, and put them back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_whoever_has_it() {
    let Some(server) = Server::start().await else {
        return;
    };
    let rabbit = server.rabbit();
    rabbit.declare(&group(1)).await.unwrap();
    for number in 0..3 {
        rabbit.publish(told(number)).await.unwrap();
    }
    let mut rounds = 0;
    let letters = loop {
        let (mut subscription, _) = subscribe(&*rabbit, 3).await;
        let first = time::timeout(Duration::from_secs(2), subscription.next()).await;
        server.way.cut();
        ends(&mut subscription, SOON).await;
        if first.is_err() {
            let all = async || {
                let letters = rabbit.dead_letters("faults.all", 0, 10).await.ok()?;
                (letters.len() == 3).then_some(letters)
            };
            break wait::until("dead letters", SOON, all).await;
        }
        rounds += 1;
        assert!(rounds < 99, "it goes around for ever");
    };
    assert_eq!(51, rounds, "handed out once, and again for fifty times");
    let reasons: BTreeSet<_> = letters
        .iter()
        .map(|letter| letter.message.headers["gantry-dead-reason"].clone())
        .collect();
    assert_eq!(BTreeSet::from(["never_settled".to_owned()]), reasons);
    for letter in &letters {
        assert_eq!(0, letter.partition);
        let headers = Some(letter.message.headers.clone());
        let settled = rabbit.settle_dead_letter("faults.all", letter, headers);
        settled.await.unwrap();
    }
    let (mut subscription, settler) = subscribe(&*rabbit, 3).await;
    let mut seen = BTreeSet::new();
    while seen.len() < 3 {
        let delivery = next(&mut subscription).await;
        settler.settle(delivery.tag, Settle::Ack).await.unwrap();
        seen.insert(number(&delivery));
    }
}

/// Goal: whatever of it somebody deletes is told by what is done next, and comes back when it is
/// declared.
/// Method: delete a queue under a subscription, and publish; then delete the exchange that all publish to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_parts_of_it() {
    let Some(server) = Server::start().await else {
        return;
    };
    let rabbit = server.rabbit();
    rabbit.declare(&group(1)).await.unwrap();
    let (mut subscription, _) = subscribe(&*rabbit, 5).await;
    server.rabbitmq.lock().await.delete_queue("faults.all.0");
    ends(&mut subscription, SOON).await;
    let missing = rabbit.subscribe("faults.all", 0, 5).await;
    assert!(
        matches!(missing, Err(BrokerError::Missing(_))),
        "{missing:?}"
    );
    // It is taken, and kept aside.
    rabbit.publish(told(1)).await.unwrap();
    rabbit.declare(&group(1)).await.unwrap();
    rabbit.publish(told(2)).await.unwrap();
    server
        .rabbitmq
        .lock()
        .await
        .delete_exchange("gantry.events");
    for number in 3..6 {
        let error = rabbit.publish(told(number)).await.unwrap_err();
        assert!(matches!(error, PublishError::Unroutable), "{error:?}");
    }
    rabbit.declare(&group(1)).await.unwrap();
    rabbit.publish(told(6)).await.unwrap();
    let (mut subscription, settler) = subscribe(&*rabbit, 5).await;
    let stop = CancellationToken::new();
    let group = group(1);
    let read = async {
        for expected in [1, 2, 6] {
            let delivery = next(&mut subscription).await;
            assert_eq!(expected, number(&delivery));
            settler.settle(delivery.tag, Settle::Ack).await.unwrap();
        }
        stop.cancel();
    };
    tokio::join!(rabbit.tend(&group, &stop), read);
    // None of that was worth a connection.
    assert_eq!(Vec::<String>::new(), entries(&server));
}

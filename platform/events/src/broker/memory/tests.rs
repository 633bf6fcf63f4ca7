use super::*;

const TOPIC: &str = "test.v1.Happened";

fn message(key: &str, body: &'static str) -> Message {
    Message {
        topic: TOPIC.to_owned(),
        key: key.to_owned(),
        headers: Headers::new(),
        body: body.into(),
    }
}

/// A broker with a group of one queue.
async fn broker(seed: u64) -> Memory {
    let broker = Memory::new(seed);
    broker.declare(&group()).await.unwrap();
    broker
}

fn group() -> Group {
    Group {
        name: "test.one".to_owned(),
        partitions: 1,
        topics: vec![TOPIC.to_owned()],
        queue_messages_max: None,
    }
}

async fn publish(broker: &Memory, bodies: &[&'static str]) {
    for body in bodies {
        broker.publish(message("a", body)).await.unwrap();
    }
}

async fn bodies(subscription: &mut dyn Subscription, count: usize) -> Vec<(String, bool)> {
    let mut bodies = Vec::new();
    for _ in 0..count {
        let delivery = subscription.next().await.unwrap();
        let body = String::from_utf8(delivery.message.body.to_vec()).unwrap();
        bodies.push((body, delivery.redelivered));
    }
    bodies
}

fn fresh(bodies: &[&str]) -> Vec<(String, bool)> {
    bodies.iter().map(|it| ((*it).to_owned(), false)).collect()
}

fn again(bodies: &[&str]) -> Vec<(String, bool)> {
    bodies.iter().map(|it| ((*it).to_owned(), true)).collect()
}

/// Goal: what was handed out and not settled comes again first, in its order, to whoever waits.
/// Method: two subscriptions; the first takes two of three and is dropped.
#[tokio::test(start_paused = true)]
async fn what_is_not_settled_comes_again_first() {
    let broker = broker(1).await;
    publish(&broker, &["1", "2", "3"]).await;
    let mut first = broker.subscribe("test.one", 0, 2).await.unwrap();
    let mut second = broker.subscribe("test.one", 0, 10).await.unwrap();
    assert_eq!(fresh(&["1", "2"]), bodies(&mut *first, 2).await);
    for waits in [&mut first, &mut second] {
        let next = time::timeout(Duration::from_secs(1), waits.next()).await;
        assert!(next.is_err(), "{next:?}");
    }
    let settler = first.settler();
    drop(first);
    assert!(settler.settle(Tag(1), Settle::Ack).await.is_err());
    assert_eq!(again(&["1", "2"]), bodies(&mut *second, 2).await);
    assert_eq!(fresh(&["3"]), bodies(&mut *second, 1).await);
}

/// Goal: each way to settle does what it says.
/// Method: ack, requeue, retry and reject one each, and see what comes, when, and what is kept.
#[tokio::test(start_paused = true)]
async fn messages_are_settled() {
    let broker = broker(1).await;
    publish(&broker, &["1", "2", "3", "4"]).await;
    let mut all = broker.subscribe("test.one", 0, 10).await.unwrap();
    let settler = all.settler();
    let set = |value: &str| Headers::from([("x".to_owned(), value.to_owned())]);
    let mut tags = Vec::new();
    for _ in 0..4 {
        tags.push(all.next().await.unwrap().tag);
    }
    let after = Duration::from_secs(5);
    let headers = set("retried");
    for (tag, how) in tags.into_iter().zip([
        Settle::Ack,
        Settle::Retry { after, headers },
        Settle::Requeue,
        Settle::Reject(set("dead")),
    ]) {
        settler.settle(tag, how).await.unwrap();
    }
    assert_eq!(again(&["3"]), bodies(&mut *all, 1).await);
    let fill = broker.fill("test.one").await.unwrap();
    let expected = Fill {
        ready: vec![0],
        unsettled: 1,
        delayed: 1,
        dead_letters: 1,
        strays: 0,
        consumers: 1,
    };
    assert_eq!(expected, fill);
    let began = Instant::now();
    let retried = all.next().await.unwrap();
    assert_eq!(
        (after, "retried"),
        (began.elapsed(), &*retried.message.headers["x"])
    );

    let letters = broker.dead_letters("test.one", 0, 10).await.unwrap();
    assert_eq!("dead", letters[0].message.headers["x"]);
    let settled = broker.settle_dead_letter("test.one", &letters[0], Some(set("redriven")));
    settled.await.unwrap();
    let redriven = all.next().await.unwrap();
    assert_eq!("redriven", redriven.message.headers["x"]);
    assert_eq!(0, broker.fill("test.one").await.unwrap().dead_letters);
}

/// Goal: each fault is what it says, with and without the message taken.
/// Method: script all, one after the other, and count what was taken.
#[tokio::test(start_paused = true)]
async fn publications_fail_as_scripted() {
    let broker = broker(1).await;
    for (fault, may_be_taken, taken) in [
        (OnPublish::Refuse, false, 0),
        (OnPublish::Unroutable, false, 0),
        (OnPublish::Block, false, 0),
        (OnPublish::LoseMessage, true, 0),
        (OnPublish::DisconnectBefore, true, 0),
        (OnPublish::LoseConfirmation, true, 1),
        (OnPublish::DisconnectAfter, true, 1),
    ] {
        let before = broker.taken().len();
        broker.script([fault]);
        let error = broker.publish(message("a", "1")).await.unwrap_err();
        assert_eq!(may_be_taken, error.may_be_taken(), "{fault:?}");
        assert_eq!(taken, broker.taken().len() - before, "{fault:?}");
    }
    publish(&broker, &["2"]).await;
    broker.disconnect();
    let error = broker.publish(message("a", "3")).await.unwrap_err();
    assert!(matches!(error, PublishError::Disconnected(_)), "{error}");
    broker.reconnect();
    broker.block(true);
    let error = broker.publish(message("a", "3")).await.unwrap_err();
    assert!(matches!(error, PublishError::Blocked { .. }), "{error}");
    broker.block(false);
    publish(&broker, &["3"]).await;
}

/// Goal: messages go where they are wanted, and are refused where there is no room.
/// Method: a topic nobody wants; a full queue beside one with room.
#[tokio::test(start_paused = true)]
async fn messages_go_where_they_are_wanted() {
    let broker = broker(1).await;
    let small = Group {
        name: "test.small".to_owned(),
        queue_messages_max: Some(1),
        ..group()
    };
    broker.declare(&small).await.unwrap();
    publish(&broker, &["1"]).await;
    let error = broker.publish(message("a", "2")).await.unwrap_err();
    assert!(matches!(error, PublishError::Refused(_)), "{error}");
    assert_eq!(vec![1], broker.fill("test.one").await.unwrap().ready);
    let mut other = message("a", "3");
    other.topic = "test.v1.Other".to_owned();
    let error = broker.publish(other).await.unwrap_err();
    assert!(matches!(error, PublishError::Unroutable), "{error}");
    let reshaped = Group {
        partitions: 2,
        ..small
    };
    let error = broker.declare(&reshaped).await.unwrap_err();
    assert!(matches!(error, BrokerError::OtherShape { .. }), "{error}");
    broker.remove("test.small").await.unwrap();
    publish(&broker, &["4"]).await;
}

/// Goal: deliveries are doubled, swapped and broken off as scripted.
/// Method: each once.
#[tokio::test(start_paused = true)]
async fn deliveries_fail_as_scripted() {
    let broker = broker(1).await;
    publish(&broker, &["1", "2", "3", "4"]).await;
    let mut all = broker.subscribe("test.one", 0, 10).await.unwrap();
    broker.script_deliveries([OnDelivery::Double, OnDelivery::Give, OnDelivery::Swap]);
    let come = bodies(&mut *all, 4).await;
    let come: Vec<_> = come.iter().map(|(body, _)| &**body).collect();
    assert_eq!(vec!["1", "1", "3", "2"], come);
    broker.script_deliveries([OnDelivery::End]);
    assert!(all.next().await.is_none());
    assert!(all.next().await.is_none());
    let mut next = broker.subscribe("test.one", 0, 10).await.unwrap();
    assert_eq!(again(&["1", "1", "2", "3"]), bodies(&mut *next, 4).await);
}

/// Goal: chances are those of the seed.
/// Method: the same publications at two brokers of one seed, and at one of another.
#[tokio::test(start_paused = true)]
async fn chances_come_from_the_seed() {
    let outcomes = async |seed| {
        let broker = broker(seed).await;
        broker.chances(Chances {
            refuse: 0.3,
            lose_confirmation: 0.3,
            ..Chances::default()
        });
        let mut outcomes = Vec::new();
        for _ in 0..50 {
            let outcome = broker.publish(message("a", "1")).await;
            outcomes.push(outcome.map_err(|error| error.to_string()));
        }
        outcomes
    };
    assert_eq!(outcomes(7).await, outcomes(7).await);
    assert_ne!(outcomes(7).await, outcomes(8).await);
}

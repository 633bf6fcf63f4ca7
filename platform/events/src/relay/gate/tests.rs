//! A gate before a broker in memory, on a paused clock.

use futures_util::FutureExt as _;
use tokio::time;

use super::*;
use crate::{
    Message,
    broker::{Group, Headers, memory::Memory},
};

const LATE: &str = "test.late";

fn group(name: &str) -> Group {
    Group {
        name: name.to_owned(),
        partitions: 1,
        topics: vec!["x".to_owned()],
        queue_messages_max: None,
    }
}

fn message() -> Message {
    Message {
        topic: "x".to_owned(),
        key: "a".to_owned(),
        headers: Headers::new(),
        body: "1".into(),
    }
}

/// A gate that waits for one of two groups, and the broker that has both.
async fn world(unroutable: Unroutable) -> (Gate, Memory) {
    let config = Config {
        groups: vec![LATE.to_owned()],
        unroutable,
        ..Config::default()
    };
    let broker = Memory::new(1);
    for name in ["test.all", LATE] {
        broker.declare(&group(name)).await.unwrap();
    }
    (Gate::new(Live::fixed(config)), broker)
}

/// The group that it waits for.
fn awaited(passed: Result<Option<u64>, PublishError>) -> String {
    match passed {
        Err(PublishError::Awaiting(group)) => group,
        other => panic!("{other:?}"),
    }
}

/// Goal: what passed for one connection is not sent by the next, and that has the broker be asked again.
/// Method: let it pass; have the broker come back without the group; publish, and pass again.
#[tokio::test(start_paused = true)]
async fn what_passed_goes_by_no_other_connection() {
    let (gate, broker) = world(Unroutable::Keep).await;
    let epoch = gate.pass(&broker).await.unwrap();
    broker.publish_by(epoch, message()).await.unwrap();
    broker.remove(LATE).await.unwrap();
    broker.disconnect();
    broker.reconnect();
    // Nobody has told the gate, and what it says is worth nothing.
    assert_eq!(epoch, gate.pass(&broker).await.unwrap());
    let outcome = broker.publish_by(epoch, message()).await;
    assert!(
        matches!(outcome, Err(PublishError::Disconnected(_))),
        "{outcome:?}"
    );
    assert_eq!(1, broker.taken().len());
    gate.learn(epoch, &outcome);
    assert_eq!(LATE, awaited(gate.pass(&broker).await));
    broker.declare(&group(LATE)).await.unwrap();
    let later = gate.pass(&broker).await.unwrap();
    assert!(later > epoch, "{later:?} {epoch:?}");
    // One that is late to say so closes nothing.
    gate.learn(epoch, &outcome);
    broker.disconnect();
    assert_eq!(later, gate.pass(&broker).await.unwrap());
}

/// Goal: each end that a broker may have lost something by has it be asked again, and others do not.
/// Method: one of each; whether it is asked shows by the group that is gone.
#[tokio::test(start_paused = true)]
async fn ends_that_may_mean_a_loss_have_it_asked_again() {
    for (error, asked) in [
        (PublishError::Unroutable, true),
        (PublishError::TimedOut, true),
        (PublishError::Denied(String::new()), true),
        (PublishError::Disconnected("".into()), true),
        (PublishError::Refused(String::new()), false),
        (PublishError::Awaiting(String::new()), false),
    ] {
        let (gate, broker) = world(Unroutable::Keep).await;
        let epoch = gate.pass(&broker).await.unwrap();
        broker.remove(LATE).await.unwrap();
        let told = format!("{error:?}");
        gate.learn(epoch, &Err(error));
        assert_eq!(asked, gate.pass(&broker).await.is_err(), "{told}");
    }
}

/// Goal: an answer that was asked for before something broke opens nothing; nor does it for those that
/// waited for it.
/// Method: have the broker be slow to answer; tell of a break while it is asked, and once it has answered.
#[tokio::test(start_paused = true)]
async fn an_answer_from_before_a_break_opens_nothing() {
    let lost = || Err(PublishError::Disconnected("".into()));
    let (gate, broker) = world(Unroutable::Keep).await;
    let epoch = Some(broker.epoch().await.unwrap());
    broker.hush(true);
    let mut pass = Box::pin(gate.pass(&broker));
    assert!((&mut pass).now_or_never().is_none());
    gate.learn(epoch, &lost());
    broker.hush(false);
    pass.await.unwrap_err();
    assert_eq!(None, gate.open());

    broker.hush(true);
    let mut first = Box::pin(gate.pass(&broker));
    let mut second = Box::pin(gate.pass(&broker));
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    broker.hush(false);
    assert_eq!(epoch, first.await.unwrap());
    gate.learn(epoch, &lost());
    second.await.unwrap_err();
}

/// Goal: where many at once are told that nobody wants them, what is asked because of the first opens again.
/// Method: have the broker be slow to answer, and tell of more while it is asked.
#[tokio::test(start_paused = true)]
async fn many_that_nobody_wants_have_it_be_asked_once() {
    let (gate, broker) = world(Unroutable::Keep).await;
    let epoch = gate.pass(&broker).await.unwrap();
    gate.learn(epoch, &Err(PublishError::Unroutable));
    broker.hush(true);
    let mut pass = Box::pin(gate.pass(&broker));
    assert!((&mut pass).now_or_never().is_none());
    for _ in 0..10 {
        gate.learn(epoch, &Err(PublishError::Unroutable));
    }
    broker.hush(false);
    assert_eq!(epoch, pass.await.unwrap());
    assert_eq!(epoch, gate.open());
}

/// Goal: events that are passed over as nobody wants them cost no question each, and one now and then.
/// Method: tell of some, soon and a while after it was asked.
#[tokio::test(start_paused = true)]
async fn events_that_are_passed_over_are_asked_for_now_and_then() {
    let (gate, broker) = world(Unroutable::Drop).await;
    let epoch = gate.pass(&broker).await.unwrap();
    broker.remove(LATE).await.unwrap();
    gate.learn(epoch, &Err(PublishError::Unroutable));
    assert_eq!(epoch, gate.pass(&broker).await.unwrap());
    time::advance(DROPPED_INTERVAL).await;
    gate.learn(epoch, &Err(PublishError::Unroutable));
    assert_eq!(LATE, awaited(gate.pass(&broker).await));
}

//! What is in flight when something ends: the process, the connection, the service's readiness.

use std::{sync::Arc, time::Duration};

use gantry::app::testing::Service;
use gantry_store::{Timestamp, Transaction};
use tokio::{sync::Semaphore, time};

use super::{
    super::{
        Failure, Handle, Received,
        inbox::{Held, Inbox, PRUNE_PAGE},
        lanes::Lane,
    },
    Plain,
    world::{Counted, SOON, World, effect},
};
use crate::broker::memory::Memory;

gantry_harness::on_both!(
    what_is_at_hand_and_not_begun_comes_again,
    a_process_that_dies_leaves_no_half_effect,
    what_is_settled_does_not_come_again,
    what_is_done_and_not_settled_is_known,
    a_drain_finishes_what_is_in_flight,
    a_drain_begins_nothing_that_waits_for_its_turn,
    nothing_is_begun_while_the_service_is_not_ready,
    what_was_forgotten_has_its_effect_again,
    what_is_forgotten_at_once_is_bounded,
);

/// Writes its effect, says so, and waits to be let go.
#[derive(Debug, Clone)]
pub(super) struct Gated {
    entered: Arc<Semaphore>,
    gate: Arc<Semaphore>,
}

impl Gated {
    pub(super) fn new() -> Self {
        Self {
            entered: Arc::new(Semaphore::new(0)),
            gate: Arc::new(Semaphore::new(0)),
        }
    }

    async fn entered(&self) {
        let entered = time::timeout(SOON, self.entered.acquire()).await;
        entered.unwrap().unwrap().forget();
    }
}

impl Handle<Counted> for Gated {
    async fn handle(
        &self,
        event: &Received<Counted>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        effect(event, transaction).await?;
        self.entered.add_permits(1);
        self.gate.acquire().await.unwrap().forget();
        Ok(())
    }
}

/// A service with these settings in the midst of an event.
async fn one_is_handled(world: &World, settings: &str) -> (Service, Gated) {
    let gated = Gated::new();
    let service = world.serve(settings, gated.clone()).await;
    world.publish("a", 1, 0).await;
    gated.entered().await;
    (service, gated)
}

/// The same, with an event of another key at hand that waits for its turn.
async fn one_waits(world: &World) -> (Service, Gated) {
    let one = one_is_handled(world, "handlers_max = 1\n").await;
    world.publish("b", 1, 0).await;
    world.handed_out(2).await;
    one
}

/// Goal: what a process has at hand and has not begun when it ends (point c1) comes again.
/// Method: end a service that handles one event at once, and has another one at hand, of another key.
async fn what_is_at_hand_and_not_begun_comes_again(world: World) {
    let (service, _gated) = one_waits(&world).await;
    drop(service);
    assert_eq!(0, world.effects().await.len());
    let service = world.serve("", Plain).await;
    world.quiet(2).await;
    service.stop().await;
}

/// Goal: after a process that ends when all is settled (point c4), nothing comes again.
/// Method: end a service without a drain once nothing is unsettled; the next one has a handler that would
/// have an effect each time, and has one event more.
async fn what_is_settled_does_not_come_again(world: World) {
    let service = world.serve("", Plain).await;
    world.publish("a", 1, 0).await;
    world.quiet(1).await;
    drop(service);
    let inbox = Inbox::new(world.database().await, "counts");
    assert_eq!(1, inbox.prune(Duration::ZERO).await.unwrap());
    let service = world.serve("", Plain).await;
    world.publish("a", 2, 0).await;
    world.quiet(2).await;
    service.stop().await;
}

/// Goal: a process that ends in the midst of an event leaves nothing of it, and the next one does it.
/// Method: end a service whose handler has written and not returned (point c2), start another.
async fn a_process_that_dies_leaves_no_half_effect(world: World) {
    let (service, _gated) = one_is_handled(&world, "").await;
    drop(service);
    let service = world.serve("", Plain).await;
    world.quiet(1).await;
    service.stop().await;
}

/// Breaks the connection before its effect is committed.
struct Breaking {
    broker: Memory,
}

impl Handle<Counted> for Breaking {
    async fn handle(
        &self,
        event: &Received<Counted>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        effect(event, transaction).await?;
        self.broker.disconnect();
        Ok(())
    }
}

/// Goal: what is committed and not settled (point c3) comes again, and has no second effect.
/// Method: a connection that breaks while the handler runs, and is back once the effect is there.
async fn what_is_done_and_not_settled_is_known(world: World) {
    let broker = world.broker.clone();
    let service = world.serve("", Breaking { broker }).await;
    world.publish("a", 1, 0).await;
    world.effects_are(1).await;
    world.broker.reconnect();
    world.quiet(1).await;
    service.stop().await;
}

/// Has a service drain, and lets its handlers go once all have heard of it.
async fn drained(service: Service, gated: &Gated) {
    let health = service.health();
    let stopped = service.stop();
    let let_go = async {
        let mut changes = health.changes();
        // Not within the wait, which locks what whoever changes health holds.
        while !health.is_latched() {
            time::timeout(SOON, changes.changed())
                .await
                .unwrap()
                .unwrap();
        }
        // Until all that watches health has heard of it.
        time::sleep(Duration::from_millis(500)).await;
        gated.gate.add_permits(2);
    };
    tokio::join!(stopped, let_go);
}

/// Goal: a process that drains begins nothing more, waits for what is in flight, and leaves the rest to
/// others, its partitions with it.
/// Method: drain a service with one event in its handler and one behind it, let the handler go.
async fn a_drain_finishes_what_is_in_flight(world: World) {
    let (service, gated) = one_is_handled(&world, "").await;
    world.publish("a", 2, 0).await;
    drained(service, &gated).await;
    assert_eq!(1, world.effects().await.len(), "the second was not begun");
    assert_eq!((0, 0), world.shares().await, "nothing is left of it");
    let service = world.serve("", Plain).await;
    world.quiet(2).await;
    world.each_once_in_order().await;
    service.stop().await;
}

/// Goal: a drain begins no event that is at hand and waits for others to be handled.
/// Method: one event is handled at once and another, of another key, waits; the service drains.
async fn a_drain_begins_nothing_that_waits_for_its_turn(world: World) {
    let (service, gated) = one_waits(&world).await;
    drained(service, &gated).await;
    assert_eq!(1, world.effects().await.len(), "the second was not begun");
    let service = world.serve("", Plain).await;
    world.quiet(2).await;
    service.stop().await;
}

/// Goal: while the service says that it is not ready, nothing is begun; once it is, it goes on.
/// Method: mark it, publish, unmark it.
async fn nothing_is_begun_while_the_service_is_not_ready(world: World) {
    let service = world.serve("", Plain).await;
    world.publish("a", 1, 0).await;
    world.quiet(1).await;
    let mark = service.health().service("test");
    mark.unhealthy("on purpose");
    world.shares_are(0).await;
    world.publish("a", 2, 0).await;
    time::sleep(Duration::from_millis(300)).await;
    assert_eq!(1, world.effects().await.len());
    mark.healthy();
    world.quiet(2).await;
    service.stop().await;
}

/// Goal: what is remembered is forgotten by age alone; an event that comes again after that has its
/// effect again, so that the age has to be longer than events are on their way.
/// Method: an event again, before and after its entry was pruned.
async fn what_was_forgotten_has_its_effect_again(world: World) {
    let service = world.serve("", Plain).await;
    world.publish("a", 1, 0).await;
    world.quiet(1).await;
    let inbox = Inbox::new(world.database().await, "counts");
    assert_eq!(0, inbox.prune(Duration::from_mins(1)).await.unwrap());
    world.publish("a", 1, 0).await;
    world.quiet(1).await;
    assert_eq!(1, inbox.prune(Duration::ZERO).await.unwrap());
    world.publish("a", 1, 0).await;
    world.quiet(2).await;
    service.stop().await;
}

/// Goal: however much is old, it is forgotten a bounded number at a time, of every table.
/// Method: more keys and held events than that, all old; prune until there is nothing.
async fn what_is_forgotten_at_once_is_bounded(world: World) {
    let service = world.serve("", Plain).await;
    world.publish("a", 1, 0).await;
    world.quiet(1).await;
    service.stop().await;
    let inbox = Inbox::new(world.database().await, "counts");
    let old = Timestamp::now().before(Duration::from_hours(1));
    let mut transaction = inbox.database.begin("test.old").await.unwrap();
    for number in 0..PRUNE_PAGE + 10 {
        let lane = Lane {
            source: "/test".to_owned(),
            key: format!("key-{number}"),
        };
        let advanced = inbox.advance(&mut transaction, &lane, 1);
        advanced.await.unwrap();
        let held = Held {
            lane: Arc::new(lane),
            sequence: 1,
            due_at: old,
        };
        let noted = inbox.hold(&mut transaction, 0, "old", &held);
        noted.await.unwrap();
    }
    transaction.commit().await.unwrap();
    assert_eq!(PRUNE_PAGE, inbox.prune(Duration::ZERO).await.unwrap());
    assert_eq!(10, world.held().await);
    assert_eq!(10, inbox.prune(Duration::ZERO).await.unwrap());
    assert_eq!(0, world.held().await);
    assert_eq!(0, inbox.prune(Duration::ZERO).await.unwrap());
}

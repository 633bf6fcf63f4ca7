//! What is left when a partition is given back.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use gantry_store::Transaction;
use tokio::{sync::Semaphore, time};
use tokio_util::sync::CancellationToken;

use super::{
    super::{Failure, Handle, Received, clock::Clock, partition::Partition},
    Plain,
    world::{Counted, SOON, World, effect},
};
use crate::broker::{Broker as _, memory::OnSettle};

gantry_harness::on_both!(
    nothing_overtakes_what_is_left,
    nothing_overtakes_what_was_not_settled,
    what_cannot_be_settled_keeps_no_partition,
);

/// Fails the first event of `a`; at that of `b`, gives the partition back, and waits to be let go.
#[derive(Debug, Clone)]
struct GivingBack {
    give_back: CancellationToken,
    failed: Arc<Semaphore>,
    gate: Arc<Semaphore>,
}

impl Handle<Counted> for GivingBack {
    async fn handle(
        &self,
        event: &Received<Counted>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        if event.key() == "a" && event.sequence() == Some(1) {
            self.failed.add_permits(1);
            return Err(Failure::retry("not yet"));
        }
        if event.key() == "b" {
            self.give_back.cancel();
            self.gate.acquire().await.unwrap().forget();
        }
        effect(event, transaction).await?;
        Ok(())
    }
}

/// Goal: when a partition is given back while one event waits to be tried again, the next of its key is
/// not handled here any more, whoever hears of it first.
/// Method: the partition is given back from within it, by a handler of another key, so that the work that
/// waits hears of it before the partition does; then another instance takes over, and all come in order.
async fn nothing_overtakes_what_is_left(world: World) {
    let handler = GivingBack {
        give_back: CancellationToken::new(),
        failed: Arc::new(Semaphore::new(0)),
        gate: Arc::new(Semaphore::new(0)),
    };
    let mut made = None;
    let settings = "partitions = 1\npause_in_place = '10s'\n";
    let first = world
        .serve_with(settings, |consumer| {
            made = Some(consumer.on::<Counted>(handler.clone()).made());
        })
        .await;
    let (all, mut shares) = made.unwrap();
    world.broker.declare(&all.group).await.unwrap();
    shares.seed().await.unwrap();
    let view = shares.look(true).await.unwrap();
    let claim = shares.take(&view.free[0]).await.unwrap().unwrap();
    let partition = Partition {
        shared: Arc::new(all),
        claim: claim.clone(),
        clock: Clock::new(),
        give_back: handler.give_back.clone(),
    };
    let (failed, gate) = (Arc::clone(&handler.failed), Arc::clone(&handler.gate));
    let publish = async {
        world.publish("a", 1, 0).await;
        world.publish("a", 2, 0).await;
        failed.acquire().await.unwrap().forget();
        world.publish("b", 1, 0).await;
        handler.give_back.cancelled().await;
        gate.add_permits(1);
    };
    time::timeout(SOON, async { tokio::join!(partition.run(), publish) })
        .await
        .unwrap();
    assert_eq!(1, world.effects().await.len());
    shares.give(&claim).await.unwrap();
    shares.leave().await.unwrap();
    first.stop().await;
    let second = world.serve("partitions = 1\n", Plain).await;
    world.quiet(3).await;
    world.each_once_in_order().await;
    second.stop().await;
}

/// Fails the first event of all once, when it is let go: for good, or for a time.
#[derive(Debug, Clone)]
struct FailingOnce {
    failed: Arc<AtomicBool>,
    gate: Arc<Semaphore>,
    failure: fn(&'static str) -> Failure,
}

impl FailingOnce {
    fn new(failure: fn(&'static str) -> Failure) -> Self {
        Self {
            failed: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            failure,
        }
    }
}

impl Handle<Counted> for FailingOnce {
    async fn handle(
        &self,
        event: &Received<Counted>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        if !self.failed.swap(true, Ordering::Relaxed) {
            self.gate.acquire().await.unwrap().forget();
            return Err((self.failure)("once"));
        }
        effect(event, transaction).await
    }
}

/// Goal: an event that could not be settled comes again, so the next of its key is not handled before.
/// Method: the first of two at hand is rejected, the broker says that it has not done it; the next time it
/// has its effect.
async fn nothing_overtakes_what_was_not_settled(world: World) {
    let handler = FailingOnce::new(Failure::reject);
    let service = world.serve("partitions = 1\n", handler.clone()).await;
    world.broker.script_settling([OnSettle::Fail]);
    world.publish("a", 1, 0).await;
    world.publish("a", 2, 0).await;
    world.handed_out(2).await;
    handler.gate.add_permits(1);
    world.quiet(2).await;
    world.each_once_in_order().await;
    assert!(world.dead_letters().await.is_empty());
    service.stop().await;
}

/// Goal: an event that the broker does not take, to come again later, keeps nobody from giving its
/// partition back: it comes again as it was.
/// Method: a broker that never answers when the first event is put off; the service is not ready any
/// more, and then it is.
async fn what_cannot_be_settled_keeps_no_partition(world: World) {
    let handler = FailingOnce::new(Failure::retry);
    handler.gate.add_permits(1);
    let settings = "partitions = 1\nattempts_in_place = 1\nrest_max = '0s'\n";
    let service = world.serve(settings, handler).await;
    world.broker.script_settling([OnSettle::Hang]);
    world.publish("a", 1, 0).await;
    world.publish("a", 2, 0).await;
    world.held_is(1).await;
    let mark = service.health().service("test");
    mark.unhealthy("on purpose");
    world.shares_are(0).await;
    assert_eq!(0, world.effects().await.len());
    mark.healthy();
    world.quiet(2).await;
    world.each_once_in_order().await;
    assert_eq!(0, world.held().await);
    service.stop().await;
}

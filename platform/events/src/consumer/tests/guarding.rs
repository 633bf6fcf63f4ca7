//! What keeps effects single and in order: the inbox, the fence, and what is noted as held.

use std::{sync::Arc, time::Duration};

use gantry_store::Transaction;
use tokio::{sync::Semaphore, time};

use super::{
    super::{Failure, Handle, Received},
    Plain,
    world::{Counted, SOON, World, effect, event},
};
use crate::headers;

gantry_harness::on_both!(
    who_waits_for_others_keeps_nobody_from_writing,
    of_two_at_once_one_has_its_effect,
    an_id_is_of_its_source,
    nothing_is_kept_under_an_old_fence,
    what_is_held_and_gone_keeps_its_key_no_longer_than_it_may,
);

/// Waits to be let go, and only then writes its effect; fails after that where it is told to.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    entered: Arc<Semaphore>,
    pub(super) gate: Arc<Semaphore>,
    fails: Arc<Semaphore>,
}

impl Waiting {
    pub(super) fn new() -> Self {
        let closed = || Arc::new(Semaphore::new(0));
        Self {
            entered: closed(),
            gate: closed(),
            fails: closed(),
        }
    }

    pub(super) async fn entered(&self, count: u32) {
        let entered = time::timeout(SOON, self.entered.acquire_many(count)).await;
        entered.unwrap().unwrap().forget();
    }
}

impl Handle<Counted> for Waiting {
    async fn handle(
        &self,
        event: &Received<Counted>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        self.entered.add_permits(1);
        self.gate.acquire().await.unwrap().forget();
        effect(event, transaction).await?;
        match self.fails.try_acquire() {
            Ok(fails) => {
                fails.forget();
                Err(Failure::retry("as it was told"))
            }
            Err(_) => Ok(()),
        }
    }
}

/// Goal: a handler that waits for something else before its first statement has neither a connection nor
/// the writer's place.
/// Method: more handlers that wait than there are connections, all at once; an effect of another event
/// meanwhile, then theirs.
async fn who_waits_for_others_keeps_nobody_from_writing(world: World) {
    let waiting = Waiting::new();
    let settings = "handlers_max = 20\npartitions = 1\nprefetch = 20\nhandler_timeout = '5m'\n";
    let service = world.serve(settings, waiting.clone()).await;
    for key in 0..12 {
        world.publish(&format!("key-{key}"), 1, 0).await;
    }
    waiting.entered(12).await;
    waiting.gate.add_permits(1);
    world.effects_are(1).await;
    waiting.gate.add_permits(11);
    world.quiet(12).await;
    service.stop().await;
}

/// Goal: of two that are handled at once and are the same event, one has its effect: what was looked up
/// before is not believed at the end.
/// Method: one event under two keys, so that nothing else keeps them apart; both are in their handlers.
async fn of_two_at_once_one_has_its_effect(world: World) {
    let waiting = Waiting::new();
    let service = world.serve("", waiting.clone()).await;
    for key in ["a", "b"] {
        let mut event = event(key, 1, 0);
        event
            .headers
            .insert(headers::ID.to_owned(), "one".to_owned());
        world.send(event).await;
    }
    waiting.entered(2).await;
    waiting.gate.add_permits(2);
    world.quiet(1).await;
    service.stop().await;
}

/// Goal: two events of different sources are two, whatever their ids.
/// Method: two with one id, at once, and again.
async fn an_id_is_of_its_source(world: World) {
    let service = world.serve("", Plain).await;
    for source in ["/one", "/other", "/one"] {
        let mut event = event("a", 1, 0);
        event
            .headers
            .insert(headers::SOURCE.to_owned(), source.to_owned());
        world.send(event).await;
    }
    world.quiet(2).await;
    service.stop().await;
}

/// Goal: who has lost a partition keeps nothing of what it has begun there: neither an effect nor a note
/// that an event is held, which nobody would ever free.
/// Method: the fence rises while a handler waits, which then fails, and while it waits the next time,
/// when it goes well.
async fn nothing_is_kept_under_an_old_fence(world: World) {
    let waiting = Waiting::new();
    let settings = "attempts_in_place = 1\nrest_max = '0s'\n";
    let service = world.serve(settings, waiting.clone()).await;
    world.publish("a", 1, 0).await;
    waiting.entered(1).await;
    world.take_over().await;
    waiting.fails.add_permits(1);
    waiting.gate.add_permits(1);
    waiting.entered(1).await;
    assert_eq!(0, world.held().await);
    world.take_over().await;
    waiting.gate.add_permits(1);
    waiting.entered(1).await;
    assert_eq!(0, world.effects().await.len());
    waiting.gate.add_permits(1);
    world.quiet(1).await;
    service.stop().await;
}

/// Goal: a held event whose message is gone, as from a queue that was purged, keeps its key no longer
/// than is said.
/// Method: a note of one that never comes, and two of its key that do.
async fn what_is_held_and_gone_keeps_its_key_no_longer_than_it_may(world: World) {
    let settings = "lost_after = '1s'\n";
    let service = world.serve(settings, Plain).await;
    world.publish("b", 1, 0).await;
    world.quiet(1).await;
    service.stop().await;
    world.hold("a", 1, Duration::from_millis(3_100)).await;
    let service = world.serve(settings, Plain).await;
    world.publish("a", 2, 0).await;
    world.publish("a", 3, 0).await;
    world.quiet(3).await;
    world.each_once_in_order().await;
    assert_eq!(0, world.held().await);
    service.stop().await;
}

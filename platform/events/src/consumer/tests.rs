//! The whole consuming side: a service, a database, and a broker in memory.

mod ending;
mod failing;
mod guarding;
mod leaving;
mod rollout;
mod sharing;
mod world;

use std::sync::atomic::{AtomicU32, Ordering};

use gantry_store::Transaction;

use super::{Failure, Handle, Received};
use crate::{
    broker::{Broker as _, memory::Chances},
    headers,
};
use world::{Counted, GROUP, Told, World, effect};

gantry_harness::on_both!(
    each_event_has_its_effect_once,
    a_failing_event_is_a_dead_letter_after_its_attempts,
    events_of_a_key_wait_for_one_that_is_put_off,
    one_that_is_tried_again_soon_waits_at_hand,
);

/// Writes its effect, and that is all.
#[derive(Debug)]
struct Plain;

impl Handle<Counted> for Plain {
    async fn handle(
        &self,
        event: &Received<Counted>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        effect(event, transaction).await
    }
}

/// Goal: however often an event comes, it has its effect once, and those of a key in their order.
/// Method: events of several keys, each published twice, by a broker that doubles and redelivers.
async fn each_event_has_its_effect_once(world: World) {
    world.broker.chances(Chances {
        double: 0.2,
        end: 0.05,
        ..Chances::default()
    });
    let service = world.serve("", Plain).await;
    for sequence in 1..=10 {
        for key in ["a", "b", "c", "d"] {
            world.publish(key, sequence, 0).await;
            world.publish(key, sequence, 0).await;
        }
    }
    world.quiet(40).await;
    world.each_once_in_order().await;
    service.stop().await;
    world.quiet(40).await;
}

impl Handle<Told> for Plain {
    async fn handle(
        &self,
        event: &Received<Told>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        effect(event, transaction).await
    }
}

/// Fails events of one number, as often as is said.
#[derive(Debug)]
struct Failing {
    number: u64,
    times: u32,
    tried: AtomicU32,
}

impl Failing {
    fn new(number: u64, times: u32) -> Self {
        Self {
            number,
            times,
            tried: AtomicU32::new(0),
        }
    }
}

impl Handle<Counted> for Failing {
    async fn handle(
        &self,
        event: &Received<Counted>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        // What a failed attempt writes is not kept.
        effect(event, transaction).await?;
        if event.number == self.number {
            let tried = self.tried.fetch_add(1, Ordering::Relaxed);
            let attempt = event.attempt();
            assert_eq!((tried + 1, 4), (attempt.attempt, attempt.attempts_max));
            assert_eq!(tried + 1 == 4, attempt.is_last);
            if tried < self.times {
                return Err(Failure::retry("it does not work"));
            }
        }
        Ok(())
    }
}

const FOUR: &str = "attempts_max = 4\nattempts_in_place = 2\npause = '20ms'\npause_max = '1s'\n";

/// Goal: an event that always fails becomes a dead letter after exactly its attempts, with what is
/// known of it; those of its key behind it go on then.
/// Method: one that fails in front of others of its key; the dead letter's headers.
async fn a_failing_event_is_a_dead_letter_after_its_attempts(world: World) {
    let service = world.serve(FOUR, Failing::new(7, u32::MAX)).await;
    world.publish("a", 1, 7).await;
    for sequence in 2..=4 {
        world.publish("a", sequence, 0).await;
    }
    world.quiet(3).await;
    let letters = world.dead_letters().await;
    assert_eq!(1, letters.len());
    let said = |name: &str| letters[0].message.headers.get(name).map(String::as_str);
    assert_eq!(Some("attempts_used_up"), said(headers::DEAD_REASON));
    assert_eq!(Some("it does not work"), said(headers::DEAD_ERROR));
    assert_eq!(Some("4"), said(headers::DEAD_ATTEMPTS));
    assert_eq!(Some(GROUP), said(headers::DEAD_GROUP));
    assert!(said(headers::DEAD_TIME).is_some());
    world.each_once_in_order().await;
    service.stop().await;
}

/// Goal: while an event is put off, those of its key behind it wait, and others do not.
/// Method: one that fails thrice, and so is put off once, by the broker; the order of effects.
async fn events_of_a_key_wait_for_one_that_is_put_off(world: World) {
    let by_the_broker = format!("{FOUR}rest_max = '0s'\n");
    let service = world.serve(&by_the_broker, Failing::new(7, 3)).await;
    world.publish("a", 1, 7).await;
    for sequence in 2..=30 {
        world.publish("a", sequence, 0).await;
        world.publish("b", sequence, 0).await;
    }
    world.quiet(59).await;
    world.each_once_in_order().await;
    assert_eq!(0, world.dead_letters().await.len());
    assert_eq!(0, world.held().await, "nothing is held any more");
    service.stop().await;
}

/// Goal: one that is tried again soon waits within the process, those of its key behind it, and others do
/// not: nothing is put off, nothing is noted, and its attempts go on.
/// Method: one that fails thrice; what the broker and the tables have once the other key is done.
async fn one_that_is_tried_again_soon_waits_at_hand(world: World) {
    let patient = "attempts_max = 4\nattempts_in_place = 2\npause = '2s'\npause_max = '2s'\n";
    let service = world.serve(patient, Failing::new(7, 3)).await;
    world.publish("a", 1, 7).await;
    for sequence in 2..=5 {
        world.publish("a", sequence, 0).await;
        world.publish("b", sequence, 0).await;
    }
    world.effects_are(4).await;
    let fill = world.broker.fill(GROUP).await.unwrap();
    assert_eq!((5, 0), (fill.unsettled, fill.delayed));
    assert_eq!(0, world.held().await);
    assert!(world.effects().await.iter().all(|effect| effect.key == "b"));
    world.quiet(9).await;
    world.each_once_in_order().await;
    service.stop().await;
}

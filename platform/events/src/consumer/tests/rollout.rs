//! Instances of two versions at once, and such that are about to end.

use std::time::Duration;

use gantry::app::testing::Service;
use tokio::time;

use super::{
    Plain,
    guarding::Waiting,
    world::{Counted, GROUP, SOON, Told, World, event, told},
};
use crate::{
    broker::{Broker as _, PublishError},
    bucket,
};

gantry_harness::on_both!(
    a_type_that_one_instance_does_not_know_waits_for_another,
    a_type_is_wanted_for_as_long_as_any_instance_handles_it,
    what_is_free_is_not_the_share_of_one_that_ends,
);

/// An instance that handles one type more than those of [`World::serve`].
async fn serve_newer(world: &World, consumer: &str) -> Service {
    let start = |it: crate::consumer::Consumer<'_>| {
        it.on::<Counted>(Plain).on::<Told>(Plain).start();
    };
    world.serve_with(consumer, start).await
}

/// Goal: an event of a type that only newer instances handle is no dead letter where an older one meets
/// it, and those of its key wait for it.
/// Method: an older one has the only partition while a newer one is there, then ends.
async fn a_type_that_one_instance_does_not_know_waits_for_another(world: World) {
    let settings = "partitions = 1\nrest_max = '0s'\npause = '50ms'\n";
    let older = world.serve(settings, Plain).await;
    world.taken(1).await;
    let newer = serve_newer(&world, settings).await;
    world.send(told("a", 1)).await;
    world.publish("a", 2, 0).await;
    world.publish("b", 1, 0).await;
    world.held_is(2).await;
    assert_eq!(1, world.effects().await.len(), "another key goes on");
    older.stop().await;
    world.quiet(3).await;
    world.each_once_in_order().await;
    assert!(world.dead_letters().await.is_empty());
    assert_eq!(0, world.held().await);
    newer.stop().await;
}

/// Goal: while any instance handles a type, the group has its events, also after one that does not was
/// started again; once none does, it has no more of them.
/// Method: an older instance ends and comes again beside a newer one, which then ends.
async fn a_type_is_wanted_for_as_long_as_any_instance_handles_it(world: World) {
    let settings = "let_go_after = '300ms'\n";
    let older = world.serve(settings, Plain).await;
    let newer = serve_newer(&world, settings).await;
    world.shares_are(2).await;
    older.stop().await;
    let older = world.serve(settings, Plain).await;
    world.shares_are(2).await;
    // Both have some of them; what comes to the older one waits there.
    for key in 0..40 {
        let event = told(&format!("key-{key}"), 1);
        world.broker.publish(event).await.unwrap();
    }
    world.effects_are(1).await;
    newer.stop().await;
    let let_go = async {
        while world.broker.topics(GROUP).len() > 1 {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(SOON, let_go).await.unwrap();
    let published = world.broker.publish(told("a", 2)).await;
    assert!(matches!(published, Err(PublishError::Unroutable)));
    older.stop().await;
    assert_eq!(0, world.members().await);
}

/// Goal: an instance that finishes what it has begun takes no share any more: what it gave back is
/// consumed by others meanwhile.
/// Method: one that has all partitions is not ready any more while a handler of its waits; another comes,
/// and does all that is not of the partition of that one.
async fn what_is_free_is_not_the_share_of_one_that_ends(world: World) {
    let waiting = Waiting::new();
    let settings = "handler_timeout = '5m'\n";
    let ending = world.serve(settings, waiting.clone()).await;
    world.publish("a", 1, 0).await;
    waiting.entered(1).await;
    ending.health().service("test").unhealthy("on purpose");
    let other = world.serve("", Plain).await;
    let part = |key: &str| bucket(key) % 8;
    let keys = (0..100).map(|number| format!("key-{number}"));
    let keys: Vec<_> = keys.filter(|key| part(key) != part("a")).take(40).collect();
    for key in &keys {
        world.send(event(key, 1, 0)).await;
    }
    world.effects_are(keys.len()).await;
    waiting.gate.add_permits(1);
    world.quiet(keys.len() + 1).await;
    ending.stop().await;
    other.stop().await;
}

//! What cannot be handled, and what becomes of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use gantry_harness::database::Place;
use gantry_store::{Statement, Transaction};
use tokio::time;

use super::{
    super::{Failure, Handle, Received},
    FOUR, Plain,
    world::{Counted, World, effect, event},
};
use crate::headers;

/// Has the database end the connection of an event.
const BREAK_OFF: Statement = Statement::new(
    "test.break_off",
    "SELECT CAST(pg_terminate_backend(pg_backend_pid()) AS TEXT) AS ended",
);

gantry_harness::on_both!(
    what_cannot_be_read_is_a_dead_letter_at_once,
    panics_and_hangs_are_attempts_that_failed,
    a_dead_letter_that_is_put_back_has_its_effect_once,
);

/// Goal: what cannot be told from others, or is no event at all, is a dead letter at once, by its reason,
/// and holds up nothing; of a type nobody handles, once its attempts are used up.
/// Method: one of each, and good ones of the same key behind them.
async fn what_cannot_be_read_is_a_dead_letter_at_once(world: World) {
    let service = world.serve("", Plain).await;
    let mut nameless = event("a", 1, 0);
    nameless.headers.remove(headers::ID);
    let mut broken = event("a", 2, 0);
    broken.body = vec![0xff; 3].into();
    world.send(nameless).await;
    world.send(broken).await;
    world.publish("a", 3, 0).await;
    world.quiet(1).await;
    let reasons = world.dead_reasons().await;
    assert_eq!(vec!["malformed"; 2], reasons);
    service.stop().await;

    // The queues outlive the handler of a type.
    world.publish("a", 4, 0).await;
    let service = world.serve_others(FOUR).await;
    world.quiet(1).await;
    let letters = world.dead_letters().await;
    let said = &letters.last().unwrap().message.headers;
    assert_eq!("unknown_type", said[headers::DEAD_REASON]);
    assert_eq!("4", said[headers::DEAD_ATTEMPTS]);
    service.stop().await;
}

/// Fails in every way there is, one after the other.
#[derive(Debug, Default)]
struct Variously {
    tried: AtomicU32,
}

impl Handle<Counted> for Variously {
    async fn handle(
        &self,
        event: &Received<Counted>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        effect(event, transaction).await?;
        match (event.number, self.tried.fetch_add(1, Ordering::Relaxed)) {
            (1, 0) | (2, _) => panic!("on purpose"),
            (1, 1) | (3, _) => time::sleep(Duration::from_mins(10)).await,
            (1, 2) => return Err(Failure::retry("not now")),
            (4, _) => return Err(Failure::reject("never")),
            _ => {}
        }
        Ok(())
    }
}

/// Goal: a panic, and one that takes too long, are attempts that failed: nothing of them is kept, they
/// are tried again, and told apart in the end. What is rejected is not tried again.
/// Method: one event that meets each in turn, then one for each that always does.
async fn panics_and_hangs_are_attempts_that_failed(world: World) {
    let settings = "attempts_max = 4\npause = '10ms'\nhandler_timeout = '500ms'\n";
    let service = world.serve(settings, Variously::default()).await;
    world.publish("a", 1, 1).await;
    world.quiet(1).await;
    assert!(world.dead_letters().await.is_empty());
    for number in 2..=4 {
        world.publish("a", number, number).await;
    }
    world.publish("a", 5, 0).await;
    world.quiet(2).await;
    let reasons = world.dead_reasons().await;
    assert_eq!(vec!["panicked", "timed_out", "rejected"], reasons);
    let letters = world.dead_letters().await;
    let attempts = letters
        .iter()
        .map(|letter| letter.message.headers[headers::DEAD_ATTEMPTS].as_str());
    assert_eq!(vec!["4", "4", "1"], attempts.collect::<Vec<_>>());
    assert_eq!(0, world.held().await);
    service.stop().await;
}

/// Goal: a dead letter that is put back into its queue has its effect, once, whatever was done since.
/// Method: a rejected event; a later one of its key; then it is put back twice over.
async fn a_dead_letter_that_is_put_back_has_its_effect_once(world: World) {
    let service = world.serve("", Variously::default()).await;
    world.publish("a", 1, 4).await;
    world.publish("a", 2, 0).await;
    world.quiet(1).await;
    service.stop().await;

    let service = world.serve("", Plain).await;
    world.redrive().await;
    world.quiet(2).await;
    world.publish("a", 1, 4).await;
    world.quiet(2).await;
    assert!(world.dead_letters().await.is_empty());
    service.stop().await;
}

/// Has the database break off the transaction of one event, whatever it does about that.
struct BreakingOff {
    tried: Arc<AtomicU32>,
    hides_it: bool,
}

impl Handle<Counted> for BreakingOff {
    async fn handle(
        &self,
        event: &Received<Counted>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        effect(event, transaction).await?;
        if event.number == 1 {
            self.tried.fetch_add(1, Ordering::Relaxed);
            let ended = transaction.statement(&BREAK_OFF).fetch_one().await;
            if !self.hides_it {
                ended?;
            }
        }
        Ok(())
    }
}

/// Goal: an event that has the database break off its transaction each time becomes a dead letter, and
/// those behind it go on: the database was not away.
/// Method: one whose handler says so, and one whose does not, each in front of another of its key.
#[tokio::test]
async fn what_the_database_breaks_off_each_time_is_a_dead_letter() {
    for hides_it in [false, true] {
        let Some(place) = Place::server().await else {
            return;
        };
        let world = World::from(place);
        let tried = Arc::new(AtomicU32::new(0));
        let handler = BreakingOff {
            tried: Arc::clone(&tried),
            hides_it,
        };
        let service = world
            .serve("attempts_max = 2\npause = '10ms'\n", handler)
            .await;
        world.publish("a", 1, 1).await;
        world.publish("a", 2, 0).await;
        world.quiet(1).await;
        assert_eq!(["attempts_used_up"], *world.dead_reasons().await);
        assert_eq!(6, tried.load(Ordering::Relaxed), "three times each");
        service.stop().await;
    }
}

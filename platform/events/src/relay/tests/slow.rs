//! Outboxes that are slow, fail, or are kept by a clock that was ahead.

use super::*;

/// Goal: a claim that takes too long is asked for less, until it does not: all is published, however much
/// there is.
/// Method: many keys with many events, of which few can be claimed at once.
#[tokio::test(start_paused = true)]
async fn what_takes_too_long_is_claimed_bit_by_bit() {
    let mut world = World::new(1, Config::default()).await;
    world.ledger.claims_at_most(3);
    for number in 0..300 {
        for _ in 0..8 {
            world.ledger.add(&format!("k{number}"));
        }
    }
    let _relay = world.relay();
    let began = Instant::now();
    world.done().await;
    world.check();
    assert!(
        began.elapsed() < Duration::from_mins(5),
        "{:?}",
        began.elapsed()
    );
}

/// Goal: an upkeep that takes longer than anything may, and fails, holds up no event, keeps nobody from
/// being known, and is tried again soon.
/// Method: two relays whose counting and forgetting takes three leases; events for a while.
#[tokio::test(start_paused = true)]
async fn an_upkeep_that_fails_holds_up_nothing() {
    let mut world = World::new(1, Config::default()).await;
    world.ledger.upkeep_fails_after(Duration::from_secs(30));
    let _relays = [world.relay(), world.relay()];
    for number in 0..120 {
        world.add(&format!("k{number}"));
        time::sleep(Duration::from_secs(1)).await;
        assert!(world.is_done(), "{number}: {:?}", world.ledger.keys());
    }
    world.check();
    assert_eq!(120, world.broker.taken().len());
    assert_eq!(Vec::<String>::new(), world.told());
    let counted = world.ledger.counted();
    assert!(counted >= 6, "each relay counted {counted} / 2 times");
}

/// Goal: who cannot renew its lease publishes nothing past it: others may have its keys by then.
/// Method: more claimed than can be published in that time; the database fails from then on.
#[tokio::test(start_paused = true)]
async fn nothing_is_published_past_the_lease() {
    let config = Config {
        window: 4,
        ..Config::default()
    };
    let lease = config.lease;
    let mut world = World::new(1, config).await;
    let latency = Duration::from_secs(1);
    world.broker.timing(latency, 5 * latency);
    for _ in 0..100 {
        for number in 0..4 {
            world.ledger.add(&format!("k{number}"));
        }
    }
    let _relay = world.relay();
    while world.broker.publications() < 8 {
        time::sleep(Duration::from_millis(10)).await;
    }
    world.ledger.failing(1.0);
    time::sleep(lease).await;
    let published = world.broker.publications();
    time::sleep(Duration::from_mins(1)).await;
    assert_eq!(published, world.broker.publications());
    world.ledger.failing(0.0);
    world.done().await;
    world.check();
}

/// Goal: an event of a clock that was ahead waits no longer than the longest pause.
/// Method: add one a year ahead, and one after it.
#[tokio::test(start_paused = true)]
async fn events_of_a_clock_that_was_ahead_do_not_wait_for_it() {
    let mut world = World::new(1, Config::default()).await;
    world.ledger.add_ahead("a", Duration::from_hours(24 * 365));
    world.add("a");
    let _relay = world.relay();
    let began = Instant::now();
    world.done().await;
    world.check();
    assert!(
        began.elapsed() < Duration::from_mins(1),
        "{:?}",
        began.elapsed()
    );
}

/// Goal: however much there is of one key, the events of others do not wait for it.
/// Method: more of one key than is read ahead, the first of which is not confirmed for long, and an event
/// of another meanwhile.
#[tokio::test(start_paused = true)]
async fn a_key_with_a_backlog_holds_up_no_other() {
    let mut world = World::new(1, Config::default()).await;
    for _ in 0..5_000 {
        world.ledger.add("a");
    }
    world.broker.script([OnPublish::LoseMessage]);
    let _relay = world.relay();
    time::sleep(Duration::from_millis(100)).await;
    assert!(world.broker.taken().is_empty());
    world.add("b");
    time::sleep(Duration::from_secs(1)).await;
    let taken = world.broker.taken();
    assert_eq!(["b"], *taken.iter().map(|it| &*it.key).collect::<Vec<_>>());
}

/// Goal: what follows what was confirmed is on its way before the database is asked to write that down: a
/// broker has nothing to do until then.
/// Method: keys of which all are confirmed at the same time; publications whenever something is written
/// down.
#[tokio::test(start_paused = true)]
async fn what_follows_goes_out_before_anything_is_written_down() {
    const KEYS: u64 = 100;
    const EVENTS: u64 = 5;
    let mut world = World::new(1, Config::default()).await;
    let latency = Duration::from_millis(200);
    world.broker.timing(latency, Duration::from_secs(5));
    for number in 0..KEYS {
        for _ in 0..EVENTS {
            world.ledger.add(&format!("k{number}"));
        }
    }
    world.ledger.beside(&world.broker);
    let _relay = world.relay();
    world.done().await;
    world.check();
    let published = world.ledger.published();
    // Once for all of a time, and once more for what is given back.
    let times = 2..=EVENTS;
    let mut expected: Vec<_> = times.map(|time| time * KEYS).collect();
    expected.push(EVENTS * KEYS);
    assert_eq!(expected, published);
}

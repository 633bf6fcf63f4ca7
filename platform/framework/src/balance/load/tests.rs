//! Latencies, calls in flight, and what two endpoints come to beside each other.

use super::*;

const MS: Duration = Duration::from_millis(1);
const _: () = assert!(size_of::<Load>() == 64, "one cache line");

fn ordinary(load: &Load) -> Weighed<'_> {
    Weighed { load, weight: 1.0 }
}

fn cost(load: &Load, now: Instant) -> f64 {
    ordinary(load).cost(millis(load.epoch, now))
}

fn latency_ms(load: &Load, now: Instant) -> f32 {
    load.latency(now).unwrap() * 1_000.0
}

/// Goal: a peak counts at once, an improvement slowly, and silence forgets.
/// Method: measurements at known times against the formula.
#[tokio::test(start_paused = true)]
async fn latency_follows_peaks_at_once_and_improvements_slowly() {
    let load = Load::new(Instant::now());
    let start = Instant::now();
    assert_eq!(None, load.latency(start));

    load.observe(10 * MS, start);
    assert!((latency_ms(&load, start) - 10.0).abs() < 0.01);
    load.observe(100 * MS, start);
    assert!((latency_ms(&load, start) - 100.0).abs() < 0.01);

    let later = start + Duration::from_secs(10);
    load.observe(10 * MS, later);
    let expected = 100.0 * (-1.0_f32).exp() + 10.0 * (1.0 - (-1.0_f32).exp());
    assert!((latency_ms(&load, later) - expected).abs() < 0.1);

    let idle = later + Duration::from_secs(30);
    assert!((latency_ms(&load, idle) - expected * (-3.0_f32).exp()).abs() < 0.1);
}

/// Goal: an answer nobody waited for never makes an endpoint look better.
/// Method: a lower bound below and above the average.
#[tokio::test(start_paused = true)]
async fn a_lower_bound_only_raises() {
    let load = Load::new(Instant::now());
    let now = Instant::now();
    load.observe(50 * MS, now);
    load.observe_at_least(10 * MS, now);
    assert!((latency_ms(&load, now) - 50.0).abs() < 0.01);
    load.observe_at_least(90 * MS, now);
    assert!((latency_ms(&load, now) - 90.0).abs() < 0.01);
}

/// Goal: an endpoint that never answered gets one call at a time.
/// Method: its cost against that of a slow measured one, without and with a call in flight.
#[tokio::test(start_paused = true)]
async fn an_unmeasured_endpoint_is_tried_once() {
    let now = Instant::now();
    let (fresh, slow) = (Load::new(Instant::now()), Load::new(Instant::now()));
    slow.observe(Duration::from_mins(1), now);
    assert!(cost(&fresh, now) < cost(&slow, now));
    fresh.begin(now);
    assert!(cost(&fresh, now) > cost(&slow, now));
}

/// Goal: one that begins anew is tried once, whatever was charged to it and however many calls
/// from before are still in flight.
/// Method: charge a penalty with two calls in flight, begin anew, begin and end calls.
#[tokio::test(start_paused = true)]
async fn one_that_begins_anew_is_tried_once() {
    let now = Instant::now();
    let (load, other) = (Load::new(Instant::now()), Load::new(Instant::now()));
    other.observe(10 * MS, now);
    load.begin(Instant::now());
    load.begin(Instant::now());
    load.charge(Duration::from_secs(5), now);
    assert!(cost(&load, now) > cost(&other, now));

    load.begin_anew();
    assert_eq!(None, load.latency(now));
    assert!(cost(&load, now) < cost(&other, now));
    load.begin(Instant::now());
    assert!(cost(&load, now) > cost(&other, now));
    load.observe(MS, now);
    load.heard();
    load.end();
    assert!((latency_ms(&load, now) - 1.0).abs() < 0.01);
}

/// Goal: one that is long silent is tried by one call at a time, until something is heard of it.
/// Method: a call in flight, then a trial, each before and after its answer begins.
#[tokio::test(start_paused = true)]
async fn there_is_one_trial_at_a_time() {
    let load = Load::new(Instant::now());
    load.observe(50 * MS, Instant::now());
    let at = millis(load.epoch, Instant::now() + SILENCE);
    assert!(!load.begin_trial(at - 1));
    load.begin(Instant::now());
    assert!(!load.begin_trial(at));
    load.heard();
    assert!(load.begin_trial(at));
    assert!(!load.begin_trial(at));
    load.end_trial();
    assert!(load.begin_trial(at));
    assert_eq!(1, load.pending());
}

/// Goal: one that stands still soon costs more than one that is slow for the moment, and no more
/// once it answers; what is not owed, or not for long, is nothing to go by.
/// Method: one that answered in 2 ms owes answers beside one that took 250 ms.
#[tokio::test(start_paused = true)]
async fn one_that_owes_answers_stands_still() {
    let start = Instant::now();
    let (fast, slow) = (Load::new(start), Load::new(start));
    fast.observe(2 * MS, start);
    slow.observe(250 * MS, start);
    // Idle so far: silence alone says nothing.
    let later = start + 400 * MS;
    for _ in 0..4 {
        fast.begin(later);
    }
    let wins = |now| ordinary(&fast).is_as_good_as(ordinary(&slow), millis(start, now));
    assert!(wins(later + 90 * MS), "not for long");
    assert!(!wins(later + 120 * MS), "{}", cost(&fast, later + 120 * MS));
    assert!(latency_ms(&fast, later + 120 * MS) < 3.0, "as a rule");

    fast.answered(2 * MS, later + 120 * MS);
    fast.heard();
    assert!(wins(later + 120 * MS), "it answers");
    assert!(wins(later + 400 * MS), "three are too few");
}

/// Goal: one whose calls take long as a rule does not stand still while they do.
/// Method: one that takes a second owes answers for nine.
#[tokio::test(start_paused = true)]
async fn one_that_takes_long_does_not_stand_still() {
    let start = Instant::now();
    let load = Load::new(start);
    load.observe(Duration::from_secs(1), start);
    for _ in 0..8 {
        load.begin(start);
    }
    let later = start + Duration::from_secs(3);
    let average = f64::from(load.latency(later).unwrap());
    assert!((cost(&load, later) - average * 9.0).abs() < 1e-3);
}

/// Goal: a latency is inherited as it fades, a penalty is not, and calls are not.
/// Method: both kinds, half a minute later.
#[tokio::test(start_paused = true)]
async fn a_penalty_is_not_inherited() {
    let now = Instant::now();
    let (slow, failed) = (Load::new(Instant::now()), Load::new(Instant::now()));
    tokio::time::advance(MS).await;
    slow.observe(50 * MS, now);
    slow.begin(now);
    failed.observe(50 * MS, now);
    failed.charge(Duration::from_secs(5), now);

    let later = now + Duration::from_secs(30);
    let heir = slow.inherited();
    assert_eq!(slow.latency(later), heir.latency(later));
    assert_eq!(0, heir.pending());
    assert_eq!(None, failed.inherited().latency(later));
}

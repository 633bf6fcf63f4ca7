//! Shares of calls, in simulations of endpoints that serve calls on a clock of their own.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use tokio::time::Instant;

use super::*;
use crate::balance::config::SlowStart;

const MS: Duration = Duration::from_millis(1);

/// Endpoints that take a call as long as each of them does; a mean, spread evenly by a half.
struct World {
    epoch: Instant,
    now: Instant,
    candidates: Candidates<usize>,
    latencies: Vec<Duration>,
    /// Those that fail every call, at once.
    failing: Option<usize>,
    in_flight: BinaryHeap<Reverse<(Instant, usize, Instant)>>,
    calls: Vec<usize>,
    /// How long each call took, in seconds.
    took: Vec<f64>,
}

impl World {
    fn new(latencies: &[Duration]) -> Self {
        let epoch = Instant::now();
        let all = (0..latencies.len()).map(|endpoint| Candidate {
            load: Arc::new(Load::new(epoch)),
            weight: 1.0,
            warm_from: None,
            endpoint,
        });
        Self {
            candidates: Candidates::new(all.collect(), None, false),
            latencies: latencies.to_vec(),
            failing: None,
            in_flight: BinaryHeap::new(),
            calls: vec![0; latencies.len()],
            took: Vec::new(),
            epoch,
            now: epoch + Duration::from_hours(1),
        }
    }

    fn load(&self, endpoint: usize) -> &Load {
        &self.candidates.all[endpoint].load
    }

    fn at(&self) -> u32 {
        load::millis(self.epoch, self.now)
    }

    /// Begins a call where the balancer would; who takes it.
    fn begin(&mut self) -> usize {
        let at = self.at();
        let due = self.candidates.trial(at, |_| true);
        let trial = due.is_some();
        let picked = due.or_else(|| self.candidates.cheaper_of_two(at));
        let endpoint = picked.expect("all are open").endpoint;
        if trial {
            self.load(endpoint).end_trial();
        }
        self.load(endpoint).begin(self.now);
        self.calls[endpoint] += 1;
        let latency = self.latencies[endpoint].mul_f64(0.5 + fastrand::f64());
        let ends = self.now + latency;
        self.in_flight.push(Reverse((ends, endpoint, self.now)));
        endpoint
    }

    /// Ends calls until `until`, or the next one that ends if that is none.
    fn end(&mut self, until: Option<Instant>) {
        while let Some(Reverse((ends, endpoint, began))) = self.in_flight.peek().copied() {
            if until.is_some_and(|until| until < ends) {
                break;
            }
            self.in_flight.pop();
            self.now = ends;
            let load = self.load(endpoint);
            if self.failing == Some(endpoint) {
                load.charge(Duration::from_secs(5), ends);
            } else {
                load.answered(ends - began, ends);
            }
            load.heard();
            load.end();
            self.took.push((ends - began).as_secs_f64());
            if until.is_none() {
                return;
            }
        }
        self.now = until.unwrap_or(self.now);
    }

    /// Calls come at random, so many a second, for `seconds`.
    fn run(&mut self, per_second: f64, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        loop {
            let pause = -(1.0 - fastrand::f64()).ln() / per_second;
            let next = self.now + Duration::from_secs_f64(pause);
            self.end(Some(next.min(end)));
            if next >= end {
                return;
            }
            self.begin();
        }
    }

    /// So many callers, each of which makes one call after the other, for `calls` calls.
    fn callers(&mut self, callers: usize, calls: usize) {
        for _ in 0..callers {
            self.begin();
        }
        for _ in 0..calls {
            self.end(None);
            self.begin();
        }
    }

    /// Part of all calls, in percent.
    #[allow(clippy::cast_precision_loss)]
    fn share(&self, endpoint: usize) -> f64 {
        let all: usize = self.calls.iter().sum();
        self.calls[endpoint] as f64 * 100.0 / all as f64
    }

    fn forget_calls(&mut self) {
        self.calls.fill(0);
        self.took.clear();
    }

    /// The time that 99 of 100 calls took less than.
    fn p99(&mut self) -> Duration {
        self.took.sort_by(f64::total_cmp);
        Duration::from_secs_f64(self.took[self.took.len() * 99 / 100])
    }

    /// Gives endpoints weights, and the time since each began to come to its share.
    fn weigh(&mut self, weights: &[f32], ages: &[Option<Duration>]) {
        let all = std::mem::take(&mut self.candidates.all).into_iter();
        let all = all.enumerate().map(|(index, candidate)| Candidate {
            weight: weights[index],
            warm_from: ages[index].map(|age| self.at().wrapping_sub(millis(age))),
            ..candidate
        });
        let ramp = Ramp::new(&SlowStart::default());
        self.candidates = Candidates::new(all.collect(), ramp, false);
    }
}

fn millis(age: Duration) -> u32 {
    u32::try_from(age.as_millis()).unwrap()
}

fn seeded(seed: u64) {
    fastrand::seed(seed);
    println!("seed {seed}");
}

/// Goal: identical endpoints share alike, and one that takes twice as long has half of their load.
/// Method: Finagle's cases. There, identical ones with identical latencies are even to a thousandth;
/// here latencies are at random, and shares even to a twentieth. The load is what is in flight.
#[test]
fn identical_endpoints_share_alike() {
    seeded(15);
    let mut world = World::new(&[10 * MS; 10]);
    world.run(800.0, 60);
    for endpoint in 0..10 {
        let share = world.share(endpoint);
        assert!((9.5..10.5).contains(&share), "{:?}", world.calls);
    }
    let mut latencies = [10 * MS; 10];
    latencies[9] = 20 * MS;
    let mut world = World::new(&latencies);
    // Enough callers that each has calls in flight.
    world.callers(100, 100_000);
    let (mean, slow) = ((100.0 - world.share(9)) / 9.0, world.share(9) * 2.0);
    assert!((0.4..0.65).contains(&(slow / mean)), "{:?}", world.calls);
}

/// Goal: one of which nothing is known is probed by one call, whatever its latency is.
/// Method: one of ten that takes twice as long, and does not answer yet, while a thousand calls come.
#[test]
fn one_without_history_is_probed_once() {
    seeded(15);
    let mut world = World::new(&[10 * MS; 9]);
    world.run(800.0, 5);
    let load = Arc::new(Load::new(world.epoch));
    world.candidates.all.push(Candidate {
        load,
        weight: 1.0,
        warm_from: None,
        endpoint: 9,
    });
    world.latencies.push(Duration::from_secs(10));
    world.calls.push(0);
    world.run(800.0, 2);
    assert_eq!(1, world.calls[9]);
}

/// Goal: one of ten that is ten times slower gets under a hundredth of the calls, and they hardly
/// show.
/// Method: 800 calls a second for a minute, after ten seconds to find out: the reference's numbers
/// are 9.7 % and 224 ms at random, under 1 % and 60 ms for this.
#[test]
fn a_slow_one_of_ten_hardly_shows() {
    seeded(16);
    let mut latencies = [20 * MS; 10];
    latencies[9] = 200 * MS;
    let mut world = World::new(&latencies);
    world.run(800.0, 10);
    world.forget_calls();
    world.run(800.0, 60);
    let (share, p99) = (world.share(9), world.p99());
    assert!(share < 1.0 && share > 0.0, "{share} %");
    assert!(p99 < 60 * MS, "{p99:?}");
}

/// Goal: one that fails at once gets under a hundredth of the calls.
/// Method: one of ten fails in 0.1 ms, as INTERNAL; without the penalty it would draw most of them.
#[test]
fn one_that_fails_fast_gets_few_calls() {
    seeded(16);
    let mut latencies = [20 * MS; 10];
    latencies[9] = MS / 10;
    let mut world = World::new(&latencies);
    world.failing = Some(9);
    world.run(800.0, 60);
    assert!(
        world.calls[9] > 0 && world.share(9) < 1.0,
        "{} %",
        world.share(9)
    );

    // What its latency alone would draw: all calls that meet it, which are two of ten.
    world.failing = None;
    world.run(800.0, 60);
    world.forget_calls();
    world.run(800.0, 10);
    assert!(world.share(9) > 18.0, "{} %", world.share(9));
}

/// Goal: a new endpoint beside four comes to its share within half a minute, where few calls are in
/// flight as where many are.
/// Method: a fifth endpoint, whose weight is 0.5 at 15 s of 30. By weights alone it gets 0.5/4.5 =
/// 11 % then, and 2.4 % in the first three seconds. Ours weighs what is in flight, with a part of a
/// call at random, which comes within three points of that: by one caller at a time, five and fifty.
#[test]
fn a_new_endpoint_comes_to_its_share() {
    seeded(14);
    let age = |seconds: u64| Some(Duration::from_secs(seconds));
    for callers in [1, 5, 50] {
        for (seconds, expected) in [(1, 0.1 / 4.1), (3, 0.1 / 4.1), (15, 0.5 / 4.5), (30, 0.2)] {
            let mut world = World::new(&[10 * MS; 5]);
            // Measured all, so that nothing else makes a difference.
            (0..5).for_each(|it| world.load(it).answered(10 * MS, world.now));
            let mut share = 0.0;
            for _ in 0..200 {
                // Its age does not grow in the little time that this takes.
                world.weigh(&[1.0; 5], &[None, None, None, None, age(seconds)]);
                world.callers(callers, 100);
                share = world.share(4);
                world.end(Some(world.now + Duration::from_secs(1)));
            }
            println!("{callers} callers at {seconds} s: {share:.1} %");
            let far = (share - expected * 100.0).abs();
            assert!(far < 3.0, "{callers} at {seconds} s: {share} %");
        }
    }
}

/// Goal: where all are new they share alike, from the first call.
/// Method: two that came one after the other, ten seconds apart; later, when the first is done.
#[test]
fn where_all_are_new_none_is_slow() {
    seeded(14);
    let age = |seconds: u64| Some(Duration::from_secs(seconds));
    let mut world = World::new(&[10 * MS; 2]);
    (0..2).for_each(|it| world.load(it).answered(10 * MS, world.now));
    world.weigh(&[1.0; 2], &[age(15), age(5)]);
    world.callers(1, 1_000);
    assert!((45.0..55.0).contains(&world.share(1)), "{:?}", world.calls);

    world.end(Some(world.now + Duration::from_secs(1)));
    world.weigh(&[1.0; 2], &[age(31), age(5)]);
    world.forget_calls();
    world.callers(1, 300);
    assert!(world.share(1) < 18.0, "{:?}", world.calls);
}

/// Goal: calls go to the own zone, and to another as there are more of them in flight.
/// Method: two in the own zone and two in another, by one caller and by a hundred.
#[test]
fn another_zone_takes_what_is_too_much() {
    seeded(19);
    let shares = [1, 100].map(|callers| {
        let mut world = World::new(&[10 * MS; 4]);
        (0..4).for_each(|it| world.load(it).answered(10 * MS, world.now));
        world.weigh(&[1.0, 1.0, 0.5, 0.5], &[None; 4]);
        world.callers(callers, 20_000);
        world.share(2) + world.share(3)
    });
    assert!((20.0..40.0).contains(&shares[0]), "{shares:?}");
    assert!((28.0..38.0).contains(&shares[1]), "{shares:?}");
}

/// Goal: an endpoint whose breaker opened since the snapshot gets no call, and in panic it does.
/// Method: one of two, then both, with and without panic.
#[test]
fn a_shut_endpoint_gets_no_call() {
    seeded(7);
    for in_panic in [false, true] {
        let mut world = World::new(&[10 * MS; 2]);
        world.candidates.in_panic = in_panic;
        (0..2).for_each(|it| world.load(it).answered(10 * MS, world.now));
        world.load(1).set_shut(true);
        world.callers(1, 100);
        assert_eq!(in_panic, world.calls[1] > 0, "{:?}", world.calls);
        world.load(0).set_shut(true);
        assert_eq!(
            in_panic,
            world.candidates.cheaper_of_two(world.at()).is_some()
        );
        assert_eq!(
            in_panic,
            world.candidates.cheapest(world.at(), |_| true).is_some()
        );
    }
}

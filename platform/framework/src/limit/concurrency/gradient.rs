//! Finds how many calls of a method may be in flight: fewer while they take longer than they used
//! to, more while they do not (Gradient2 of Netflix' concurrency-limits, with a headroom that grows).
//!
//! Each second, the mean time of its calls is compared with that of the last ten minutes. As long as
//! it is no more than half as long again, the limit grows by its headroom, in part; else it shrinks with
//! the quotient. A limit that is not used does not grow. What makes calls long for other reasons than
//! their number, a slow dependency above all, lowers the limit as well, and that is meant.
//!
//! A sample is a call in which its handler did what it does: also one that was told that there is no such
//! thing. One that failed, was given up or was too late ended by another clock: it would have taken longer
//! still, so it counts where it took longer than is usual, and else says nothing. Failures that are
//! quick, as where something it needs is away, would have calls seem long as soon as they are answered
//! again.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Where it begins.
const INITIAL: f64 = 20.0;
/// The least.
pub(super) const MIN: f64 = 4.0;
/// How much of a new limit counts.
const SMOOTHING: f64 = 0.2;
/// How many times as long as usual is no reason to shrink.
const TOLERANCE: f64 = 1.5;
/// How long samples are gathered at least.
const WINDOW: Duration = Duration::from_secs(1);
/// How many samples say something.
const SAMPLES_MIN: u64 = 10;
/// Shorter than this is noise: a cache, an early return.
const SHORTEST: Duration = Duration::from_micros(100);
/// Windows that the mean time is taken over.
const LONG_WINDOWS: f64 = 600.0;
/// Windows until it is one; before, it is their plain mean.
const LONG_BEGIN: f64 = 10.0;

/// The mean time of many windows, in microseconds.
#[derive(Debug, Default, Clone, Copy)]
struct Long {
    mean: f64,
    windows: f64,
}

impl Long {
    fn add(&mut self, short: f64) {
        let weight = if self.windows < LONG_BEGIN {
            self.windows += 1.0;
            1.0 / self.windows
        } else {
            2.0 / (LONG_WINDOWS + 1.0)
        };
        self.mean += (short - self.mean) * weight;
        // Calls have become much shorter for good: ten minutes are too long to find out.
        if self.mean > 2.0 * short {
            self.mean *= 0.95;
        }
    }
}

/// By how much a limit grows that is not too high.
fn headroom(limit: f64) -> f64 {
    limit.sqrt().max(4.0)
}

/// The limit after `limit`, where calls take `short` and used to take `long`.
fn next(limit: f64, short: f64, long: f64, headroom: f64, max: f64) -> f64 {
    let gradient = (TOLERANCE * long / short).clamp(0.5, 1.0);
    let wanted = limit * gradient + headroom;
    (limit * (1.0 - SMOOTHING) + wanted * SMOOTHING).clamp(MIN, max)
}

/// A call that ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// How long that took.
    pub(super) took: Duration,
    /// When it was there.
    pub(super) now: Instant,
    /// How many calls were in flight then.
    pub(super) in_flight: usize,
}

/// The limit of one method, and what it is found by.
#[derive(Debug)]
pub(super) struct Gradient {
    begun: Instant,
    /// When the window ends, in microseconds since it all began.
    ends: AtomicU64,
    samples: AtomicU64,
    micros: AtomicU64,
    in_flight: AtomicUsize,
    limit: AtomicUsize,
    /// What calls take, in microseconds; 0 while nobody knows.
    usual: AtomicU64,
    /// Taken once in a window.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: f64,
    long: Long,
}

impl Default for Gradient {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            ends: AtomicU64::new(micros(WINDOW)),
            samples: AtomicU64::new(0),
            micros: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            limit: AtomicUsize::new(whole(INITIAL)),
            usual: AtomicU64::new(0),
            state: Mutex::new(State {
                limit: INITIAL,
                long: Long::default(),
            }),
        }
    }
}

impl Gradient {
    /// The limit now.
    pub(super) fn limit(&self, max: usize) -> usize {
        self.limit.load(Relaxed).min(max)
    }

    /// Takes note of a call that failed or was given up, where it took longer than calls do. Says the same
    /// as [`Gradient::take`].
    pub(super) fn take_failed(&self, sample: Sample, max: usize) -> Option<usize> {
        let usual = self.usual.load(Relaxed);
        let is_long = usual > 0 && micros(sample.took) > usual;
        is_long.then(|| self.take(sample, max)).flatten()
    }

    /// Takes note of a call. Says the new limit, where this was the last of a window.
    pub(super) fn take(&self, sample: Sample, max: usize) -> Option<usize> {
        if sample.took < SHORTEST {
            return None;
        }
        self.samples.fetch_add(1, Relaxed);
        self.micros.fetch_add(micros(sample.took), Relaxed);
        self.in_flight.fetch_max(sample.in_flight, Relaxed);
        let now = micros(sample.now.saturating_duration_since(self.begun));
        let ends = self.ends.load(Relaxed);
        if now < ends {
            return None;
        }
        // One of those who see the end of a window ends it.
        let next = now + micros(WINDOW);
        let first = self.ends.compare_exchange(ends, next, Relaxed, Relaxed);
        first.ok().and_then(|_| self.end_window(max))
    }

    fn end_window(&self, max: usize) -> Option<usize> {
        let samples = self.samples.swap(0, Relaxed);
        let micros = self.micros.swap(0, Relaxed);
        let in_flight = self.in_flight.swap(0, Relaxed);
        if samples < SAMPLES_MIN {
            return None;
        }
        // Held by nobody but a window that ended a second ago.
        let mut state = self.state.try_lock().ok()?;
        let limit = state.update(micros / samples, in_flight, max);
        self.limit.store(limit, Relaxed);
        self.usual.store(state.usual(), Relaxed);
        Some(limit)
    }
}

impl State {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn usual(&self) -> u64 {
        self.long.mean as u64
    }

    #[allow(clippy::cast_precision_loss)]
    fn update(&mut self, short: u64, in_flight: usize, max: usize) -> usize {
        let short = (short as f64).max(1.0);
        self.long.add(short);
        if in_flight as f64 >= self.limit / 2.0 {
            let headroom = headroom(self.limit);
            self.limit = next(self.limit, short, self.long.mean, headroom, max as f64);
        }
        whole(self.limit)
    }
}

/// In whole numbers of 64 bits: every call asks for it.
fn micros(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000) + u64::from(duration.subsec_micros())
}

/// A limit as a number of calls.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(limit: f64) -> usize {
    limit as usize
}

#[cfg(test)]
mod tests {
    use tokio::time;

    use super::*;

    #[track_caller]
    fn assert_near(expected: f64, found: f64) {
        assert!((expected - found).abs() < 1e-9, "{expected} is not {found}");
    }

    /// A call that took `took`, with so many in flight; the new limit where a window ended with it.
    fn sample(gradient: &Gradient, took: Duration, in_flight: usize) -> Option<usize> {
        let now = Instant::now();
        let sample = Sample {
            took,
            now,
            in_flight,
        };
        gradient.take(sample, 200)
    }

    /// A window in which each of ten calls takes `took`; the limit after it.
    async fn window(gradient: &Gradient, took: Duration, in_flight: usize) -> usize {
        for _ in 0..9 {
            assert_eq!(None, sample(gradient, took, in_flight));
        }
        time::advance(WINDOW).await;
        sample(gradient, took, in_flight);
        gradient.limit(200)
    }

    /// Goal: one step is the formula's.
    /// Method: its published numbers, with a headroom of 4; twice as long as usual, and far more.
    #[test]
    fn a_step_is_that_of_the_formula() {
        let once = next(20.0, 10.0, 10.0, 4.0, 200.0);
        assert_near(20.8, once);
        assert_near(21.6, next(once, 10.0, 10.0, 4.0, 200.0));
        for limit in [20.0, 100.0] {
            assert_near(0.95 * limit + 0.8, next(limit, 20.0, 10.0, 4.0, 200.0));
            assert_near(0.9 * limit + 0.8, next(limit, 999.0, 10.0, 4.0, 200.0));
        }
        assert_near(200.0, next(200.0, 10.0, 10.0, 14.0, 200.0));
        // Where it comes to rest below; the least is for headrooms that are less.
        assert_near(8.0, next(8.0, 999.0, 10.0, 4.0, 200.0));
        assert_near(MIN, next(MIN, 999.0, 10.0, 0.0, 200.0));
    }

    /// Goal: with calls as long as ever and all of it used, the limit grows tenfold in 98 windows.
    /// Method: windows of equal calls.
    #[tokio::test(start_paused = true)]
    async fn a_limit_that_is_used_grows() {
        let gradient = Gradient::default();
        let mut windows = 0;
        while gradient.limit(200) < 200 {
            let limit = gradient.limit(200);
            let after = window(&gradient, Duration::from_millis(10), limit).await;
            assert!(after >= limit);
            windows += 1;
        }
        assert_eq!(98, windows);
    }

    /// Goal: a limit that is less than half used does not grow.
    /// Method: the same with 9 of 20 in flight, then with 11.
    #[tokio::test(start_paused = true)]
    async fn a_limit_that_is_not_used_stays() {
        let gradient = Gradient::default();
        for _ in 0..50 {
            assert_eq!(20, window(&gradient, Duration::from_millis(10), 9).await);
        }
        window(&gradient, Duration::from_millis(10), 11).await;
        assert!(window(&gradient, Duration::from_millis(10), 11).await > 20);
    }

    /// Goal: failures that are quick say nothing of the load, and long ones shrink the limit.
    /// Method: twenty windows as usual, then one of each kind of failure.
    #[tokio::test(start_paused = true)]
    async fn only_failures_that_take_long_are_heeded() {
        let gradient = Gradient::default();
        let usual = Duration::from_millis(10);
        for _ in 0..20 {
            window(&gradient, usual, 200).await;
        }
        // The limit after a window of such.
        let failed = async |took| {
            for number in 0..10 {
                if number == 9 {
                    time::advance(WINDOW).await;
                }
                let now = Instant::now();
                let sample = Sample {
                    took,
                    now,
                    in_flight: 200,
                };
                gradient.take_failed(sample, 200);
            }
            gradient.limit(200)
        };
        let before = gradient.limit(200);
        assert_eq!(before, failed(usual / 2).await);
        // The window in which nothing counted ends with the first.
        failed(usual * 4).await;
        let after = failed(usual * 4).await;
        assert!(after < before, "{before} to {after}");
    }

    /// Goal: calls that become long shrink the limit, and it recovers.
    /// Method: twenty windows as usual, ten of four times as long, then as before.
    #[tokio::test(start_paused = true)]
    async fn long_calls_shrink_the_limit_for_as_long_as_they_are() {
        let gradient = Gradient::default();
        let (usual, long) = (Duration::from_millis(10), Duration::from_millis(40));
        for _ in 0..20 {
            window(&gradient, usual, 200).await;
        }
        let before = gradient.limit(200);
        for _ in 0..10 {
            window(&gradient, long, 200).await;
        }
        let under = gradient.limit(200);
        assert!(under < before * 2 / 3, "{before} to {under}");
        for _ in 0..30 {
            window(&gradient, usual, 200).await;
        }
        assert!(gradient.limit(200) > before, "{}", gradient.limit(200));
    }

    /// Goal: too few samples, and those of calls that did nothing, change nothing.
    /// Method: windows of nine calls, and of many that took 99 µs.
    #[tokio::test(start_paused = true)]
    async fn little_says_nothing() {
        let gradient = Gradient::default();
        for took in [Duration::from_millis(1), Duration::from_millis(900)] {
            for _ in 0..8 {
                assert_eq!(None, sample(&gradient, took, 20));
            }
            time::advance(WINDOW).await;
            assert_eq!(None, sample(&gradient, took, 20), "nine");
        }
        for _ in 0..99 {
            time::advance(WINDOW).await;
            assert_eq!(None, sample(&gradient, Duration::from_micros(99), 20));
        }
        assert_eq!(20, gradient.limit(200));
    }
}

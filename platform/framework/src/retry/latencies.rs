//! How long the calls of a method take, for those that are hedged by it.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// How many calls are remembered.
const CALLS: usize = 512;
/// With fewer nothing is said.
const CALLS_MIN: u64 = 100;
/// After so many it is reckoned anew: that looks at all of them.
const REFRESH: u64 = 20;

/// The time that 95 of the last 100 calls of a method take, as measured: of the last 512 exactly,
/// looked at after every 20th.
///
/// Two KiB, taken with the first call that is counted. Counting takes no lock.
#[derive(Debug, Default)]
pub struct Latencies {
    ring: OnceLock<Box<Ring>>,
    /// In microseconds; 0 while too few are known.
    p95: AtomicU32,
}

#[derive(Debug)]
struct Ring {
    counted: AtomicU64,
    /// In microseconds.
    micros: [AtomicU32; CALLS],
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            counted: AtomicU64::new(0),
            micros: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }
}

impl Latencies {
    /// Counts a call that took so long, or at least so long, where it was given up as another one was
    /// faster.
    pub fn count(&self, took: Duration) {
        let ring = self.ring.get_or_init(Box::default);
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        let number = ring.counted.fetch_add(1, Relaxed);
        ring.micros[index(number)].store(micros, Relaxed);
        let counted = number + 1;
        if counted >= CALLS_MIN && counted.is_multiple_of(REFRESH) {
            self.p95.store(ring.p95(counted), Relaxed);
        }
    }

    /// The time that 95 of 100 calls took no longer than, once a hundred are known.
    #[must_use]
    pub fn p95(&self) -> Option<Duration> {
        let micros = self.p95.load(Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros.into()))
    }
}

impl Ring {
    fn p95(&self, counted: u64) -> u32 {
        let known = usize::try_from(counted).unwrap_or(CALLS).min(CALLS);
        let mut micros = self.micros.each_ref().map(|it| it.load(Relaxed));
        let micros = &mut micros[..known];
        let rank = (known * 95).div_ceil(100).saturating_sub(1);
        *micros.select_nth_unstable(rank).1
    }
}

#[allow(clippy::cast_possible_truncation)]
fn index(number: u64) -> usize {
    (number % CALLS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Goal: it is the time that 95 of 100 take, known from the hundredth call on, and follows the last
    /// 512.
    /// Method: 1 to 100 ms in disorder; then 1 ms for all the 512, and a tenth of them slow.
    #[test]
    fn it_is_what_95_of_100_take() {
        let latencies = Latencies::default();
        for number in 0..99 {
            latencies.count((number * 37 % 100 + 1) * MS);
            assert_eq!(None, latencies.p95(), "{number}");
        }
        latencies.count((99 * 37 % 100 + 1) * MS);
        assert_eq!(Some(95 * MS), latencies.p95());

        // Looked at with the 620th: 108 calls of the first hundred are gone, and so are all.
        for _ in 100..620 {
            latencies.count(MS);
        }
        assert_eq!(Some(MS), latencies.p95());
        for number in 0..520 {
            let slow = number % 10 == 0;
            latencies.count(if slow { 70 * MS } else { 2 * MS });
        }
        assert_eq!(Some(70 * MS), latencies.p95());
    }

    /// Goal: a call is counted whatever it took.
    /// Method: nothing at all, and more than fits.
    #[test]
    fn times_are_bounded() {
        for (took, expected) in [
            (Duration::ZERO, Duration::from_micros(1)),
            (Duration::MAX, Duration::from_micros(u32::MAX.into())),
        ] {
            let latencies = Latencies::default();
            (0..100).for_each(|_| latencies.count(took));
            assert_eq!(Some(expected), latencies.p95());
        }
    }
}

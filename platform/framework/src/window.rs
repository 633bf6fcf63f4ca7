//! What happened lately, counted in slices of time.
//!
//! A [`Window`] holds so many slices that follow each other; the oldest one is counted anew when
//! its time comes again. Counting is one atomic operation and takes no lock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// Counts of the last slices of time.
///
/// Between a slice less than its length and its length is what it remembers: a slice is forgotten
/// whole.
#[derive(Debug)]
pub struct Window {
    began: Instant,
    slice_millis: u64,
    /// Which slice was counted here last, and how many: the upper and the lower 32 bits.
    slices: Box<[AtomicU64]>,
}

const COUNT_BITS: u32 = 32;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

impl Window {
    /// A window of `length` in so many `slices`, each of a millisecond at least.
    ///
    /// # Panics
    ///
    /// If there are no slices.
    #[must_use]
    pub fn new(length: Duration, slices: u32) -> Self {
        assert!(slices > 0, "a window has slices");
        let slice = u64::try_from((length / slices).as_millis()).unwrap_or(u64::MAX);
        Self {
            began: Instant::now(),
            slice_millis: slice.max(1),
            slices: (0..slices).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Counts one more at `now`.
    pub fn count(&self, now: Instant) {
        let stamp = self.stamp(now);
        let slice = self.slice(stamp);
        let mut seen = slice.load(Ordering::Relaxed);
        loop {
            match seen >> COUNT_BITS {
                // Whoever counts here next sees the newer slice first: a count that comes late by a
                // whole window belongs to nothing any more.
                newer if newer > stamp => return,
                same if same == stamp => {
                    slice.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                _ => {}
            }
            let anew = (stamp << COUNT_BITS) | 1;
            match slice.compare_exchange_weak(seen, anew, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Takes back one that was counted at `then`, where its slice is still there.
    pub fn take_back(&self, then: Instant) {
        let stamp = self.stamp(then);
        let taken =
            |seen: u64| (seen >> COUNT_BITS == stamp && seen & COUNT_MASK > 0).then(|| seen - 1);
        // One that is not there any more is forgotten already.
        let order = Ordering::Relaxed;
        let _: Result<u64, u64> = self.slice(stamp).fetch_update(order, order, taken);
    }

    /// How many there were in the window that ends at `now`.
    #[must_use]
    pub fn sum(&self, now: Instant) -> u64 {
        let last = self.stamp(now);
        let first = last.saturating_sub(self.slices.len() as u64 - 1).max(1);
        let counts = self.slices.iter().map(|slice| {
            let seen = slice.load(Ordering::Relaxed);
            let lately = (first..=last).contains(&(seen >> COUNT_BITS));
            if lately { seen & COUNT_MASK } else { 0 }
        });
        counts.sum()
    }

    /// The number of the slice at `now`, from 1: nothing was counted in 0.
    fn stamp(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began);
        let millis = since.as_secs() * 1_000 + u64::from(since.subsec_millis());
        (millis / self.slice_millis + 1) & COUNT_MASK
    }

    fn slice(&self, stamp: u64) -> &AtomicU64 {
        let count = self.slices.len() as u64;
        let index = usize::try_from(stamp % count).unwrap_or_default();
        &self.slices[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Goal: a window counts what lies in it, and forgets slice by slice.
    /// Method: one a second for twenty seconds in a window of ten, then a long silence.
    #[tokio::test(start_paused = true)]
    async fn what_is_older_than_the_window_is_forgotten() {
        let window = Window::new(10 * SECOND, 10);
        let began = Instant::now();
        for second in 0..20_u32 {
            let now = began + second * SECOND;
            window.count(now);
            assert_eq!(u64::from(second.min(9) + 1), window.sum(now), "{second}");
        }
        let end = began + 19 * SECOND;
        assert_eq!(5, window.sum(end + 5 * SECOND));
        assert_eq!(0, window.sum(end + 10 * SECOND));
        assert_eq!(0, window.sum(end + 1_000 * SECOND));
    }

    /// Goal: what is taken back counts no more, and nothing is taken back that is gone.
    /// Method: in the slice it was counted in, twice, and after its place was taken.
    #[tokio::test(start_paused = true)]
    async fn what_is_taken_back_counts_no_more() {
        let window = Window::new(10 * SECOND, 10);
        let began = Instant::now();
        window.count(began);
        window.take_back(began);
        window.take_back(began);
        assert_eq!(0, window.sum(began));

        window.count(began);
        let later = began + 10 * SECOND;
        window.count(later);
        window.take_back(began);
        assert_eq!(1, window.sum(later));
        // So late that its slice is another one's.
        window.count(began);
        assert_eq!(1, window.sum(later));
    }

    /// Goal: no count is lost between threads.
    /// Method: four of them, ten thousand counts each.
    #[test]
    fn threads_count_together() {
        let window = Window::new(10 * SECOND, 10);
        let now = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| window.count(now)));
            }
        });
        assert_eq!(40_000, window.sum(now));
    }
}

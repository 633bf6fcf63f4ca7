//! How many calls a process needs to have in flight to be as fast as it was at its best: the most calls
//! it has answered in a tenth of a second, times the shortest that calls have taken (as in BBR, and in
//! Kratos' limiter). What is beyond waits, somewhere.

use std::{
    array, fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Counts in a second.
const PER_SECOND: u64 = 10;
/// How many of them are looked at.
const BUCKETS: usize = 100;

/// The answers of a process in the last ten seconds; clones share them.
#[derive(Clone)]
pub struct Throughput {
    begun: Instant,
    buckets: Arc<[Bucket; BUCKETS]>,
}

impl fmt::Debug for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throughput").finish_non_exhaustive()
    }
}

struct Bucket {
    /// Which of all since it began.
    number: AtomicU64,
    answers: AtomicU64,
    micros: AtomicU64,
}

impl Default for Throughput {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            buckets: Arc::new(array::from_fn(|_| Bucket {
                number: AtomicU64::new(u64::MAX),
                answers: AtomicU64::new(0),
                micros: AtomicU64::new(0),
            })),
        }
    }
}

impl Throughput {
    /// Counts an answer that was there at `now`.
    pub(super) fn add(&self, took: Duration, now: Instant) {
        let number = self.number(now);
        let bucket = &self.buckets[index(number)];
        // Two that begin it at once lose one of their answers.
        if bucket.number.swap(number, Relaxed) != number {
            bucket.answers.store(0, Relaxed);
            bucket.micros.store(0, Relaxed);
        }
        bucket.answers.fetch_add(1, Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        bucket.micros.fetch_add(micros, Relaxed);
    }

    /// How many calls are enough.
    pub(super) fn calls_enough(&self) -> u64 {
        (self.answers_max() * self.millis_min() * PER_SECOND + 500) / 1_000
    }

    /// Whether `in_flight` calls are more than enough; not known, and so no, where nothing was answered:
    /// streams are not, and what is handed on is not counted.
    pub(super) fn is_crowded(&self, in_flight: usize) -> bool {
        let known = self.recent().next().is_some();
        known && in_flight > 1 && in_flight as u64 > self.calls_enough()
    }

    /// The most answers in one bucket; 1 where there were none.
    fn answers_max(&self) -> u64 {
        self.recent().map(|(answers, _)| answers).max().unwrap_or(1)
    }

    /// The least mean time of one bucket, in milliseconds, rounded up; 1 where there were no answers.
    fn millis_min(&self) -> u64 {
        let means = self
            .recent()
            .map(|(answers, micros)| micros.div_ceil(answers * 1_000));
        means.min().unwrap_or(1).max(1)
    }

    /// Answers and times of those buckets that are whole, not too old, and not empty.
    fn recent(&self) -> impl Iterator<Item = (u64, u64)> {
        let now = self.number(Instant::now());
        let oldest = now.saturating_sub(BUCKETS as u64 - 1);
        let recent = self.buckets.iter().filter(move |bucket| {
            let number = bucket.number.load(Relaxed);
            (oldest..now).contains(&number)
        });
        let counts = recent.map(|it| (it.answers.load(Relaxed), it.micros.load(Relaxed)));
        counts.filter(|(answers, _)| *answers > 0)
    }

    fn number(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.begun);
        // In whole numbers of 64 bits: every call asks for it.
        let millis = u64::from(since.subsec_millis());
        since.as_secs() * PER_SECOND + millis * PER_SECOND / 1_000
    }
}

#[allow(clippy::cast_possible_truncation)]
fn index(number: u64) -> usize {
    (number % BUCKETS as u64) as usize
}

#[cfg(test)]
mod tests {
    use tokio::time;

    use super::*;

    const BUCKET: Duration = Duration::from_millis(1_000 / PER_SECOND);

    /// Goal: the most answers, and the shortest time, are those of the best buckets; without any, one.
    /// Method: published numbers: buckets of 100 to 1000 answers, and of times from 1 to 100 ms in tens.
    #[tokio::test(start_paused = true)]
    async fn it_is_what_was_best() {
        let throughput = Throughput::default();
        assert_eq!((1, 1), (throughput.answers_max(), throughput.millis_min()));
        assert!(!throughput.is_crowded(2), "nobody knows");

        for hundreds in 1..=10 {
            for _ in 0..hundreds * 100 {
                throughput.add(Duration::from_millis(50), Instant::now());
            }
            time::advance(BUCKET).await;
        }
        assert_eq!(
            (1_000, 50),
            (throughput.answers_max(), throughput.millis_min())
        );
        assert_eq!(
            500,
            throughput.calls_enough(),
            "10,000 a second, 50 ms each"
        );
        assert!(!throughput.is_crowded(500));
        assert!(throughput.is_crowded(501));

        let throughput = Throughput::default();
        for tens in 0..10 {
            for ones in 1..=10 {
                throughput.add(Duration::from_millis(tens * 10 + ones), Instant::now());
            }
            time::advance(BUCKET).await;
        }
        assert_eq!(6, throughput.millis_min());
    }

    /// Goal: what was more than ten seconds ago is forgotten.
    /// Method: a good bucket, then a bad one each tenth of a second.
    #[tokio::test(start_paused = true)]
    async fn the_past_is_forgotten() {
        let throughput = Throughput::default();
        (0..100).for_each(|_| throughput.add(Duration::from_millis(1), Instant::now()));
        for _ in 0..99 {
            time::advance(BUCKET).await;
            throughput.add(Duration::from_millis(9), Instant::now());
        }
        assert_eq!(
            (100, 1),
            (throughput.answers_max(), throughput.millis_min())
        );
        time::advance(BUCKET).await;
        assert_eq!((1, 9), (throughput.answers_max(), throughput.millis_min()));
    }
}

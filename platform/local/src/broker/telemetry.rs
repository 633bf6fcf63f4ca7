//! What is measured of the broker, for whoever runs it with metrics.

use gantry::{
    names::metric,
    telemetry::{
        self,
        metric::{Counter, Family, Gauge, Histogram, series},
    },
};
use tokio::time::{Duration, Instant};

use super::engine::{Engine, Journal, Outcome};

/// How often all queues are counted, at most.
pub(super) const COUNT_INTERVAL: Duration = Duration::from_secs(1);

telemetry::label! {
    /// What became of a message.
    enum Published {
        /// It was taken.
        Confirmed = "confirmed",
        /// Nobody wants it.
        Unroutable = "unroutable",
        /// A group has no room.
        QueueFull = "queue_full",
        /// The broker has no room.
        NoRoom = "no_room",
    }
}

telemetry::label! {
    /// What a message waits for.
    enum Waits {
        /// To be handed out.
        Ready = "ready",
        /// To be settled.
        Unsettled = "unsettled",
        /// To come again.
        Delayed = "delayed",
        /// For people.
        Dead = "dead",
    }
}

/// What is measured of the broker.
#[derive(Debug)]
pub(super) struct Metrics {
    published: Family<Counter, Published>,
    delivered: Counter,
    messages: Family<Gauge, Waits>,
    queues: Gauge,
    batch: Histogram,
    write: Histogram,
    /// When all queues are counted next, as something may have changed.
    count_at: Option<Instant>,
    counted: Instant,
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self {
            published: Family::register(&metric::BROKER_PUBLISHED, &[]).visible(),
            delivered: series(&metric::BROKER_DELIVERED, &[]),
            messages: Family::register(&metric::BROKER_MESSAGES, &[]).visible(),
            queues: series(&metric::BROKER_QUEUES, &[]),
            batch: series(&metric::BROKER_BATCH, &[]),
            write: series(&metric::BROKER_WRITE, &[]),
            count_at: Some(Instant::now()),
            counted: Instant::now(),
        }
    }

    pub(super) fn published(&self, outcome: &Outcome) {
        let outcome = match outcome {
            Outcome::Confirmed => Published::Confirmed,
            Outcome::Unroutable => Published::Unroutable,
            Outcome::QueueFull(_) => Published::QueueFull,
            Outcome::NoRoom => Published::NoRoom,
        };
        self.published.with(outcome).increment();
    }

    pub(super) fn delivered(&self) {
        self.delivered.increment();
    }

    /// Something is about to be written.
    #[expect(clippy::cast_precision_loss, reason = "no batch has 2^53 rows")]
    pub(super) fn writes(&self, journal: &Journal) {
        self.batch.record(journal.kept.len() as f64);
    }

    pub(super) fn written(&self, took: Duration) {
        self.write.record_duration(took);
    }

    /// When to look at the queues again, though nothing happens.
    pub(super) fn count_at(&self) -> Option<Instant> {
        self.count_at
    }

    /// Something may have changed: counts all queues, or notes that it is to be done.
    pub(super) fn changed(&mut self, engine: &Engine) {
        let now = Instant::now();
        let due = *self
            .count_at
            .get_or_insert_with(|| now.max(self.counted + COUNT_INTERVAL));
        if now < due {
            return;
        }
        (self.count_at, self.counted) = (None, now);
        self.count(engine);
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "the engine is bounded below 2^53"
    )]
    fn count(&self, engine: &Engine) {
        let mut counts = [0_usize; 4];
        let mut queues = 0;
        for group in engine.groups(None) {
            queues += group.queues.len();
            counts[3] += group.dead;
            for fill in group.queues {
                counts[0] += fill.ready;
                counts[1] += fill.unsettled;
                counts[2] += fill.delayed;
            }
        }
        self.queues.set(queues as f64);
        let waits = [Waits::Ready, Waits::Unsettled, Waits::Delayed, Waits::Dead];
        for (waits, count) in waits.into_iter().zip(counts) {
            self.messages.with(waits).set(count as f64);
        }
    }
}

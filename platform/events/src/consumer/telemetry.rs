//! What is measured of a consumer, and told.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gantry::{
    call,
    names::{self, metric},
    telemetry::{
        self,
        messaging::{self, Came, ErrorType, Process, Settled, Settling, Topic},
        metric::{Counter, Family, Gauge, Histogram, series},
    },
};
use gantry_store::Timestamp;

use super::{
    facts::Facts,
    handler::Failure,
    letter::{Fault, Reason},
    partition::Job,
};
use crate::broker::{Delivery, Settle};

telemetry::label! {
    /// What became of an event that came.
    pub(crate) enum Outcome {
        /// It had its effect.
        Applied = "applied",
        /// It had it before.
        Known = "known",
        /// It comes again later, to be tried again.
        PutOff = "put_off",
        /// It comes again later, behind another of its key.
        Postponed = "postponed",
        /// It waits for its predecessor, which has not come.
        Early = "early",
        /// It is a dead letter.
        Dead = "dead",
        /// It was left as it is, and comes again.
        Left = "left",
    }
}

/// One consumer as it is measured.
#[derive(Debug)]
pub(crate) struct Metrics {
    topics: BTreeMap<String, Topic>,
    /// All types that nothing here handles, as one.
    other: Topic,
    consumed: Family<Counter, Outcome>,
    redelivered: Counter,
    failed: Family<Counter, Reason>,
    dead: Family<Counter, Reason>,
    lag: Histogram,
    pub(crate) held: Gauge,
    pub(crate) partitions: Gauge,
    group: Arc<str>,
}

impl Metrics {
    /// Of `group`, which handles `topics`, at a broker of `system`.
    pub(crate) fn new<'a>(
        system: &'static str,
        group: &str,
        topics: impl Iterator<Item = &'a String>,
    ) -> Self {
        let consumer = messaging::Consumer::new(system, group);
        let group: Arc<str> = group.into();
        let label = [Arc::clone(&group).into()];
        Self {
            topics: topics
                .map(|topic| (topic.clone(), consumer.of(topic)))
                .collect(),
            other: consumer.of(names::OTHER),
            consumed: Family::register(&metric::EVENTS_CONSUMED, &label).visible(),
            redelivered: series(&metric::EVENTS_REDELIVERED, &label),
            failed: Family::register(&metric::EVENTS_ATTEMPTS_FAILED, &label),
            dead: Family::register(&metric::EVENTS_DEAD_LETTERS, &label).visible(),
            lag: series(&metric::EVENTS_LAG, &label),
            held: series(&metric::EVENTS_HELD, &label),
            partitions: series(&metric::EVENTS_PARTITIONS, &label),
            group,
        }
    }

    /// An event has come.
    pub(super) fn arrived(&self, delivery: &Delivery) {
        if delivery.redelivered {
            self.redelivered.increment();
        }
    }

    /// Work at an event begins.
    pub(super) fn process(self: &Arc<Self>, job: &Job, partition: u16) -> Measured {
        let message = &job.delivery.message;
        let facts = job.facts.as_ref().ok();
        let topic = self.topics.get(&message.topic).unwrap_or(&self.other);
        let process = topic.process(&Came {
            id: facts.map_or("", |facts| &facts.id),
            partition,
            body_bytes: message.body.len(),
            created: facts.and_then(|facts| facts.created.as_ref()),
            redriven: facts.is_some_and(|facts| facts.redriven),
        });
        Measured {
            metrics: Arc::clone(self),
            process,
            outcome: Outcome::Left,
        }
    }
}

/// An event that is worked at; dropped without a verdict, it was left.
#[derive(Debug)]
pub(super) struct Measured {
    metrics: Arc<Metrics>,
    process: Process,
    outcome: Outcome,
}

impl Measured {
    /// What the handler inherits.
    pub(super) fn context(&self, limit: Duration, attempts: u32) -> Arc<call::Context> {
        self.process.context(limit, attempts)
    }

    /// Has `work` belong to the span of it all.
    pub(super) fn within<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        self.process.within(work)
    }

    fn ends(&mut self, outcome: Outcome, error: ErrorType) {
        self.outcome = outcome;
        self.process.ends(error);
    }

    /// It had its effect.
    pub(super) fn applied(&mut self, facts: &Facts) {
        self.ends(Outcome::Applied, ErrorType::None);
        if let Some(time) = facts.time {
            let age = Timestamp::now().micros().saturating_sub(time.micros());
            let age = Duration::from_micros(u64::try_from(age).unwrap_or(0));
            self.metrics.lag.record_duration(age);
        }
    }

    /// It had it before.
    pub(super) fn known(&mut self) {
        self.ends(Outcome::Known, ErrorType::None);
    }

    /// It came before its predecessor.
    pub(super) fn early(&mut self) {
        self.ends(Outcome::Early, ErrorType::None);
    }

    /// It comes again behind another.
    pub(super) fn postponed(&mut self) {
        self.ends(Outcome::Postponed, ErrorType::None);
    }

    /// It comes again to be tried again.
    pub(super) fn put_off(&mut self) {
        self.outcome = Outcome::PutOff;
    }

    /// An attempt failed, the `attempts`th.
    pub(super) fn failed(&mut self, fault: &Fault, attempts: u32) {
        let reason = fault.reason();
        self.metrics.failed.with(reason).increment();
        self.process.ends(match fault {
            Fault::Said(Failure::Reject(_)) => ErrorType::Rejected,
            Fault::Said(Failure::Retry(_)) | Fault::NotKept(_) => ErrorType::Failed,
            Fault::Panicked => ErrorType::Panicked,
            Fault::TimedOut => ErrorType::TimedOut,
        });
        let group = &*self.metrics.group;
        tracing::info!(
            group,
            attempts,
            error = fault.error(),
            "an attempt at an event failed"
        );
    }

    /// It becomes a dead letter.
    pub(super) fn dead(&mut self, id: &str, reason: Reason, error: &str, attempts: u32) {
        self.outcome = Outcome::Dead;
        self.metrics.dead.with(reason).increment();
        if matches!(reason, Reason::Malformed | Reason::UnknownType) {
            self.process.ends(ErrorType::Unreadable);
        }
        let (group, reason) = (&*self.metrics.group, reason.as_str());
        tracing::warn!(
            group,
            id,
            reason,
            attempts,
            error,
            "an event is a dead letter"
        );
    }

    /// It is settled.
    pub(super) fn settle(self, how: &Settle) -> Settling {
        self.process.settle(match how {
            Settle::Ack => Settled::Ack,
            Settle::Requeue => Settled::Requeue,
            Settle::Retry { .. } => Settled::Retry,
            Settle::Reject(_) => Settled::Reject,
        })
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.metrics.consumed.with(self.outcome).increment();
    }
}

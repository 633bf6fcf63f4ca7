//! What is measured of a consumer, and told.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gantry::{
    call,
    names::{self, metric},
    telemetry::{
        self,
        messaging::{self, Came, ErrorType, Process, Settled, Settling, Topic},
        metric::{Counter, Family, Histogram, series},
    },
};
use gantry_store::Timestamp;

use super::{facts::Facts, handler::Failure, letter::Fault, partition::Job, shown::Shown};
use crate::{
    broker::{Delivery, Settle},
    dead::Reason,
};

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
        /// It waits within the process to be tried again.
        Rested = "rested",
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
    given_up: Counter,
    lag: Histogram,
    shown: Arc<Shown>,
    group: Arc<str>,
}

impl Metrics {
    /// Of `group`, which handles `topics`, at a broker of `system`.
    pub(crate) fn new<'a>(
        system: &'static str,
        group: Arc<str>,
        topics: impl Iterator<Item = &'a String>,
        shown: Arc<Shown>,
    ) -> Self {
        let consumer = messaging::Consumer::new(system, &group);
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
            given_up: series(&metric::EVENTS_GIVEN_UP, &label),
            lag: series(&metric::EVENTS_LAG, &label),
            shown,
            group,
        }
    }

    fn topic(&self, name: &str) -> &Topic {
        self.topics.get(name).unwrap_or(&self.other)
    }

    /// An event has come.
    pub(super) fn arrived(&self, delivery: &Delivery) {
        self.topic(&delivery.message.topic).came();
        if delivery.redelivered {
            self.redelivered.increment();
        }
    }

    /// A held event did not come again in time.
    pub(super) fn given_up(&self, part: u16, sequence: u64) {
        self.given_up.increment();
        let group = &*self.group;
        tracing::warn!(
            group,
            part,
            sequence,
            "an event that was put off has not come again; those of its key go on"
        );
    }

    /// Work at an event begins.
    pub(super) fn process(self: &Arc<Self>, job: &Job, partition: u16) -> Measured {
        let message = &job.delivery.message;
        let facts = job.facts.as_ref().ok();
        let topic = self.topic(&message.topic);
        let process = topic.process(&Came {
            id: facts.map_or("", |facts| &facts.id),
            partition,
            body_bytes: message.body.len(),
            created: facts.and_then(|facts| facts.created.as_ref()),
            redriven: facts.is_some_and(|facts| facts.redriven),
        });
        self.shown.begins();
        Measured {
            metrics: Arc::clone(self),
            process,
            outcome: Outcome::Left,
            panicked: false,
        }
    }
}

/// An event that is worked at; dropped without a verdict, it was left.
#[derive(Debug)]
pub(super) struct Measured {
    metrics: Arc<Metrics>,
    process: Process,
    outcome: Outcome,
    /// Whether its handler has panicked.
    panicked: bool,
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

    /// It waits at hand to be tried again.
    pub(super) fn rested(&mut self) {
        self.outcome = Outcome::Rested;
    }

    /// It comes again behind another.
    pub(super) fn postponed(&mut self) {
        self.ends(Outcome::Postponed, ErrorType::None);
    }

    /// It comes again to be tried again.
    pub(super) fn put_off(&mut self) {
        self.outcome = Outcome::PutOff;
    }

    /// An attempt failed, the `attempts`th, at an event of `topic`.
    pub(super) fn failed(&mut self, fault: &Fault, (topic, id): (&str, &str), attempts: u32) {
        let reason = fault.reason();
        self.metrics.failed.with(reason).increment();
        self.process.ends(match fault {
            Fault::Said(Failure::Reject(_)) => ErrorType::Rejected,
            Fault::Said(Failure::Retry(_)) | Fault::BrokenOff(_) | Fault::NotKept(_) => {
                ErrorType::Failed
            }
            Fault::Panicked => ErrorType::Panicked,
            Fault::TimedOut => ErrorType::TimedOut,
            Fault::UnknownType => ErrorType::Unreadable,
        });
        let (group, error) = (&*self.metrics.group, fault.error());
        let first = !std::mem::replace(&mut self.panicked, matches!(fault, Fault::Panicked));
        if first && self.panicked {
            // Where, the process has told when it came about. Of the event nothing but which it is.
            tracing::warn!(group, topic, id, attempts, "a handler panicked");
        } else {
            tracing::info!(group, attempts, error, "an attempt at an event failed");
        }
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
        self.metrics.shown.ended();
    }
}

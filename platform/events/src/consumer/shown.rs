//! What operators see of a consumer in one process, and what is told of its troubles: each once when it
//! begins and once when it is over, however often it is met.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use gantry::{
    journal::{Journal, Kind},
    names::metric,
    status::chain,
    telemetry::{
        self,
        metric::{Counter, Family, Gauge, series},
    },
};
use gantry_api::admin::v1;
use tokio::time::Instant;

use crate::{
    broker::{BrokerError, Fill},
    state,
};

telemetry::label! {
    /// What keeps a consumer from what it does.
    #[derive(PartialOrd, Ord)]
    pub(crate) enum Trouble {
        /// Its queue is not there.
        Missing = "missing",
        /// Its queues are there in another shape.
        OtherShape = "other_shape",
        /// The broker does not let us.
        Denied = "denied",
        /// The broker has as many groups, queues or consumers as it may.
        NoRoom = "no_room",
        /// The broker does not take what is to come again later, or is a dead letter.
        Refused = "refused",
        /// The broker does not answer in time.
        TimedOut = "timed_out",
        /// There is no connection to the broker.
        Disconnected = "disconnected",
        /// The database does not do what it is asked.
        Database = "database",
    }
}

impl Trouble {
    fn of(error: &BrokerError) -> Self {
        match error {
            BrokerError::Missing(_) => Self::Missing,
            BrokerError::OtherShape { .. } => Self::OtherShape,
            BrokerError::Denied(_) => Self::Denied,
            BrokerError::NoRoom(_) => Self::NoRoom,
            BrokerError::Refused(_) => Self::Refused,
            BrokerError::TimedOut => Self::TimedOut,
            BrokerError::Disconnected(_) => Self::Disconnected,
        }
    }
}

telemetry::label! {
    /// What messages in queues wait for.
    enum Queued {
        /// To be handed out.
        Ready = "ready",
        /// To be settled.
        Unsettled = "unsettled",
        /// To come again.
        Delayed = "delayed",
        /// For people.
        Dead = "dead",
        /// To be moved to their queue, which was gone as they came.
        Stray = "stray",
    }
}

/// What a consumer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// Nothing: its service is not ready.
    #[default]
    Waiting,
    /// It has its queues made.
    Preparing,
    /// It takes its part of what comes.
    Consuming,
    /// It finishes what it has begun.
    Draining,
}

/// What something is wrong with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Where {
    /// All of a consumer: its queues, or its share of them.
    All,
    /// What it wants of the broker.
    Topics,
    /// One queue.
    Part(u16),
}

/// What operators see of a consumer.
#[derive(Debug)]
pub(crate) struct Shown {
    group: Arc<str>,
    journal: Journal,
    met: Family<Counter, Trouble>,
    queued: Family<Gauge, Queued>,
    held: Gauge,
    partitions: Gauge,
    in_flight: AtomicUsize,
    /// Whether there is any trouble, for those who end it.
    troubled: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    phase: Phase,
    /// Those that are consumed, each with events held and their keys.
    partitions: BTreeMap<u16, (usize, usize)>,
    troubles: BTreeMap<Trouble, Wrong>,
    fill: Option<(Fill, Instant)>,
}

#[derive(Debug)]
struct Wrong {
    with: BTreeSet<Where>,
    begun: Instant,
    error: String,
    tries: u64,
}

impl Shown {
    pub(super) fn new(group: &Arc<str>, journal: Journal) -> Self {
        let label = [Arc::clone(group).into()];
        Self {
            group: Arc::clone(group),
            journal,
            met: Family::register(&metric::EVENTS_TROUBLES, &label),
            queued: Family::register(&metric::EVENTS_QUEUED, &label),
            held: series(&metric::EVENTS_HELD, &label),
            partitions: series(&metric::EVENTS_PARTITIONS, &label),
            in_flight: AtomicUsize::new(0),
            troubled: AtomicBool::new(false),
            seen: Mutex::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn phase(&self, phase: Phase) {
        self.seen().phase = phase;
    }

    /// Work at an event begins.
    pub(super) fn begins(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// Work at an event has ended.
    pub(super) fn ended(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// A partition is consumed, and of it so many events are held, of so many keys.
    pub(super) fn holds(&self, part: u16, events: usize, keys: usize) {
        let mut seen = self.seen();
        seen.partitions.insert(part, (events, keys));
        self.count(&seen);
    }

    /// A partition is consumed no more; whatever was wrong with it is not ours any more.
    pub(super) fn gone(&self, part: u16) {
        let mut seen = self.seen();
        seen.partitions.remove(&part);
        self.count(&seen);
        drop(seen);
        self.fine(Where::Part(part));
    }

    #[expect(clippy::cast_precision_loss, reason = "nobody holds 2^53 events")]
    fn count(&self, seen: &Seen) {
        let held: usize = seen.partitions.values().map(|(events, _)| events).sum();
        self.held.set(held as f64);
        self.partitions.set(seen.partitions.len() as f64);
    }

    /// The broker did not do what it was asked.
    pub(super) fn broker(&self, with: Where, error: &BrokerError) {
        self.trouble(with, Trouble::of(error), &chain(error));
    }

    /// The database did not do what it was asked.
    pub(super) fn database(&self, with: Where, error: &gantry_store::Error) {
        self.trouble(with, Trouble::Database, &chain(error));
    }

    fn trouble(&self, with: Where, trouble: Trouble, error: &str) {
        self.met.with(trouble).increment();
        let mut seen = self.seen();
        // One thing at a time is wrong with each.
        let over = end(&mut seen.troubles, |of| of != trouble, with);
        let new = !seen.troubles.contains_key(&trouble);
        let wrong = seen.troubles.entry(trouble).or_insert_with(|| Wrong {
            with: BTreeSet::new(),
            begun: Instant::now(),
            error: String::new(),
            tries: 0,
        });
        wrong.with.insert(with);
        wrong.tries = wrong.tries.saturating_add(1);
        wrong.error.clear();
        wrong.error.push_str(error);
        self.troubled.store(true, Relaxed);
        drop(seen);
        self.tell_over(&over);
        if new {
            let (group, reason) = (&*self.group, trouble.as_str());
            tracing::warn!(
                group,
                reason,
                error,
                "a consumer is held up; it tries again"
            );
            self.record(format!("held up, {reason}: {error}"));
        }
    }

    /// Nothing is wrong with that any more.
    pub(super) fn fine(&self, with: Where) {
        if self.troubled.load(Relaxed) {
            let mut seen = self.seen();
            let over = end(&mut seen.troubles, |_| true, with);
            self.troubled.store(!seen.troubles.is_empty(), Relaxed);
            drop(seen);
            self.tell_over(&over);
        }
    }

    fn tell_over(&self, over: &[Trouble]) {
        for trouble in over {
            let (group, reason) = (&*self.group, trouble.as_str());
            tracing::info!(group, reason, "a consumer is held up no more");
            self.record(format!("held up no more, {reason}"));
        }
    }

    fn record(&self, detail: String) {
        self.journal.record(Kind::Events, &*self.group, detail);
    }

    /// How full its queues are.
    #[expect(clippy::cast_precision_loss, reason = "nobody queues 2^53 events")]
    pub(super) fn fill(&self, fill: Fill) {
        let ready = fill.ready.iter().sum::<u64>();
        for (queued, count) in [
            (Queued::Ready, ready),
            (Queued::Unsettled, fill.unsettled),
            (Queued::Delayed, fill.delayed),
            (Queued::Dead, fill.dead_letters),
            (Queued::Stray, fill.strays),
        ] {
            self.queued.with(queued).set(count as f64);
        }
        self.seen().fill = Some((fill, Instant::now()));
    }

    /// All of it.
    pub(crate) fn on_wire(&self) -> v1::EventConsumer {
        use v1::event_consumer::State;
        let seen = self.seen();
        let state = match seen.phase {
            Phase::Waiting => State::Waiting,
            Phase::Preparing => State::Preparing,
            Phase::Consuming => State::Consuming,
            Phase::Draining => State::Draining,
        };
        let held = seen.partitions.values();
        v1::EventConsumer {
            group: self.group.to_string(),
            state: state.into(),
            partitions: seen.partitions.keys().copied().map(u32::from).collect(),
            in_flight: state::count(self.in_flight.load(Relaxed)),
            held: state::count(held.clone().map(|(events, _)| events).sum()),
            held_keys: state::count(held.map(|(_, keys)| keys).sum()),
            troubles: seen
                .troubles
                .iter()
                .map(|(trouble, wrong)| wrong.on_wire(*trouble))
                .collect(),
            fill: seen.fill.as_ref().map(|(fill, at)| v1::QueueFill {
                ready: fill.ready.iter().sum(),
                unsettled: fill.unsettled,
                delayed: fill.delayed,
                dead_letters: fill.dead_letters,
                strays: fill.strays,
                count_time: Some(state::time_of(*at)),
            }),
        }
    }
}

impl Wrong {
    fn on_wire(&self, trouble: Trouble) -> v1::ConsumerTrouble {
        let parts = self.with.iter().filter_map(|with| match with {
            Where::All | Where::Topics => None,
            Where::Part(part) => Some(u32::from(*part)),
        });
        v1::ConsumerTrouble {
            reason: trouble.as_str().to_owned(),
            partitions: parts.collect(),
            begin_time: Some(state::time_of(self.begun)),
            error: self.error.clone(),
            attempts: self.tries,
        }
    }
}

/// Takes away what was wrong `with` something, of those troubles that are `meant`; answers which of them
/// are over with it.
fn end(
    troubles: &mut BTreeMap<Trouble, Wrong>,
    meant: impl Fn(Trouble) -> bool,
    with: Where,
) -> Vec<Trouble> {
    let mut over = Vec::new();
    troubles.retain(|trouble, wrong| {
        let met = meant(*trouble) && wrong.with.remove(&with);
        if met && wrong.with.is_empty() {
            over.push(*trouble);
        }
        !wrong.with.is_empty()
    });
    over
}

#[cfg(test)]
mod tests;

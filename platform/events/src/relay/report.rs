//! What a relay tells: metrics, and a line in log and journal for each change, once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use gantry::{
    call::TraceContext,
    journal::{Journal, Kind},
    names,
    status::chain,
    telemetry::{
        messaging::{Producer, SendError, Sending, Sends, Sent},
        metric::{self, Family, Gauge},
    },
};
use gantry_store::{Error, Timestamp};
use tokio::time::{Duration, Instant};

use super::{holds::Reason, ledger::Backlog, shown::Shown};
use crate::{Message, broker::PublishError, headers};

/// A reason that comes back sooner has never been gone: one event that fails again and again is told
/// of once.
const CALM: Duration = Duration::from_mins(2);

/// Topics measured by themselves: those that the program has, and what others have left in its outbox.
const TOPICS_MAX: usize = 256;

gantry::telemetry::label! {
    /// How a publication ended.
    pub(super) enum Published {
        /// The broker has it.
        Sent = "sent",
        /// Nobody wanted it, and it was passed over.
        Dropped = "dropped",
        /// No group wants its topic.
        Unroutable = "unroutable",
        /// A queue did not take it.
        Refused = "refused",
        /// The broker takes nothing.
        Blocked = "blocked",
        /// It was not confirmed in time.
        TimedOut = "timed_out",
        /// A group that is to have it is not there.
        Awaiting = "awaiting",
        /// The broker does not let us.
        Denied = "denied",
        /// There is no connection to the broker.
        Disconnected = "disconnected",
    }
}

gantry::telemetry::label! {
    /// What is done beside for the tables of an outbox.
    pub(super) enum Upkeep {
        /// The backlog is counted.
        Count = "count",
        /// Old events are forgotten.
        Prune = "prune",
        /// Times of a clock that was ahead are brought nearer.
        Near = "near",
    }
}

impl From<Reason> for Published {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Unroutable => Self::Unroutable,
            Reason::Refused => Self::Refused,
            Reason::Blocked => Self::Blocked,
            Reason::TimedOut => Self::TimedOut,
            Reason::Awaiting => Self::Awaiting,
            Reason::Denied => Self::Denied,
            Reason::Disconnected => Self::Disconnected,
        }
    }
}

/// By the word of the conventions.
pub(super) fn send_error(outcome: &Result<(), PublishError>) -> SendError {
    match outcome.as_ref().map_err(Reason::of) {
        Ok(()) => SendError::None,
        // It was not sent, as not everybody is there.
        Err(Reason::Unroutable | Reason::Awaiting) => SendError::Unroutable,
        Err(Reason::Refused) => SendError::Refused,
        Err(Reason::Blocked) => SendError::Blocked,
        Err(Reason::TimedOut) => SendError::TimedOut,
        Err(Reason::Denied) => SendError::Denied,
        Err(Reason::Disconnected) => SendError::Disconnected,
    }
}

/// What a relay tells.
#[derive(Debug)]
pub(super) struct Report {
    journal: Option<Journal>,
    shown: Arc<Shown>,
    producer: Producer,
    sends: HashMap<String, Sends>,
    published: Family<metric::Counter, Published>,
    pending: Gauge,
    oldest: Gauge,
    /// Why events wait, and since when they do so no more.
    told: BTreeMap<Reason, Option<Instant>>,
    dropped: HashSet<String>,
    database_away: bool,
    /// What of the upkeep fails.
    failing: HashSet<&'static str>,
}

impl Report {
    /// Of a relay to a broker of `system`.
    pub(super) fn new(journal: Option<Journal>, system: &'static str, shown: Arc<Shown>) -> Self {
        Self {
            journal,
            shown,
            producer: Producer::new(system),
            sends: HashMap::new(),
            published: Family::register(&names::metric::EVENTS_PUBLISHED, &[]).visible(),
            pending: metric::series(&names::metric::EVENTS_PENDING, &[]),
            oldest: metric::series(&names::metric::EVENTS_OLDEST, &[]),
            told: BTreeMap::new(),
            dropped: HashSet::new(),
            database_away: false,
            failing: HashSet::new(),
        }
    }

    fn record(&self, subject: &str, detail: impl Into<String>) {
        if let Some(journal) = &self.journal {
            journal.record(Kind::Events, subject, detail);
        }
    }

    /// A message is sent.
    pub(super) fn send(&mut self, message: &Message) -> Sending {
        self.sends(&message.topic).send(|| {
            let header = |name: &str| message.headers.get(name).map(String::as_str);
            let created = header(headers::TRACEPARENT);
            Sent {
                id: header(headers::ID).unwrap_or_default(),
                body_bytes: message.body.len(),
                created: created
                    .and_then(|parent| TraceContext::read(parent, header(headers::TRACESTATE))),
            }
        })
    }

    /// How events of `topic` are measured.
    fn sends(&mut self, topic: &str) -> Sends {
        if let Some(known) = self.sends.get(topic) {
            return known.clone();
        }
        let topic = if self.sends.len() < TOPICS_MAX {
            topic
        } else {
            names::OTHER
        };
        let sends = self.sends.entry(topic.to_owned());
        sends.or_insert_with(|| self.producer.of(topic)).clone()
    }

    pub(super) fn published(&self, how: impl Into<Published>) {
        self.published.with(how.into()).increment();
    }

    /// An event waits; the first of its reason is told.
    pub(super) fn waits(&mut self, topic: &str, error: &PublishError) {
        let reason = Reason::of(error);
        self.published(reason);
        let (what, cause) = (reason.as_str(), chain(error));
        self.shown.refused(reason, topic, cause.clone());
        if self.told.insert(reason, None).is_some() {
            return;
        }
        tracing::warn!(reason = what, topic, error = cause, "events wait");
        self.record(topic, format!("events wait, {what}: {cause}"));
    }

    /// Events of `topic` are passed over, as nobody wants them; each topic is told once.
    pub(super) fn dropped(&mut self, topic: &str) {
        self.published(Published::Dropped);
        if self.dropped.insert(topic.to_owned()) {
            tracing::warn!(topic, "events that nobody wants are dropped");
            self.record(topic, "events that nobody wants are dropped");
        }
    }

    /// Notes why events still wait; what is over is told.
    pub(super) fn still(&mut self, reasons: &BTreeSet<Reason>, now: Instant) {
        let mut over = Vec::new();
        // What keeps everything may change its reason from try to try, and is over with the last of them.
        let none = !reasons.iter().any(|reason| reason.is_for_all());
        for (reason, gone) in &mut self.told {
            if reasons.contains(reason) {
                *gone = None;
                continue;
            }
            let since = *gone.get_or_insert(now);
            if (reason.is_for_all() && none) || now.duration_since(since) >= CALM {
                over.push(*reason);
            }
        }
        for reason in over {
            self.told.remove(&reason);
            let reason = reason.as_str();
            tracing::info!(reason, "events wait no more");
            self.record("events", format!("events wait no more, {reason}"));
        }
    }

    /// What operators see.
    pub(super) fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Whether something has been told whose end has not.
    pub(super) fn is_waiting(&self) -> bool {
        !self.told.is_empty()
    }

    /// The database does not do what it is asked; told once.
    pub(super) fn database(&mut self, error: Option<&Error>) {
        if self.database_away == error.is_some() {
            return;
        }
        self.shown
            .database(error.map(|error| chain(error)).unwrap_or_default());
        self.database_away = error.is_some();
        if let Some(error) = error {
            let cause = chain(error);
            tracing::warn!(error = cause, "the outbox cannot be read and written");
            self.record("outbox", format!("cannot be read and written: {cause}"));
        } else {
            tracing::info!("the outbox can be read and written again");
            self.record("outbox", "can be read and written again");
        }
    }

    /// Something was done for the tables, or not; that it is not is told once.
    pub(super) fn upkeep(&mut self, what: Upkeep, error: Option<&Error>) {
        let what = what.as_str();
        let Some(error) = error else {
            self.failing.remove(what);
            return;
        };
        if self.failing.insert(what) {
            let error = chain(error);
            tracing::warn!(what, error, "the outbox is not looked after");
        }
    }

    /// Another relay took over, as this one was not heard of for too long.
    pub(super) fn passed_by(&self) {
        tracing::warn!("not heard of for too long: others publish what was claimed here");
        self.record("relay", "was passed by");
    }

    /// A key without its next events in the outbox: somebody has deleted or damaged them.
    pub(super) fn gap() {
        tracing::error!("the next events of a key are not in the outbox; the key waits");
    }

    pub(super) fn backlog(&self, backlog: Backlog, now: Timestamp) {
        self.shown.backlog(backlog);
        // As far as a float counts exactly, which is beyond any table.
        #[expect(clippy::cast_precision_loss)]
        let pending = backlog.events as f64;
        self.pending.set(pending);
        let age = backlog.oldest.map_or(0, |it| now.micros() - it.micros());
        let age = Duration::from_micros(u64::try_from(age).unwrap_or_default());
        self.oldest.set(age.as_secs_f64());
    }
}

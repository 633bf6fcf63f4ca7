//! What is known of one run, each part from a source of its own.

mod counts;
mod strike;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use serde::{Deserialize, Serialize};

pub use strike::Strike;

/// All that is known of one run, once its faults are healed and it has had its time to come to rest.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Evidence {
    /// What was asked for, by the identifier of the request; from the driver's history.
    pub requests: BTreeMap<String, Request>,
    /// Business rows, by the identifier of their request; from the publisher's table.
    pub entries: BTreeMap<String, Entry>,
    /// Events written down to be published; from the table of the outbox.
    pub committed: Vec<Committed>,
    /// How many events each process knows to be written down; from the same log.
    #[serde(default)]
    pub added: BTreeMap<String, u64>,
    /// What the relays were told of what they published; from the log at the door of the broker.
    pub publications: Vec<Publication>,
    /// Every delivery; from the same log, at the other end.
    pub deliveries: Vec<Delivery>,
    /// Applied events, a row for each time; from the consumer's table.
    pub effects: Vec<Effect>,
    /// What they add up to, by account; from another table of the consumer.
    pub balances: BTreeMap<String, Balance>,
    /// The event of each dead letter; from the broker.
    pub dead: Vec<String>,
    /// What is still on its way; from the table of the outbox, and the broker.
    pub left: Left,
    /// The processes that served, by name: each start of one is another.
    pub processes: BTreeMap<String, Process>,
    /// What must have happened, or nothing was proven.
    pub must: Must,
    /// What was done to the system, in its order; from the driver.
    pub strikes: Vec<Strike>,
}

/// Something that was asked for, once or, where nobody knew what became of it, again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Whose balance changes: the key of the event.
    pub account: String,
    /// By how much.
    pub amount: i64,
    /// Whether no consumer can handle its event.
    pub poisoned: bool,
    /// What became of it.
    pub outcome: Outcome,
}

/// What whoever asked was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is done.
    Ok,
    /// It is not done, and never will be.
    Failed,
    /// Nothing that says either.
    Unknown,
}

/// A business row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Whose balance changes.
    pub account: String,
    /// By how much.
    pub amount: i64,
}

/// An event that was written down to be published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// Its identifier.
    pub event_id: String,
    /// The request it tells of.
    pub request_id: String,
    /// Its key.
    pub account: String,
    /// Its number among those of the key.
    pub sequence: u64,
    /// What it says.
    pub amount: i64,
    /// How far it is.
    pub state: State,
    /// When it was written down, in microseconds of the clock of the system.
    #[serde(default)]
    pub at: i64,
}

/// How far an event is in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Yet to be published.
    Pending,
    /// Published.
    Delivered,
    /// Given up, as nobody wanted it.
    Unroutable,
}

/// One publication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// Which process published.
    pub process: String,
    /// The event.
    pub event_id: String,
    /// Whether the broker confirmed it; else it said no, or nothing.
    pub confirmed: bool,
    /// When it was handed to the broker, in microseconds of the clock of the system.
    #[serde(default)]
    pub at: i64,
}

/// One delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Which process had it.
    pub process: String,
    /// The event.
    pub event_id: String,
    /// Whether the broker said that it may have come before.
    pub redelivered: bool,
    /// Whether one of another key, that came later, was handed on before it.
    #[serde(default)]
    pub overtaken: bool,
    /// Whether the event was applied by it.
    pub applied: bool,
    /// What became of it.
    pub end: End,
    /// When the broker handed it out, in microseconds of the clock of the system.
    #[serde(default)]
    pub at: i64,
}

/// What a delivery came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Done with.
    Acked,
    /// To come again later.
    PutOff,
    /// To come again at once.
    Requeued,
    /// A dead letter.
    Rejected,
    /// Nobody settled it: its process, or its connection, was gone before.
    Open,
}

/// An event that was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Its identifier.
    pub event_id: String,
    /// The request it tells of.
    pub request_id: String,
    /// Its key.
    pub account: String,
    /// Its place among those that were applied to the account, from 1.
    pub place: u64,
    /// Its number among those of the key.
    pub sequence: u64,
    /// What was applied.
    pub amount: i64,
}

/// What effects add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Balance {
    /// Effects.
    pub count: u64,
    /// Sum of their amounts.
    pub amount: i64,
}

/// What is still on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Left {
    /// Events yet to be published.
    pub pending: u64,
    /// Messages that wait in queues.
    pub ready: u64,
    /// Messages that were handed out and not settled.
    pub unsettled: u64,
    /// Messages that come again later.
    pub delayed: u64,
    /// Whether something still changed when nobody waited any longer.
    #[serde(default)]
    pub moving: bool,
}

/// A process that served.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Process {
    /// What its metrics said at the end, or before it left in order; nothing where it was not asked.
    pub told: BTreeMap<Measure, u64>,
    /// Where it went on after that: what it had counted by its log a moment before.
    #[serde(default)]
    pub least: Option<BTreeMap<Measure, u64>>,
}

/// Something that a process counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Events written down.
    Added,
    /// Publications that were confirmed.
    Confirmed,
    /// Events passed over, as nobody wanted them.
    Dropped,
    /// Deliveries.
    Delivered,
    /// Deliveries of which the broker said that they may have come before.
    Redelivered,
    /// Deliveries of what was done before.
    Deduplicated,
    /// Deliveries that were acked.
    Acked,
    /// Deliveries that come again later.
    PutOff,
    /// Deliveries that became dead letters.
    Dead,
    /// Events yet to be published, of all processes.
    Backlog,
}

impl Measure {
    /// All there is.
    pub const ALL: [Self; 10] = [
        Self::Added,
        Self::Confirmed,
        Self::Dropped,
        Self::Delivered,
        Self::Redelivered,
        Self::Deduplicated,
        Self::Acked,
        Self::PutOff,
        Self::Dead,
        Self::Backlog,
    ];
}

/// How fast what had gathered went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Events that had gathered.
    pub backlog: u64,
    /// Milliseconds that they may take, by their number and the rate at which they came.
    pub millis_max: u64,
    /// Milliseconds until none of those yet to be published was older than a second; none where that
    /// was not seen.
    pub millis: Option<u64>,
}

/// What must have happened, or nothing was proven.
#[allow(clippy::struct_excessive_bools, reason = "one for each thing to see")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Must {
    /// Events that were published more than once.
    pub doubled: bool,
    /// Deliveries that came again.
    pub redelivered: bool,
    /// Deliveries that met an event that was done.
    pub deduplicated: bool,
    /// Deliveries that came behind one of another key.
    #[serde(default)]
    pub overtaken: bool,
    /// Deliveries by which events were applied.
    #[serde(default)]
    pub applied: bool,
}

/// A run in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Requests of which anything is known.
    pub requests: u64,
    /// Requests that were answered with success.
    pub acked: u64,
    /// Events that were written down.
    pub committed: u64,
    /// Deliveries.
    pub deliveries: u64,
    /// Deliveries beyond the first of each event.
    pub duplicates: u64,
    /// Deliveries beyond the first of each event that the broker took for new ones: it was published
    /// again.
    pub doubled: u64,
    /// Deliveries that came again, as the broker said.
    pub redelivered: u64,
    /// Deliveries that met an event that was done.
    pub deduplicated: u64,
    /// Dead letters.
    pub dead: u64,
}

impl Must {
    /// Nothing in particular.
    pub const NOTHING: Self = Self {
        doubled: false,
        redelivered: false,
        deduplicated: false,
        overtaken: false,
        applied: false,
    };
    /// Events that were applied.
    pub const APPLIED: Self = Self {
        applied: true,
        ..Self::NOTHING
    };
    /// Events that were published more than once, which are known when they come again.
    pub const DOUBLED: Self = Self {
        doubled: true,
        deduplicated: true,
        ..Self::NOTHING
    };
    /// Deliveries that came again.
    pub const REDELIVERED: Self = Self {
        redelivered: true,
        ..Self::NOTHING
    };
    /// Deliveries that came again, and were known.
    pub const DEDUPLICATED: Self = Self {
        redelivered: true,
        deduplicated: true,
        ..Self::NOTHING
    };
    /// Messages that came twice, and others behind those that followed them.
    pub const TRICKED: Self = Self {
        overtaken: true,
        ..Self::DOUBLED
    };

    /// Whether all of it is among what was seen.
    pub(crate) fn is_met_by(self, seen: Self) -> bool {
        let pairs = [
            (self.doubled, seen.doubled),
            (self.redelivered, seen.redelivered),
            (self.deduplicated, seen.deduplicated),
            (self.overtaken, seen.overtaken),
            (self.applied, seen.applied),
        ];
        pairs.into_iter().all(|(must, seen)| seen || !must)
    }
}

impl Delivery {
    /// Whether nobody settled it.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.end == End::Open
    }

    /// Whether it met an event that was done.
    #[must_use]
    pub fn is_deduplicated(&self) -> bool {
        self.end == End::Acked && !self.applied
    }
}

impl Summary {
    /// Adds another run.
    pub(crate) fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.acked += other.acked;
        self.committed += other.committed;
        self.deliveries += other.deliveries;
        self.duplicates += other.duplicates;
        self.doubled += other.doubled;
        self.redelivered += other.redelivered;
        self.deduplicated += other.deduplicated;
        self.dead += other.dead;
    }
}

impl Evidence {
    /// The run in numbers.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let acked = self.requests.values();
        Summary {
            requests: count(&self.requests),
            acked: count(acked.filter(|it| it.outcome == Outcome::Ok)),
            ..self.summary_within(&(i64::MIN..i64::MAX))
        }
    }

    /// What was written down and delivered within a time, in numbers. Of deliveries, the first ever of
    /// an event is no duplicate.
    fn summary_within(&self, time: &Range<i64>) -> Summary {
        let mut summary = Summary::default();
        let mut known = BTreeSet::new();
        for delivery in &self.deliveries {
            let first = known.insert(&delivery.event_id);
            if time.contains(&delivery.at) {
                summary.deliveries += 1;
                summary.duplicates += u64::from(!first);
                summary.doubled += u64::from(!first && !delivery.redelivered);
                summary.redelivered += u64::from(delivery.redelivered);
                summary.deduplicated += u64::from(delivery.is_deduplicated());
            }
        }
        let committed = self.committed.iter().filter(|it| time.contains(&it.at));
        let committed: BTreeSet<_> = committed.map(|it| &it.event_id).collect();
        summary.dead = count(self.dead.iter().filter(|id| committed.contains(id)));
        summary.committed = count(committed);
        summary
    }
}

/// How many there are.
pub(crate) fn count(of: impl IntoIterator) -> u64 {
    of.into_iter().fold(0, |count, _| count + 1)
}

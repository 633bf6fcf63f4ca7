//! What is known of one run, each part from a source of its own.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// All that is known of one run, once its faults are healed and it has had its time to come to rest.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Evidence {
    /// What was asked for, by the identifier of the request; from the driver's history.
    pub requests: BTreeMap<String, Request>,
    /// Business rows, by the identifier of their request; from the publisher's table.
    pub entries: BTreeMap<String, Entry>,
    /// Events written down to be published; from the table of the outbox.
    pub committed: Vec<Committed>,
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
    /// How fast what had gathered went away.
    pub drain: Option<Drain>,
    /// What must have happened, or nothing was proven.
    pub must: Must,
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
    /// Whether the event was applied by it.
    pub applied: bool,
    /// What became of it.
    pub end: End,
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
}

/// A process that served.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Process {
    /// What its metrics said at the end; nothing where it ended before.
    pub told: BTreeMap<Measure, u64>,
}

/// Something that a process counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Publications that were confirmed.
    Confirmed,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Must {
    /// Events that were published more than once.
    pub doubled: bool,
    /// Deliveries that came again.
    pub redelivered: bool,
    /// Deliveries that met an event that was done.
    pub deduplicated: bool,
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
    };
    /// Events that were published more than once, which are known when they come again.
    pub const DOUBLED: Self = Self {
        doubled: true,
        redelivered: false,
        deduplicated: true,
    };
    /// Deliveries that came again.
    pub const REDELIVERED: Self = Self {
        doubled: false,
        redelivered: true,
        deduplicated: false,
    };
    /// Deliveries that came again, and were known.
    pub const DEDUPLICATED: Self = Self {
        doubled: false,
        redelivered: true,
        deduplicated: true,
    };
}

impl Delivery {
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
        let mut fresh = BTreeMap::<&str, u64>::new();
        for delivery in self.deliveries.iter().filter(|it| !it.redelivered) {
            *fresh.entry(&delivery.event_id).or_default() += 1;
        }
        let distinct: BTreeSet<_> = self.deliveries.iter().map(|it| &it.event_id).collect();
        let acked = self.requests.values();
        let deliveries = count(&self.deliveries);
        Summary {
            requests: count(&self.requests),
            acked: count(acked.filter(|it| it.outcome == Outcome::Ok)),
            committed: count(&self.committed),
            deliveries,
            duplicates: deliveries - count(distinct),
            doubled: fresh.values().map(|count| count - 1).sum(),
            redelivered: count(self.deliveries.iter().filter(|it| it.redelivered)),
            deduplicated: count(self.deliveries.iter().filter(|it| it.is_deduplicated())),
            dead: count(&self.dead),
        }
    }
}

/// How many there are.
pub(crate) fn count(of: impl IntoIterator) -> u64 {
    of.into_iter().fold(0, |count, _| count + 1)
}

//! What is done to the system, one thing at a time.

use crate::evidence::Must;

/// Where a process ends itself as by a crash; see the tables of `gantry_events::relay` and `consumer`.
const POINTS: [(&str, Must); 12] = [
    // No event, then a late one.
    ("ledger.p0", Must::NOTHING),
    ("events.p1", Must::NOTHING),
    ("events.p2", Must::NOTHING),
    ("events.p3", Must::NOTHING),
    // In the midst of a publication, which the broker may have taken by then, and at the door, when it
    // has: on the wire twice.
    ("events.p4", Must::NOTHING),
    ("door.p4", Must::DOUBLED),
    ("events.p5", Must::DOUBLED),
    ("events.p6", Must::DOUBLED),
    // Delivered again, without an effect so far, then with one.
    ("events.c1", Must::REDELIVERED),
    ("events.c2", Must::REDELIVERED),
    ("events.c3", Must::DEDUPLICATED),
    ("events.c4", Must::NOTHING),
];

/// What is done to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// Nothing: what is found then is no fault of what is done.
    Nothing,
    /// A process ends at this point.
    Crash(&'static str),
    /// A process is killed.
    ProcessKilled,
    /// One more process comes and takes its share, one of the others is killed and comes back, and the
    /// new one goes.
    Scaled,
    /// The broker is killed, and is gone for a while.
    BrokerKilled,
    /// The broker stands still.
    BrokerStopped,
    /// The database is killed, and is gone for a while; where it is a file, whoever has it open is.
    DatabaseKilled,
    /// One of two relays stands still in the midst of a publication for longer than its claims hold, and
    /// goes on.
    RelayStopped,
    /// A process is replaced by one to which messages come twice, and others come before them.
    Tricks,
}

impl Harm {
    /// All there is.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let points = POINTS.iter().map(|(point, _)| Self::Crash(point));
        let others = [
            Self::ProcessKilled,
            Self::Scaled,
            Self::BrokerKilled,
            Self::BrokerStopped,
            Self::DatabaseKilled,
            Self::RelayStopped,
            Self::Tricks,
        ];
        std::iter::once(Self::Nothing)
            .chain(points)
            .chain(others)
            .collect()
    }

    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Crash(point) => point,
            Self::ProcessKilled => "process-killed",
            Self::Scaled => "scaled",
            Self::BrokerKilled => "broker-killed",
            Self::BrokerStopped => "broker-stopped",
            Self::DatabaseKilled => "database-killed",
            Self::RelayStopped => "relay-stopped",
            Self::Tricks => "tricks",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|harm| harm.name() == name)
    }

    /// Whether it is done to one process, of which what must happen by it is told.
    pub(super) fn is_of_one(self) -> bool {
        matches!(
            self,
            Self::Crash(_) | Self::ProcessKilled | Self::RelayStopped | Self::Tricks
        )
    }

    /// What must have happened by it.
    #[must_use]
    pub fn must(self) -> Must {
        match self {
            Self::Crash(point) => {
                let known = POINTS.iter().find(|(name, _)| *name == point);
                known.map_or(Must::NOTHING, |(_, must)| *must)
            }
            Self::RelayStopped => Must::DOUBLED,
            // By the one that comes.
            Self::Scaled => Must::APPLIED,
            Self::Tricks => Must::TRICKED,
            _ => Must::NOTHING,
        }
    }
}

//! What must not be in a run: seven assertions, each found broken by the events it is about.

mod books;
mod wire;

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::evidence::{Committed, Evidence};

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// What kind of fault it is.
    pub kind: Kind,
    /// The events, requests, accounts or processes it is about.
    pub ids: Vec<String>,
    /// What was found, in words.
    pub found: String,
}

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Somebody was told that a request is done, and no event tells of it.
    NotCommitted,
    /// A request has a row and no event, or an event and no row: they did not come together.
    Torn,
    /// An event was written down, and has neither an effect nor a dead letter.
    Lost,
    /// An effect of no event that was written down.
    Phantom,
    /// Somebody was told that a request is not done, and it is.
    DoneAfterAll,
    /// A row or an event of a request that nobody made, or that says otherwise than it.
    Unasked,
    /// An event has more than one effect.
    AppliedTwice,
    /// A request has more than one event.
    CommittedTwice,
    /// Amounts do not add up.
    Money,
    /// An event that could be handled became a dead letter, or one that was applied did.
    Buried,
    /// What this run was to produce did not happen: it proves nothing.
    Vacuous,
    /// Events of one key were applied in another order than they were written down.
    Order,
    /// The numbers of the events of one key have a gap, or one number is there twice.
    Gap,
    /// An event is marked as published, and no relay was told so.
    MarkedUnconfirmed,
    /// A metric says otherwise than what happened.
    Metric,
    /// Something is still on its way.
    NotAtRest,
    /// What had gathered went away too slowly.
    Slow,
}

impl Kind {
    /// Every kind there is.
    pub const ALL: [Self; 17] = [
        Self::NotCommitted,
        Self::Torn,
        Self::Lost,
        Self::Phantom,
        Self::DoneAfterAll,
        Self::Unasked,
        Self::AppliedTwice,
        Self::CommittedTwice,
        Self::Money,
        Self::Buried,
        Self::Vacuous,
        Self::Order,
        Self::Gap,
        Self::MarkedUnconfirmed,
        Self::Metric,
        Self::NotAtRest,
        Self::Slow,
    ];

    /// Which assertion it breaks: 1 no loss, 2 no phantom, 3 no visible duplicate, 4 duplicates were
    /// produced and handled, 5 order, 6 metrics are the truth, 7 what gathered goes away.
    #[must_use]
    pub fn assertion(self) -> u8 {
        match self {
            Self::NotCommitted | Self::Torn | Self::Lost => 1,
            Self::Phantom | Self::DoneAfterAll | Self::Unasked => 2,
            Self::AppliedTwice | Self::CommittedTwice | Self::Money | Self::Buried => 3,
            Self::Vacuous => 4,
            Self::Order | Self::Gap => 5,
            Self::MarkedUnconfirmed | Self::Metric => 6,
            Self::NotAtRest | Self::Slow => 7,
        }
    }

    /// As people write it, and programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotCommitted => "not_committed",
            Self::Torn => "torn",
            Self::Lost => "lost",
            Self::Phantom => "phantom",
            Self::DoneAfterAll => "done_after_all",
            Self::Unasked => "unasked",
            Self::AppliedTwice => "applied_twice",
            Self::CommittedTwice => "committed_twice",
            Self::Money => "money",
            Self::Buried => "buried",
            Self::Vacuous => "vacuous",
            Self::Order => "order",
            Self::Gap => "gap",
            Self::MarkedUnconfirmed => "marked_unconfirmed",
            Self::Metric => "metric",
            Self::NotAtRest => "not_at_rest",
            Self::Slow => "slow",
        }
    }

    fn of<S: Into<String>>(
        self,
        ids: impl IntoIterator<Item = S>,
        found: impl Into<String>,
    ) -> Fault {
        Fault {
            kind: self,
            ids: ids.into_iter().map(Into::into).collect(),
            found: found.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, assertion) = (self.kind.name(), self.kind.assertion());
        let ids = self.ids.join(" ");
        write!(f, "{kind} (assertion {assertion}) {ids}: {}", self.found)
    }
}

/// Evidence with what is looked for in it by name.
struct Case<'a> {
    all: &'a Evidence,
    /// By event.
    committed: BTreeMap<&'a str, &'a Committed>,
    /// The events of each request.
    events: BTreeMap<&'a str, Vec<&'a str>>,
    faults: Vec<Fault>,
}

impl Evidence {
    /// Whatever must not be; nothing where all is as it should be.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let mut events = BTreeMap::<_, Vec<_>>::new();
        for event in &self.committed {
            let of = events.entry(event.request_id.as_str()).or_default();
            of.push(event.event_id.as_str());
        }
        let committed = self.committed.iter();
        let mut case = Case {
            all: self,
            committed: committed.map(|it| (it.event_id.as_str(), it)).collect(),
            events,
            faults: Vec::new(),
        };
        case.books();
        case.wire();
        case.faults
    }
}

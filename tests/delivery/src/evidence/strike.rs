//! What was done to the system, one thing after the other, and what can be told of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use serde::{Deserialize, Serialize};

use super::{Delivery, Drain, End, Evidence, Must, Publication, Summary};
use crate::judge::Fault;

/// Something that was done to the system.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Strike {
    /// What it is called.
    pub name: String,
    /// The start of a process that it was done to, where it was done to one: what must have happened,
    /// happened to what that had in hand.
    pub process: Option<String>,
    /// Its time, in microseconds of the clock of the system, until the next began.
    pub time: Range<i64>,
    /// What must have happened by it, or it proves nothing.
    pub must: Must,
    /// What it was to do and did not.
    pub missed: Option<String>,
    /// How fast what had gathered went away.
    pub drain: Option<Drain>,
}

impl Strike {
    /// What has happened by it that must.
    pub(crate) fn seen(&self, publications: &[Publication], deliveries: &[Delivery]) -> Must {
        let mine = |process: &str| self.process.as_deref().is_none_or(|it| it == process);
        let published = publications.iter().filter(|it| mine(&it.process));
        let published = published.map(|it| it.event_id.as_str());
        let delivered = deliveries.iter().filter(|it| mine(&it.process));
        let handed = delivered.clone().map(|it| it.event_id.as_str());
        let known: BTreeSet<_> = published.chain(handed).collect();
        let left = delivered.filter(|it| self.process.is_none() || it.is_left());
        let left: BTreeSet<_> = left.map(|it| it.event_id.as_str()).collect();
        let mut seen = Must::NOTHING;
        let mut before = BTreeSet::new();
        for delivery in deliveries {
            let id = delivery.event_id.as_str();
            // Only another message of it is both.
            let again = !before.insert(id) && !delivery.redelivered;
            if !self.time.contains(&delivery.at) {
                continue;
            }
            seen.doubled |= again && known.contains(id);
            let mine = self.process.is_none() || self.process.as_ref() == Some(&delivery.process);
            seen.overtaken |= delivery.overtaken && mine;
            seen.applied |= delivery.applied && mine;
            seen.redelivered |= delivery.redelivered && left.contains(id);
            // One that nobody can handle is given up twice.
            let met = delivery.is_deduplicated() || (again && delivery.end == End::Rejected);
            seen.deduplicated |= met && known.contains(id);
        }
        seen
    }
}

impl Evidence {
    /// What was counted in the time of a strike.
    #[must_use]
    pub fn summary_of(&self, strike: &Strike) -> Summary {
        self.summary_within(&strike.time)
    }

    /// In the time of which strike the events or requests of a fault were written down, where it is
    /// about such, or the strike that it names.
    #[must_use]
    pub fn strike_of(&self, fault: &Fault) -> Option<&Strike> {
        let mut strikes = self.strikes.iter();
        if let Some(named) = strikes.find(|it| fault.ids.contains(&it.name)) {
            return Some(named);
        }
        let times = self.committed.iter().flat_map(|it| {
            let ids = [
                (it.event_id.as_str(), it.at),
                (it.request_id.as_str(), it.at),
            ];
            ids.into_iter()
        });
        let times: BTreeMap<_, _> = times.collect();
        let first = fault
            .ids
            .iter()
            .filter_map(|id| times.get(id.as_str()))
            .min()?;
        self.strikes.iter().find(|it| it.time.contains(first))
    }
}

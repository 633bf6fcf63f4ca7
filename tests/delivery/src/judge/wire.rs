//! Publications, deliveries and what is counted of them: produced, at rest, and told as they were.

use std::collections::BTreeSet;

use super::{Case, Kind};
use crate::evidence::{Must, State};

impl Case<'_> {
    pub(super) fn wire(&mut self) {
        self.produced();
        self.marks();
        self.metrics();
        self.rest();
        self.drained();
    }

    /// A run that was to produce duplicates and did not proves nothing of how they are handled; nor does
    /// what was done to the system and had not come to what it must.
    fn produced(&mut self) {
        let summary = self.all.summary();
        let seen = Must {
            doubled: summary.doubled > 0,
            redelivered: summary.redelivered > 0,
            deduplicated: summary.deduplicated > 0,
            overtaken: self.all.deliveries.iter().any(|it| it.overtaken),
            applied: self.all.deliveries.iter().any(|it| it.applied),
        };
        self.seen("run", self.all.must, seen);
        for strike in &self.all.strikes {
            if let Some(missed) = &strike.missed {
                self.faults.push(Kind::Vacuous.of([&strike.name], missed));
                continue;
            }
            let seen = strike.seen(&self.all.publications, &self.all.deliveries);
            self.seen(&strike.name, strike.must, seen);
        }
    }

    fn seen(&mut self, name: &str, must: Must, seen: Must) {
        let wanted = [
            (must.doubled, seen.doubled, "no event was published twice"),
            (must.redelivered, seen.redelivered, "nothing came again"),
            (
                must.deduplicated,
                seen.deduplicated,
                "no delivery met an event that was done",
            ),
            (
                must.overtaken,
                seen.overtaken,
                "no message came behind one that followed it",
            ),
            (must.applied, seen.applied, "nothing was applied"),
        ];
        for (wanted, seen, found) in wanted {
            if wanted && !seen {
                self.faults.push(Kind::Vacuous.of([name], found));
            }
        }
    }

    /// What is marked as published was confirmed.
    fn marks(&mut self) {
        let confirmed = self.all.publications.iter().filter(|it| it.confirmed);
        let confirmed: BTreeSet<_> = confirmed.map(|it| it.event_id.as_str()).collect();
        for event in &self.all.committed {
            let id = event.event_id.as_str();
            if event.state == State::Delivered && !confirmed.contains(id) {
                let found = "it is marked as published, and no broker confirmed it";
                self.faults.push(Kind::MarkedUnconfirmed.of([id], found));
            }
        }
    }

    /// What each process counted, against its log. A process that tells anything tells all that it counted.
    fn metrics(&mut self) {
        let processes = self.all.processes.iter();
        for (name, process) in processes.filter(|(_, it)| !it.told.is_empty()) {
            for (measure, range) in self.all.to_tell(name, process) {
                let (least, most) = range.clone().into_inner();
                let told = match process.told.get(&measure) {
                    Some(told) if range.contains(told) => continue,
                    None if least == 0 => continue,
                    Some(told) => format!("told as {told}"),
                    None => "not told".to_owned(),
                };
                let more = match most - least {
                    0 => String::new(),
                    more => format!(", or up to {more} more"),
                };
                let found = format!("{measure:?} is {told}, and is {least}{more}");
                self.faults.push(Kind::Metric.of([name], found));
            }
        }
    }

    /// Nothing is on its way any more.
    fn rest(&mut self) {
        let left = self.all.left;
        let kinds = [
            (left.pending, "events are yet to be published"),
            (left.ready, "messages wait in queues"),
            (left.unsettled, "messages are handed out and not settled"),
            (left.delayed, "messages are to come again later"),
        ];
        let pending = self.all.committed.iter();
        let pending = pending.filter(|it| it.state == State::Pending);
        let pending: Vec<_> = pending.map(|it| it.event_id.as_str()).collect();
        for (count, what) in kinds {
            if count > 0 {
                let found = format!("{count} {what}");
                self.faults
                    .push(Kind::NotAtRest.of(pending.iter().copied(), found));
            }
        }
        if left.moving {
            let found = "something still changed when nobody waited any longer";
            self.faults.push(Kind::NotAtRest.of(["run"], found));
        }
        let given_up = self.all.committed.iter();
        for event in given_up.filter(|it| it.state == State::Unroutable) {
            let found = "it was given up, and everything published here is wanted";
            self.faults
                .push(Kind::NotAtRest.of([&event.event_id], found));
        }
    }

    /// What had gathered went away in time.
    fn drained(&mut self) {
        for strike in &self.all.strikes {
            let Some(drain) = strike.drain else { continue };
            if drain.backlog == 0 {
                let found = "nothing had gathered meanwhile";
                self.faults.push(Kind::Vacuous.of([&strike.name], found));
            }
            let in_time = drain.millis.is_some_and(|it| it <= drain.millis_max);
            if in_time {
                continue;
            }
            let took = drain.millis.map_or_else(
                || "they were not gone in the end".to_owned(),
                |millis| format!("it took {millis} ms until none was older than a second"),
            );
            let (backlog, max) = (drain.backlog, drain.millis_max);
            let found = format!("{backlog} events had gathered, {max} ms were allowed, and {took}");
            self.faults.push(Kind::Slow.of([&strike.name], found));
        }
    }
}

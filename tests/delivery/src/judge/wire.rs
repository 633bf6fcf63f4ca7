//! Publications, deliveries and what is counted of them: produced, at rest, and told as they were.

use std::collections::{BTreeMap, BTreeSet};

use super::{Case, Kind};
use crate::evidence::{End, Measure, State};

impl Case<'_> {
    pub(super) fn wire(&mut self) {
        self.produced();
        self.marks();
        self.metrics();
        self.rest();
        self.drained();
    }

    /// A run that was to produce duplicates and did not proves nothing of how they are handled.
    fn produced(&mut self) {
        let (must, summary) = (self.all.must, self.all.summary());
        let wanted = [
            (
                must.doubled,
                summary.doubled,
                "no event was published twice",
            ),
            (must.redelivered, summary.redelivered, "nothing came again"),
            (
                must.deduplicated,
                summary.deduplicated,
                "no delivery met an event that was done",
            ),
        ];
        for (wanted, count, found) in wanted {
            if wanted && count == 0 {
                self.faults.push(Kind::Vacuous.of(["run"], found));
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

    /// What each process counted, against its log.
    fn metrics(&mut self) {
        // Of each, what is sure, and what may be counted beside it.
        let mut counts = BTreeMap::<(&str, Measure), [u64; 2]>::new();
        let mut add = |process, measure, surely: bool| {
            let count: &mut [u64; 2] = counts.entry((process, measure)).or_default();
            count[usize::from(!surely)] += 1;
        };
        for publication in self.all.publications.iter().filter(|it| it.confirmed) {
            add(publication.process.as_str(), Measure::Confirmed, true);
        }
        for delivery in &self.all.deliveries {
            let process = delivery.process.as_str();
            // One that nobody began with before it went back is seen by some and not by others.
            let begun = delivery.end != End::Open || delivery.applied;
            add(process, Measure::Delivered, begun);
            if delivery.redelivered {
                add(process, Measure::Redelivered, begun);
            }
            if delivery.is_deduplicated() {
                add(process, Measure::Deduplicated, true);
            }
            match delivery.end {
                End::Acked => add(process, Measure::Acked, true),
                End::PutOff => add(process, Measure::PutOff, true),
                End::Rejected => add(process, Measure::Dead, true),
                End::Requeued | End::Open => {}
            }
        }
        for (name, process) in &self.all.processes {
            for (measure, told) in &process.told {
                let counted = counts.get(&(name.as_str(), *measure));
                let [is, more] = if *measure == Measure::Backlog {
                    [self.all.left.pending, 0]
                } else {
                    counted.copied().unwrap_or_default()
                };
                if !(is..=is + more).contains(told) {
                    let more = match more {
                        0 => String::new(),
                        more => format!(", or up to {more} more"),
                    };
                    let found = format!("{measure:?} is told as {told}, and is {is}{more}");
                    self.faults.push(Kind::Metric.of([name], found));
                }
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
        let given_up = self.all.committed.iter();
        for event in given_up.filter(|it| it.state == State::Unroutable) {
            let found = "it was given up, and everything published here is wanted";
            self.faults
                .push(Kind::NotAtRest.of([&event.event_id], found));
        }
    }

    /// What had gathered went away in time.
    fn drained(&mut self) {
        let Some(drain) = self.all.drain else { return };
        if drain
            .millis
            .is_some_and(|millis| millis <= drain.millis_max)
        {
            return;
        }
        let took = drain.millis.map_or_else(
            || "they were not gone in the end".to_owned(),
            |millis| format!("it took {millis} ms until none was older than a second"),
        );
        let (backlog, max) = (drain.backlog, drain.millis_max);
        let found = format!("{backlog} events had gathered, {max} ms were allowed, and {took}");
        self.faults.push(Kind::Slow.of(["run"], found));
    }
}

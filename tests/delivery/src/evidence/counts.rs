//! What processes must have counted, by what passed the door to the broker.

use std::{collections::BTreeMap, ops::RangeInclusive};

use super::{End, Evidence, Measure, Process, State, count};

/// Of a process: what is sure, and what may be counted beside it.
type Counts = BTreeMap<Measure, [u64; 2]>;

impl Evidence {
    /// What `process` must tell of each measure: exactly, where nothing is open.
    pub(crate) fn to_tell(
        &self,
        name: &str,
        process: &Process,
    ) -> BTreeMap<Measure, RangeInclusive<u64>> {
        let counts = self.counts(name);
        let range = |measure| {
            let [sure, more] = counts.get(&measure).copied().unwrap_or_default();
            let most = sure + more;
            let least = process.least.as_ref().map_or(sure, |it| {
                let least = it.get(&measure).copied();
                least.unwrap_or_default().min(most)
            });
            (measure, least..=most)
        };
        Measure::ALL.into_iter().map(range).collect()
    }

    /// What is sure of what `process` has counted.
    pub(crate) fn counted(&self, name: &str) -> BTreeMap<Measure, u64> {
        let counts = self.counts(name).into_iter();
        counts.map(|(measure, [sure, _])| (measure, sure)).collect()
    }

    fn counts(&self, name: &str) -> Counts {
        let mut counts = Counts::new();
        let mut add = |measure, surely: bool, many: u64| {
            counts.entry(measure).or_default()[usize::from(!surely)] += many;
        };
        add(
            Measure::Added,
            true,
            self.added.get(name).copied().unwrap_or_default(),
        );
        let publications = self.publications.iter();
        let confirmed = publications.filter(|it| it.process == name && it.confirmed);
        add(Measure::Confirmed, true, count(confirmed));
        // By whichever relay.
        let dropped = self
            .committed
            .iter()
            .filter(|it| it.state == State::Unroutable);
        add(Measure::Dropped, false, count(dropped));
        for delivery in self.deliveries.iter().filter(|it| it.process == name) {
            // One that nobody began with before it went back is seen by some and not by others.
            let begun = delivery.end != End::Open || delivery.applied;
            add(Measure::Delivered, begun, 1);
            if delivery.redelivered {
                add(Measure::Redelivered, begun, 1);
            }
            if delivery.is_deduplicated() {
                add(Measure::Deduplicated, true, 1);
            }
            match delivery.end {
                End::Acked => add(Measure::Acked, true, 1),
                End::PutOff => add(Measure::PutOff, true, 1),
                End::Rejected => add(Measure::Dead, true, 1),
                End::Requeued | End::Open => {}
            }
        }
        add(Measure::Backlog, true, self.left.pending);
        counts
    }
}

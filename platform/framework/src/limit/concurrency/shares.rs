//! The calls of one method in flight, by criticality, each with a share that nobody takes from it.
//!
//! A call is let in where there is room below the limit, whatever it is, or within the share of its own
//! criticality. So what is free may be borrowed, and whoever has a share gets it back at once and
//! need not wait for borrowers: until they end, there are more calls than the limit says.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::Shares;
use crate::caller::Criticality;

impl Shares {
    /// How many of `limit` calls are for those of `criticality`.
    fn of(&self, criticality: Criticality, limit: usize) -> usize {
        let percent = match criticality {
            Criticality::CriticalPlus => self.critical_plus,
            Criticality::Critical => self.critical,
            Criticality::SheddablePlus => self.sheddable_plus,
            Criticality::Sheddable => self.sheddable,
        };
        limit * percent / 100
    }
}

/// Counts of calls. Sequentially consistent, as is who waits: either whoever frees a place sees
/// that somebody waits, or who begins to wait sees the place.
#[derive(Debug, Default)]
pub(super) struct Counts {
    all: AtomicUsize,
    each: [AtomicUsize; Criticality::ALL.len()],
}

impl Counts {
    /// Counts a call, however many there are, and in nobody's share; says how many there are with it.
    pub(super) fn add(&self) -> usize {
        self.all.fetch_add(1, SeqCst) + 1
    }

    /// Counts a call if it may be let in.
    pub(super) fn take(&self, criticality: Criticality, limit: usize, shares: &Shares) -> bool {
        let one_more = |calls| (calls < limit).then_some(calls + 1);
        if self.all.fetch_update(SeqCst, SeqCst, one_more).is_ok() {
            self.each[criticality as usize].fetch_add(1, SeqCst);
            return true;
        }
        self.take_own(criticality, limit, shares)
    }

    /// Counts a call if it is within the share of its criticality.
    pub(super) fn take_own(&self, criticality: Criticality, limit: usize, shares: &Shares) -> bool {
        let own = shares.of(criticality, limit);
        let one_more = |calls| (calls < own).then_some(calls + 1);
        let each = &self.each[criticality as usize];
        let taken = each.fetch_update(SeqCst, SeqCst, one_more).is_ok();
        if taken {
            self.all.fetch_add(1, SeqCst);
        }
        taken
    }

    /// Counts a call no longer, that was counted in the share of `criticality` or in nobody's.
    pub(super) fn free(&self, criticality: Option<Criticality>) {
        if let Some(criticality) = criticality {
            self.each[criticality as usize].fetch_sub(1, SeqCst);
        }
        self.all.fetch_sub(1, SeqCst);
    }

    /// All calls counted.
    pub(super) fn all(&self) -> usize {
        self.all.load(SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use Criticality::{Critical, Sheddable};

    use super::*;

    const SHARES: Shares = Shares {
        critical_plus: 0,
        critical: 70,
        sheddable_plus: 0,
        sheddable: 30,
    };

    fn taken(counts: &Counts, criticality: Criticality, tries: usize) -> usize {
        (0..tries)
            .filter(|_| counts.take(criticality, 10, &SHARES))
            .count()
    }

    /// Goal: shares of 3 and 7 of 10: either may have 10 where the other wants none, and both have
    /// their own where both want all.
    /// Method: one takes all, then the other comes; then both in turn.
    #[test]
    fn a_share_is_there_whoever_borrowed_it() {
        let counts = Counts::default();
        assert_eq!(10, taken(&counts, Sheddable, 99), "alone");
        assert_eq!(7, taken(&counts, Critical, 99), "although all are taken");
        assert_eq!(17, counts.all());

        // Borrowers get nothing back before there is room for all.
        for _ in 0..7 {
            counts.free(Some(Sheddable));
        }
        assert_eq!(
            (0, 0),
            (taken(&counts, Sheddable, 9), taken(&counts, Critical, 9))
        );

        let counts = Counts::default();
        let both = (0..99).map(|_| (taken(&counts, Critical, 1), taken(&counts, Sheddable, 1)));
        let both = both.fold((0, 0), |all, more| (all.0 + more.0, all.1 + more.1));
        assert_eq!(
            (7, 5),
            both,
            "in turn until there are 10, then what is one's own"
        );
        counts.free(Some(Sheddable));
        counts.free(Some(Sheddable));
        assert_eq!(
            (0, 0),
            (taken(&counts, Sheddable, 9), taken(&counts, Critical, 9))
        );
        assert_eq!(10, counts.all(), "3 and 7");
    }
}

//! When leases end.
//!
//! Only time is kept here; what a lease is and which keys go with it is the engine's. A lease must
//! not end because this process did not run: while it was stopped, nobody could keep a lease
//! alive. So the clock watches its own hand, and when it finds a gap it moves every end by it.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use tokio::time::Instant;

/// How often the clock is looked at, at least.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// Time between two looks from which on this process was stopped, not merely late.
const GAP: Duration = Duration::from_secs(1);

/// Ends of leases.
#[derive(Debug)]
pub(crate) struct Clock {
    ends: HashMap<i64, End>,
    order: BTreeSet<(Instant, i64)>,
    looked: Instant,
}

#[derive(Debug, Clone, Copy)]
struct End {
    at: Instant,
    ttl: Duration,
}

impl Clock {
    /// No leases yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            ends: HashMap::new(),
            order: BTreeSet::new(),
            looked: now,
        }
    }

    /// Begins a lease, or begins it again, with its whole time to live in seconds.
    pub(crate) fn start(&mut self, id: i64, ttl: i64, now: Instant) {
        let ttl = Duration::from_secs(ttl.max(0).cast_unsigned());
        self.stop(id);
        let end = End { at: now + ttl, ttl };
        self.ends.insert(id, end);
        self.order.insert((end.at, id));
    }

    /// Gives a lease its whole time again; answers with it in seconds, unless there is no such
    /// lease.
    pub(crate) fn renew(&mut self, id: i64, now: Instant) -> Option<i64> {
        let ttl = self.ends.get(&id)?.ttl.as_secs().cast_signed();
        self.start(id, ttl, now);
        Some(ttl)
    }

    /// Forgets a lease.
    pub(crate) fn stop(&mut self, id: i64) {
        if let Some(end) = self.ends.remove(&id) {
            self.order.remove(&(end.at, id));
        }
    }

    /// How long a lease has left.
    pub(crate) fn remaining(&self, id: i64, now: Instant) -> Option<Duration> {
        Some(self.ends.get(&id)?.at.saturating_duration_since(now))
    }

    /// Every lease, the first to end first.
    pub(crate) fn ids(&self) -> impl Iterator<Item = i64> {
        self.order.iter().map(|(_, id)| *id)
    }

    /// Those that have ended.
    pub(crate) fn ended(&self, now: Instant) -> Vec<i64> {
        let ended = self.order.iter().take_while(|(at, _)| *at <= now);
        ended.map(|(_, id)| *id).collect()
    }

    /// When to look again.
    pub(crate) fn next_look(&self) -> Instant {
        let tick = self.looked + TICK;
        self.order.first().map_or(tick, |(at, _)| tick.min(*at))
    }

    /// Looks at the time. After a gap every end moves by it; answers with the gap.
    pub(crate) fn look(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.looked);
        self.looked = now;
        if passed < GAP {
            return None;
        }
        self.order.clear();
        for (id, end) in &mut self.ends {
            end.at += passed;
            self.order.insert((end.at, *id));
        }
        Some(passed)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time;

    use super::*;

    /// Goal: a lease ends after its time, and being kept alive begins that anew.
    /// Method: two leases, one renewed, on the paused clock.
    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_unless_it_is_renewed() {
        let mut clock = Clock::new(Instant::now());
        clock.start(1, 3, Instant::now());
        clock.start(2, 3, Instant::now());

        time::advance(Duration::from_secs(2)).await;
        assert_eq!(Some(3), clock.renew(2, Instant::now()));
        assert_eq!(None, clock.renew(3, Instant::now()));
        time::advance(Duration::from_secs(1)).await;

        assert_eq!(vec![1], clock.ended(Instant::now()));
        clock.stop(1);
        assert_eq!(vec![2], clock.ids().collect::<Vec<_>>());
        assert_eq!(
            Some(Duration::from_secs(2)),
            clock.remaining(2, Instant::now())
        );
    }

    /// Goal: a pause of the process ends no lease.
    /// Method: half a minute between two looks, far more than the lease has.
    #[tokio::test(start_paused = true)]
    async fn a_gap_moves_every_end() {
        let mut clock = Clock::new(Instant::now());
        clock.start(1, 3, Instant::now());
        clock.start(2, 10, Instant::now());

        time::advance(Duration::from_secs(30)).await;
        let gap = clock.look(Instant::now());

        assert_eq!(Some(Duration::from_secs(30)), gap);
        assert!(clock.ended(Instant::now()).is_empty());
        time::advance(Duration::from_secs(3)).await;
        assert_eq!(vec![1], clock.ended(Instant::now()));
    }

    /// Goal: the ticks of a process that runs are no gap.
    /// Method: a lease of two seconds, looked at as often as the clock asks.
    #[tokio::test(start_paused = true)]
    async fn ticks_are_no_gap() {
        let mut clock = Clock::new(Instant::now());
        let begun = Instant::now();
        clock.start(1, 2, begun);

        while clock.ended(Instant::now()).is_empty() {
            time::sleep_until(clock.next_look()).await;
            assert_eq!(None, clock.look(Instant::now()));
        }

        assert_eq!(Duration::from_secs(2), begun.elapsed());
    }
}

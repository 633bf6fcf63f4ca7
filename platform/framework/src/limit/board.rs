//! Where the limits of a process are seen, with how full they are.
//!
//! Each limit is put on the board when it is made, and is off it when it is gone: the board owns none.
//! Nothing is written there by calls; whoever looks asks each limit for what it holds just then.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::time::Instant;

/// What a limit bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Calls in flight, of the process or of a method.
    Concurrency,
    /// The same, by a limit that is found by measuring.
    Adaptive,
    /// Calls that wait for a place.
    Queue,
    /// How late tasks begin to run, in seconds.
    Lag,
    /// Share of the processors that is used.
    Cpu,
    /// Share of the memory that is used.
    Memory,
    /// Share of the calls of a criticality that is refused by an overloaded process.
    Shed,
    /// Calls to a target in flight.
    Bulkhead,
    /// Calls to a target against twice those that did not fail.
    Throttle,
    /// Retries at a target.
    RetryBudget,
    /// What failures at a target have taken of its tokens.
    RetryTokens,
    /// How often calls may come.
    Rate,
}

/// One limit, and how full it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Fill {
    /// What it bounds.
    pub kind: Kind,
    /// The client that it is for; empty where it is for what this process serves.
    pub client: String,
    /// The method, `package.Service/Method`, or the pattern that it is for; empty for all.
    pub method: String,
    /// What else tells it from others of its kind.
    pub key: String,
    /// Whether it is held to; else it only counts what it would refuse.
    pub enforced: bool,
    /// How much of it is used now.
    pub used: f64,
    /// How much may be; none where nothing bounds it.
    pub max: Option<f64>,
    /// Calls it refused since the process began.
    pub refused: u64,
    /// Calls it would have refused, if it were held to.
    pub would_refuse: u64,
}

impl Fill {
    /// A limit of `kind` that is for everything, is held to, bounds nothing and has refused nothing.
    #[must_use]
    pub fn new(kind: Kind, used: f64) -> Self {
        Self {
            kind,
            client: String::new(),
            method: String::new(),
            key: String::new(),
            enforced: true,
            used,
            max: None,
            refused: 0,
            would_refuse: 0,
        }
    }
}

/// A count of things as a number that may be a share as well.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "so many calls nobody makes")]
pub fn number(count: usize) -> f64 {
    count as f64
}

/// A limit that can be looked at.
pub trait Filled: Send + Sync {
    /// What it holds at `now`; several entries where it is several limits.
    fn fills(&self, now: Instant) -> Vec<Fill>;
}

/// How often something was refused.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Counts one more.
    pub fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// How many there were.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The limits of one process; clones are the same board.
#[derive(Clone, Default)]
pub struct Board {
    limits: Arc<Mutex<Vec<Weak<dyn Filled>>>>,
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").finish_non_exhaustive()
    }
}

impl Board {
    /// Shows `limit` for as long as somebody else holds it.
    pub fn show<T: Filled + 'static>(&self, limit: &Arc<T>) {
        let limit: Weak<T> = Arc::downgrade(limit);
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that are gone make room, so that this does not grow with what comes and goes.
        limits.retain(|known| known.strong_count() > 0);
        limits.push(limit);
    }

    /// Every limit as it is at `now`, in the order they were made.
    #[must_use]
    pub fn fills(&self, now: Instant) -> Vec<Fill> {
        let limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let held: Vec<_> = limits.iter().filter_map(Weak::upgrade).collect();
        // Whatever a limit locks to answer, it is not locked together with the board.
        drop(limits);
        held.iter().flat_map(|limit| limit.fills(now)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(f64);

    impl Filled for Fixed {
        fn fills(&self, _now: Instant) -> Vec<Fill> {
            vec![Fill::new(Kind::Concurrency, self.0)]
        }
    }

    /// Goal: a limit is seen for as long as it is, and what is gone takes no room.
    /// Method: two, of which one goes; a thousand that come and go.
    #[tokio::test(start_paused = true)]
    async fn a_limit_is_seen_for_as_long_as_it_is() {
        let board = Board::default();
        let used = || {
            let fills = board.fills(Instant::now());
            fills.iter().map(|fill| fill.used).collect::<Vec<_>>()
        };
        let (first, second) = (Arc::new(Fixed(1.0)), Arc::new(Fixed(2.0)));
        board.show(&first);
        board.show(&second);
        assert_eq!(vec![1.0, 2.0], used());
        drop(first);
        assert_eq!(vec![2.0], used());
        for _ in 0..1_000 {
            board.show(&Arc::new(Fixed(3.0)));
        }
        assert_eq!(vec![2.0], used());
        assert!(board.limits.lock().unwrap().len() <= 2);
    }
}

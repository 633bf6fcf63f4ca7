//! The named breakers of a process, for whoever operates it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::time::Instant;

use super::{Breaker, Shared, Snapshot, hand::Order};

/// Knows the breakers of a process by their names, and owns none; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Register {
    known: Arc<Mutex<Vec<Weak<Shared>>>>,
}

/// There is no breaker of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this process has no such breaker")]
pub struct NoBreaker;

impl Register {
    /// Knows `breaker` for as long as somebody else holds it.
    ///
    /// # Panics
    ///
    /// If there is one of its name: nobody could tell them apart.
    pub fn add(&self, breaker: &Breaker) {
        let mut known = self.lock();
        known.retain(|known| known.strong_count() > 0);
        let taken = known.iter().filter_map(Weak::upgrade);
        let mut taken = taken.filter(|known| known.name == breaker.shared.name);
        assert!(taken.next().is_none(), "a breaker of this name exists");
        known.push(Arc::downgrade(&breaker.shared));
    }

    /// Every breaker by its name, in the order they were made.
    #[must_use]
    pub fn snapshots(&self) -> Vec<(String, Snapshot)> {
        let each = self.breakers().into_iter();
        each.map(|breaker| (breaker.name().to_owned(), breaker.snapshot()))
            .collect()
    }

    /// Has the breaker `name` do as `order` says, until `until` or for ever.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn set(&self, name: &str, order: Order, until: Option<Instant>) -> Result<(), NoBreaker> {
        let mut breakers = self.breakers().into_iter();
        let breaker = breakers.find(|breaker| breaker.name() == name);
        breaker.ok_or(NoBreaker)?.obey(order, until);
        Ok(())
    }

    fn breakers(&self) -> Vec<Breaker> {
        let known = self.lock();
        let known = known.iter().filter_map(Weak::upgrade);
        known.map(|shared| Breaker { shared }).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Shared>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

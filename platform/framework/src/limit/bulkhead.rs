//! How many calls to one target may be in flight at once.
//!
//! A target that answers slowly otherwise takes what all others need: memory, streams, and the
//! handlers that wait. What does not fit is refused at once, and never tried again here: a retry
//! would only ask for the same place (gRFC A32).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tonic::Status;

use super::board::{Count, Fill, Kind, number};
use crate::{
    config,
    status::{self, Refusal},
};

/// When a call that found no place is worth another try.
const PAUSE: Duration = Duration::from_secs(1);

config::section! {
    /// How many calls may be in flight.
    pub struct Config {
        /// Calls to the target that may be in flight at once, open streams and those that wait to
        /// be tried again included. One more is refused with UNAVAILABLE. Calls of others that are
        /// handed on, as by a gateway, are not counted.
        pub calls_max: usize = 1_024, in 1..=1_000_000, live;
    }
}

/// Counts calls in flight; clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Bulkhead {
    in_flight: Arc<AtomicUsize>,
    refused: Arc<Count>,
}

/// The place of one call, until dropped: at the end of its stream.
#[derive(Debug)]
pub struct Permit {
    in_flight: Arc<AtomicUsize>,
}

/// There is no place for one more call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{calls_max} calls are in flight already")]
pub struct Full {
    /// How many may be.
    pub calls_max: usize,
}

impl Full {
    /// What the caller sees.
    #[must_use]
    pub fn status(self, target: &str) -> Status {
        let text = format!("{target}: {self}");
        let status = Refusal::Bulkhead.status_with_pause(text, PAUSE);
        status::with_public(status, "too many calls are in flight already")
    }
}

impl Bulkhead {
    /// A place, where fewer than `calls_max` are taken.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn enter(&self, calls_max: usize) -> Result<Permit, Full> {
        // Made before it is known whether it holds: dropped, it gives back what it took.
        let permit = Permit {
            in_flight: Arc::clone(&self.in_flight),
        };
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        if before < calls_max {
            Ok(permit)
        } else {
            self.refused.add();
            Err(Full { calls_max })
        }
    }

    /// What it holds, where it may be `calls_max`.
    #[must_use]
    pub fn fill(&self, calls_max: usize) -> Fill {
        Fill {
            max: Some(number(calls_max)),
            refused: self.refused.get(),
            ..Fill::new(Kind::Bulkhead, number(self.in_flight()))
        }
    }

    /// How many are in flight now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: no more than the bound are let in, and a refusal takes no place.
    /// Method: fill it, ask ten times more, free one, ask again.
    #[test]
    fn no_more_are_let_in_than_fit() {
        let bulkhead = Bulkhead::default();
        let mut held: Vec<_> = (0..3).map(|_| bulkhead.enter(3).unwrap()).collect();
        for _ in 0..10 {
            assert_eq!(Full { calls_max: 3 }, bulkhead.enter(3).unwrap_err());
        }
        held.pop();
        assert_eq!(2, bulkhead.in_flight());
        let again = bulkhead.enter(3).unwrap();
        bulkhead.enter(3).unwrap_err();
        // A bound that was lowered meanwhile holds for those who come.
        drop(again);
        bulkhead.enter(1).unwrap_err();
        drop(held);
        assert_eq!(0, bulkhead.in_flight());
    }
}

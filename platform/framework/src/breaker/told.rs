//! What was last told of a breaker, so that each change is told once.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::{
    State,
    core::{Cause, Change},
};

/// What was last told of one breaker.
#[derive(Debug)]
pub struct Told(Mutex<Last>);

/// That, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    /// What it is.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// How often it opened that was closed.
    pub trips: u64,
}

impl Told {
    /// Of a breaker that was made at `now`.
    #[must_use]
    pub fn new(state: State, now: Instant) -> Self {
        Self(Mutex::new(Last {
            state,
            since: now,
            trips: 0,
        }))
    }

    /// What was told last.
    #[must_use]
    pub fn last(&self) -> Last {
        *self.lock()
    }

    /// Takes note of `change`, which a call made, or, where there is none, of what is different from
    /// what was told, for `cause`. Answers with what is to be told, if anything. `read` says what the
    /// breaker is, and `show` shows it where that is new.
    pub fn tell(
        &self,
        change: Option<Change>,
        cause: Cause,
        now: Instant,
        read: impl FnOnce() -> State,
        show: impl FnOnce(State),
    ) -> Option<Change> {
        let mut last = self.lock();
        // Read under the lock: of two that tell at once, the later tells what it is.
        let state = read();
        let change = change.or((last.state != state).then_some(Change {
            from: last.state,
            to: state,
            cause,
            time: None,
        }));
        if state != last.state {
            (last.state, last.since) = (state, now);
            show(state);
        }
        let change = change.filter(|change| change.from != change.to)?;
        if (change.from, change.to) == (State::Closed, State::Open) {
            last.trips += 1;
        }
        Some(change)
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! What a round is at, told to whoever waits for it.

use std::sync::{Arc, Mutex, PoisonError};

/// What a round is at.
#[derive(Debug, Clone, Default)]
pub(super) struct Doing(Arc<Mutex<String>>);

impl Doing {
    /// Says what it is at from now on.
    pub(super) fn say(&self, what: &str) {
        what.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What it is at.
    pub(super) fn what(&self) -> String {
        let what = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        what.clone()
    }
}

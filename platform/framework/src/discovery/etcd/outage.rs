//! Whether something in the registry can be read: told once where it cannot, and once where it can
//! again.

use std::sync::Arc;

use super::Error;
use crate::{
    journal::{Journal, Kind},
    status::chain,
};

/// What is known of one thing that is read; there is no outage to begin with.
#[derive(Debug)]
pub(super) struct Outage {
    name: Arc<str>,
    journal: Journal,
    error: Option<Arc<str>>,
}

impl Outage {
    /// `name` is what is read, in the log and the journal.
    pub(super) fn none(name: &str, journal: Journal) -> Self {
        Self {
            name: name.into(),
            journal,
            error: None,
        }
    }

    /// Notes that what was read last may be out of date. Says whether that, or why, is new.
    pub(super) fn fail(&mut self, error: &Error) -> bool {
        let error: Arc<str> = chain(error).into();
        if self.error.as_ref() == Some(&error) {
            return false;
        }
        if self.error.is_none() {
            let name = &*self.name;
            tracing::warn!(
                name,
                error = &*error,
                "the registry cannot be read; what was read last stays"
            );
            self.journal.record(Kind::Registry, name, &*error);
        }
        self.error = Some(error);
        true
    }

    /// Notes that it was read.
    pub(super) fn end(&mut self) {
        if let Some(error) = self.error.take() {
            let name = &*self.name;
            tracing::info!(name, was = &*error, "the registry answers again");
            self.journal.record(Kind::Registry, name, "answers again");
        }
    }

    /// Why it cannot be read.
    pub(super) fn error(&self) -> Option<Arc<str>> {
        self.error.clone()
    }
}

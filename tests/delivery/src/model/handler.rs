//! The handlers of the ledger, which panic and take too long where that is wanted.

use std::{
    collections::BTreeMap,
    panic,
    sync::{Arc, Mutex, PoisonError},
};

use gantry_events::{Event, Failure, Handle, Received};
use gantry_store::Transaction;

use super::gate::Counts;
use crate::{
    contract::{Credited, Debited},
    ledger::Apply,
};

/// How handling an event fails beside what [`Apply`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worse {
    /// Its first attempts panic.
    Panics(u32),
    /// Its first attempts never end.
    Hangs(u32),
}

/// Which events fail how, by the request they tell of.
pub(super) type Plan = Arc<Mutex<BTreeMap<String, Worse>>>;

/// Applies events, or not.
#[derive(Debug, Clone)]
pub(super) struct Troubled {
    pub(super) apply: Apply,
    pub(super) plan: Plan,
    pub(super) counts: Counts,
}

impl Troubled {
    fn worse(&self, request_id: &str) -> Option<Worse> {
        let plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.get(request_id).copied()
    }

    async fn handle<E: Event>(
        &self,
        request_id: &str,
        event: &Received<E>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure>
    where
        Apply: Handle<E>,
    {
        match self.apply.handle(event, transaction).await {
            Ok(()) => {}
            Err(failure) => {
                self.counts.one(match failure {
                    Failure::Retry(_) => "attempts failed",
                    Failure::Reject(_) => "events rejected",
                });
                return Err(failure);
            }
        }
        let attempt = event.attempt().attempt;
        match self.worse(request_id) {
            Some(Worse::Panics(attempts)) if attempt <= attempts => {
                self.counts.one("attempts panicked");
                // Without a word: it is one of thousands.
                panic::resume_unwind(Box::new("as was asked for"));
            }
            Some(Worse::Hangs(attempts)) if attempt <= attempts => {
                self.counts.one("attempts took too long");
                std::future::pending().await
            }
            _ => Ok(()),
        }
    }
}

impl Handle<Credited> for Troubled {
    async fn handle(
        &self,
        event: &Received<Credited>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        self.handle(&event.request_id, event, transaction).await
    }
}

impl Handle<Debited> for Troubled {
    async fn handle(
        &self,
        event: &Received<Debited>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        self.handle(&event.request_id, event, transaction).await
    }
}

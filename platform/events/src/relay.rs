//! Publishes what is written down in an outbox.
//!
//! ```text
//!           claim                     publish                settle
//! outbox ────────▶ lanes, one per key ────────▶ confirmed ────────▶ outbox
//!            ▲                           │ not taken
//!            └─── due again later ◀──────┘
//! ```
//!
//! Of one key one event is under way at a time, and the next one follows once that is confirmed: so
//! events of a key are on the wire in their order, whatever fails, and however many relays are at work.
//! Between keys nothing is ordered. What was confirmed and is not yet written down when a process ends
//! is published again.
//!
//! Several relays share a database. Each claims keys under a name that it keeps known; the claims of
//! one that is not heard of for a while are void. What such a one still does then repeats events and
//! reorders none, as the next event is published by whoever has seen the one before confirmed.
//!
//! # Points at which tests end the process
//!
//! | point | where | what comes of it |
//! | --- | --- | --- |
//! | P0 | before the transaction: the caller's own | no event |
//! | `events.p1` | in [`Outbox::add`], before it writes | no event |
//! | `events.p2` | committed, nobody told | the event, later |
//! | `events.p3` | claimed, not published | the event, later |
//! | `events.p4` | published, not confirmed | the event, and perhaps again |
//! | `events.p5` | confirmed, nothing written down | the event again |
//! | `events.p6` | written down, not committed | the event again |

mod config;
mod engine;
mod gate;
mod holds;
mod lane;
mod lanes;
mod ledger;
mod report;
mod session;
mod shown;

use std::{fmt, sync::Arc};

use gantry::{config::Live, journal::Journal};
use tokio_util::sync::CancellationToken;

pub use self::config::{Config, Unroutable};
pub(crate) use self::shown::Shown;
use self::{engine::Engine, ledger::Sql, report::Report};
use crate::{Outbox, broker::Broker};

/// Publishes the events of an outbox; made, then [run](Relay::run).
pub struct Relay {
    outbox: Outbox,
    broker: Arc<dyn Broker>,
    config: Live<Config>,
    journal: Option<Journal>,
    shown: Arc<Shown>,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("broker", &self.broker)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Relay {
    /// A relay from `outbox` to `broker`.
    #[must_use]
    pub fn new(outbox: &Outbox, broker: Arc<dyn Broker>, config: Live<Config>) -> Self {
        outbox.goes_to(broker.system());
        Self {
            outbox: outbox.clone(),
            broker,
            config,
            journal: None,
            shown: Arc::default(),
        }
    }

    /// Has what holds events up written to `journal` too, when it begins and when it ends.
    #[must_use]
    pub fn journal(self, journal: Journal) -> Self {
        Self {
            journal: Some(journal),
            ..self
        }
    }

    /// What operators see of it.
    pub(crate) fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown)
    }

    /// Publishes until `stopping`; then it waits a second for what is under way, and gives back what it
    /// has claimed. Nothing ends it before: a broker or a database that is away is waited for.
    ///
    /// Dropped, it leaves its claims behind, which keep others from those keys for as long as
    /// [`Config::lease`] says; events that were under way may be published again.
    pub async fn run(self, stopping: CancellationToken) {
        let ledger = Sql::new(self.outbox.database().clone());
        let report = Report::new(self.journal, self.broker.system(), self.shown);
        let wake = self.outbox.wake();
        let engine = Engine::new(ledger, self.broker, self.config, wake, report);
        engine.run(stopping).await;
    }
}

#[cfg(test)]
mod tests;

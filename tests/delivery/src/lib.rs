//! Proves by faults that no event is lost on its way, and that none has its effect twice.
//!
//! ```text
//! driver ──requests──▶ service { entry, outbox } ─▶ broker ─▶ service { inbox, effect }
//!    └─▶ history           └─ log of what was published, delivered and settled
//!                        all of them ─▶ Evidence ──faults──▶ Fault, …
//! ```
//!
//! What became of an event is never asked of whoever was to deliver it: requests come from a history
//! that the driver writes before and after each, rows from the tables, deliveries from a log at the
//! door of the broker. What the platform says of itself, its metrics, is judged like all else.

mod door;
mod drive;
mod evidence;
mod history;
mod judge;
mod ledger;
mod lines;
mod log;
mod metrics;
#[cfg(feature = "model")]
pub mod model;
mod rows;
pub mod service;

/// The contract of the service under test.
pub mod contract {
    gantry::include_contracts!();

    pub use delivery::v1::*;
}

pub use drive::{BrokerKind, Combination, DatabaseKind, Harm, Matrix, Plan, Row, Scale, Scaled};
pub use evidence::{
    Balance, Committed, Delivery, Drain, Effect, End, Entry, Evidence, Left, Measure, Must,
    Outcome, Process, Publication, Request, State, Strike, Summary,
};
pub use history::{History, requests};
pub use judge::{Fault, Kind};

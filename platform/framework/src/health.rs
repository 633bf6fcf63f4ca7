//! Whether this process should get calls, from named checks.
//!
//! ```text
//! Check ──verdict──▶ Health ◀──mark── handler
//!                      │
//!      grpc.health.v1 ◀┴▶ /readyz, admin
//! ```
//!
//! A check *gates* or *reports*: a failing gate takes every service out of rotation, a failing
//! report is shown and changes nothing. The own database gates; peers and outside HTTP report,
//! because a caller's retry at another replica would meet the same outside. A handler may mark its
//! own service. Nothing is SERVING before the start-up is done, and nothing is again once the
//! process drains.

mod check;
mod http;
mod live;
mod runner;
pub(crate) mod service;
mod state;
mod verdict;

pub use check::{Check, Config, Effect, Kind};
pub use http::UrlError;
pub use live::Liveness;
pub use state::{Health, Report, ServiceHealth, Status};
pub use verdict::{CheckReport, Verdict};

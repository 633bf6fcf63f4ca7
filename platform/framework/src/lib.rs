//! Gantry: everything a gRPC service needs around its handler.
//!
//! A service author writes a `.proto` and a handler against [`app`], [`client`], [`contract`],
//! [`status`] and [`telemetry`]; the rest of this crate is what those stand on. `ARCHITECTURE.md`
//! says what belongs in which module and which way the arrows point.

// Layer 0: no module of this crate below them.
pub mod backoff;
pub mod crash;
pub mod journal;
pub mod names;
pub mod shutdown;
pub mod status;
pub mod window;

// Layer 1.
pub mod call;
pub mod caller;
pub mod classify;
pub mod config;
pub mod contract;
pub mod deadline;

// Layer 2.
pub mod telemetry;

// Layer 3.
pub mod transport;

// Layer 4: policies.
pub mod auth;
pub mod breaker;
pub mod fault;
pub mod limit;
pub mod retry;

// Layer 5.
pub mod balance;
pub mod discovery;
pub mod health;
pub mod policy;

// Layer 6.
pub mod client;
pub mod server;

// Layer 7.
pub mod admin;

// Layer 8.
pub mod app;

#[cfg(feature = "testing")]
pub mod testing;

/// An error on its way to where it is consumed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

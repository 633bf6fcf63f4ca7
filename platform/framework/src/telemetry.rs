//! Logs, traces and metrics: set-up, propagation, and typed declarations for a service's own.

pub mod metric;
pub mod rpc;
mod trace;

//! Limits on what callers ask for: how much of it each may have.
//!
//! [`rate`] counts calls against quotas. A limit refuses with a status that says when to come back,
//! and holds a bounded amount of memory whoever calls.

pub mod client;
pub mod rate;

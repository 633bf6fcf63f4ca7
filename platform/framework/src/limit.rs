//! Limits on what is asked for: of this process by its callers, and by this process of others.
//!
//! [`rate`] counts calls against quotas. [`bulkhead`] and [`throttle`] bound what one target is
//! asked. A limit refuses with a status that says when to come back, and holds a bounded amount of
//! memory whoever calls.

pub mod bulkhead;
pub mod client;
pub mod rate;
pub mod throttle;

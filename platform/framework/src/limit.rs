//! Limits on what is asked for: of this process by its callers, and by this process of others.
//!
//! [`rate`] counts calls against quotas. [`concurrency`] bounds how many calls are in flight, of the
//! process and of each method, with a short [`queue`] in front of the latter. [`shed`] refuses calls
//! that matter less while the process is overloaded. [`bulkhead`] and [`throttle`] bound what one
//! target is asked. What each of them holds is seen on the [`board`]. A limit refuses with a status that says when to come back, and holds a bounded
//! amount of memory whoever calls.

use std::time::Duration;

pub mod board;
pub mod bulkhead;
pub mod client;
pub mod concurrency;
pub mod queue;
pub mod rate;
pub mod shed;
pub mod throttle;
pub mod throughput;

/// `pause`, a half of it less or more: those who are refused together do not come back together.
fn scattered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64())
}

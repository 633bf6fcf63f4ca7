//! Bounds how many calls are in flight at once.
//!
//! A call holds its place until **end of stream**, so a stream counts for as long as it lasts.
//! [`Cap`] is what a process can hold at all, whatever its methods are; it protects memory. A
//! [`Limiter`] is what one method may have, fixed or found by [measuring](Mode); what is beyond
//! waits shortly in a [queue](super::queue), or is refused.
//!
//! ```text
//! Cap ──Held──▶ … ──▶ Limiter ──Place──▶ handler      both dropped at end of stream
//!                        └── Waiting ──┘
//! ```

mod gradient;
mod method;
mod shares;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tonic::Status;

use super::{
    board::{Board, Count, Fill, Filled, Kind, number},
    scattered,
};
use crate::{
    config::{self, LONGEST, Live},
    status::Refusal,
    telemetry::platform::{Limits, RefusedByLimit},
};

pub use method::{Admission, Limiter, Place, Waiting};

/// When a refused call is worth another try here, give or take a half: many places are free again by
/// then, where calls are as short as most are.
const PAUSE: Duration = Duration::from_millis(100);

config::section! {
    /// How many calls are in flight at once, open streams included.
    pub struct Config {
        /// Calls of all methods together; health, reflection and the platform's own are not
        /// counted. What a process can hold, and far more than it can work on: a call takes
        /// some 10 to 100 KiB, and connections alone would allow `connections_max` times `streams_max`.
        pub calls_max: usize = 10_000, in 1..=1_000_000, live;
    }
}

config::choice! {
    /// What is done with a limit that is found by measuring.
    pub enum Mode {
        /// Nothing is measured.
        Off = "off",
        /// It is measured and told by metrics, as is what it would refuse.
        Shadow = "shadow",
        /// It is held to.
        On = "on",
    }
}

config::section! {
    /// How many calls of one method are in flight at once, and which of them wait or are refused.
    pub struct Policy {
        /// Calls in flight; 0 is as many as come. A call within the share of its criticality is let in
        /// although others hold its place, so that there may be twice as many for a moment.
        pub calls_max: usize = 0, in 0..=1_000_000, live;
        /// A limit found by how long calls take, as more of them are in flight (unary methods alone).
        pub adaptive: Mode = Mode::Shadow, live;
        /// The most that is found. The least is 4.
        pub adaptive_max: usize = 200, in 4..=100_000, live;
        /// Calls that wait for a place, in percent of the limit.
        pub queue_percent: usize = 50, in 0..=50, live;
        /// How long a call waits where somebody has been waiting for all of `queue_interval`. Those who came last
        /// are served first then: they can still be answered in time.
        pub queue_target: Duration = Duration::from_millis(5),
            in Duration::from_millis(1)..=LONGEST, live;
        /// For how long somebody may be waiting until then, served in the order they came.
        pub queue_interval: Duration = Duration::from_millis(100),
            in Duration::from_millis(1)..=LONGEST, live;
        /// What calls of each criticality have, whatever the others do; they may have what is free
        /// beside it.
        pub shares: section Shares;
    }
}

config::section! {
    /// Guaranteed shares of a limit, in percent of it.
    pub struct Shares {
        /// Of what keeps the system going (`CRITICAL_PLUS`).
        pub critical_plus: usize = 20, in 0..=100, live;
        /// Of what somebody waits for (`CRITICAL`).
        pub critical: usize = 50, in 0..=100, live;
        /// Of what may fail now and then (`SHEDDABLE_PLUS`).
        pub sheddable_plus: usize = 10, in 0..=100, live;
        /// Of what is tried again later (`SHEDDABLE`).
        pub sheddable: usize = 10, in 0..=100, live;
    }
    validate = Shares::check;
}

impl Policy {
    /// How many calls may be in flight, where that is fixed.
    fn fixed(&self) -> Option<usize> {
        (self.calls_max > 0).then_some(self.calls_max)
    }
}

impl Shares {
    fn check(&self, check: &mut config::Check<'_, '_>) {
        let all = self.critical_plus + self.critical + self.sheddable_plus + self.sheddable;
        if all > 100 {
            check.refuse(
                "sheddable",
                format!("expected shares of 100 percent together at most, found {all}"),
            );
        }
    }
}

/// Counts the calls of a process and refuses what is too much; clones share the count.
#[derive(Debug, Clone)]
pub struct Cap {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Live<Config>,
    in_flight: AtomicUsize,
    refused: Refused,
}

impl Cap {
    /// Holds calls to the `calls_max` of the moment.
    #[must_use]
    pub fn new(config: Live<Config>) -> Self {
        Self {
            shared: Arc::new(Shared {
                config,
                in_flight: AtomicUsize::new(0),
                refused: Refused::default(),
            }),
        }
    }

    /// Is seen on `board` from now on.
    pub fn show(&self, board: &Board) {
        board.show(&self.shared);
    }

    /// Counts a call until what is returned is dropped.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE if there are as many as there may be.
    pub fn admit(&self) -> Result<Held, Status> {
        let shared = &self.shared;
        let calls_max = shared.config.read(|config| config.calls_max);
        let one_more = |calls| (calls < calls_max).then_some(calls + 1);
        // Relaxed: the number guards no other memory.
        let counted = shared
            .in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        match counted {
            Ok(_) => Ok(Held { cap: self.clone() }),
            Err(_) => Err(shared.refused.refuse("too many calls are in flight")),
        }
    }

    /// Calls in flight now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Relaxed)
    }
}

impl Default for Cap {
    fn default() -> Self {
        Self::new(Live::fixed(Config::default()))
    }
}

/// One call of a process, counted until dropped.
#[derive(Debug)]
pub struct Held {
    cap: Cap,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.cap.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Filled for Shared {
    fn fills(&self, _now: Instant) -> Vec<Fill> {
        let calls_max = self.config.read(|config| config.calls_max);
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        vec![Fill {
            max: Some(number(calls_max)),
            refused: self.refused.count.get(),
            ..Fill::new(Kind::Concurrency, number(in_flight))
        }]
    }
}

/// What was refused: by this limit, and by all together.
#[derive(Debug)]
struct Refused {
    count: Count,
    metrics: Limits,
}

impl Default for Refused {
    fn default() -> Self {
        Self {
            count: Count::default(),
            metrics: Limits::register(),
        }
    }
}

impl Refused {
    /// Counts a refusal and says when to come back.
    fn refuse(&self, text: &str) -> Status {
        self.count.add();
        self.metrics.refuse(RefusedByLimit::Concurrency);
        Refusal::Concurrency.status_with_pause(text, scattered(PAUSE))
    }
}

#[cfg(test)]
mod tests;

//! Settings of a relay.

use gantry::{backoff, config};
use tokio::time::Duration;

/// Longest lease.
pub(super) const LEASE_MAX: Duration = Duration::from_mins(5);

config::choice! {
    /// What becomes of an event that nobody wants.
    pub enum Unroutable {
        /// It waits, and its key with it, until somebody does.
        Keep = "keep",
        /// It is passed over.
        Drop = "drop",
    }
}

config::section! {
    /// How events go from the outbox to the broker.
    pub struct Config {
        /// Events on their way at once, each of another key. Events of sixteen windows are read ahead, as
        /// long as they have no more than 16 MiB.
        pub window: u16 = 256, in 1..=4_096, live;
        /// How often the outbox is looked at for what nobody told of: events of other processes, or
        /// of one that has ended.
        pub look_interval: Duration = Duration::from_millis(500), in Duration::from_millis(10)..=Duration::from_mins(1), live;
        /// Pause before an event that was not taken is tried again; it doubles up to `pause_max`.
        pub pause_min: Duration = Duration::from_millis(200), in Duration::from_millis(1)..=Duration::from_mins(1), live;
        /// Longest pause between two tries of an event, and of those that fail as it does.
        pub pause_max: Duration = Duration::from_secs(30), in Duration::from_millis(1)..=Duration::from_hours(1), live;
        /// What becomes of an event that no group wants: `keep` has it and those of its key wait,
        /// `drop` passes it over.
        pub unroutable: Unroutable = Unroutable::Keep, live;
        /// Groups that are to have what is published: whenever it was connected to, nothing is before the
        /// broker has all of them, be it new or one that was away, whether something was published meanwhile
        /// or not. Where none are named, a group that is made late has nothing of what was published before.
        pub groups: Vec<String> = Vec::new(), restart;
        /// How long an event is kept in the outbox once it is done with.
        pub retention: Duration = Duration::from_hours(24), in Duration::from_secs(1)..=config::LONGEST, live;
        /// How long a process that stands still keeps others from the events that it has claimed.
        pub lease: Duration = Duration::from_secs(10), in Duration::from_millis(100)..=LEASE_MAX, live;
    }
    validate = Config::check;
}

impl Config {
    fn check(&self, check: &mut config::Check<'_, '_>) {
        if self.pause_max < self.pause_min {
            check.refuse("pause_max", "expected no less than pause_min");
        }
    }

    /// The pauses between tries.
    pub(super) fn pauses(&self) -> backoff::Config {
        backoff::Config {
            min: self.pause_min,
            max: self.pause_max.max(self.pause_min),
            multiplier: 2.0,
            jitter: 0.2,
        }
    }
}

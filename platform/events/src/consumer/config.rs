//! How events are consumed.

use std::time::Duration;

use gantry::{
    backoff,
    config::{self, Check},
};

config::section! {
    /// How events are taken up, tried again and given up.
    pub struct Config {
        /// Queues of each consumer, over which keys are spread: its instances share them, so no more
        /// than that many work at once. Fixed once the queues are there.
        pub partitions: u16 = 8, in 1..=64, restart;
        /// Events of one queue that are at hand and not done. After a crash all of them come again,
        /// and brokers count that against each.
        pub prefetch: u16 = 64, in 1..=100, restart;
        /// Events of one consumer that a process handles at once. Each has a connection of the
        /// database from its handler's first statement on: what waits for something else has none, so
        /// handlers that call other services may be many more than `pool_max`.
        pub handlers_max: usize = 4, in 1..=256, restart;
        /// How long handling an event may take; after that the attempt has failed.
        pub handler_timeout: Duration = Duration::from_secs(15), in Duration::from_millis(1)..=Duration::from_mins(10), live;
        /// Failed attempts after which an event becomes a dead letter.
        pub attempts_max: u32 = 15, in 1..=1_000, live;
        /// Attempts in a row, a moment apart, before an event is put off; its key waits meanwhile.
        pub attempts_in_place: u32 = 3, in 1..=10, live;
        /// First pause between attempts in a row; doubles with each.
        pub pause_in_place: Duration = Duration::from_millis(50), in Duration::from_millis(1)..=Duration::from_secs(10), live;
        /// How long an event is put off at first; five times as long each further time. Brokers may
        /// round it up to the next of the pauses they have.
        pub pause: Duration = Duration::from_secs(1), in Duration::from_millis(1)..=Duration::from_hours(1), live;
        /// Longest time that an event is put off.
        pub pause_max: Duration = Duration::from_mins(10), in Duration::from_millis(1)..=Duration::from_hours(24), live;
        /// Longest time that an event is put off within the process, where it keeps its place in the
        /// queue and costs no write. What is behind it in its queue waits as well once there is no more
        /// room at hand. Beyond that the broker has it, and hands it out at the end of its queue.
        pub rest_max: Duration = Duration::from_secs(3), in Duration::ZERO..=Duration::from_mins(1), live;
        /// How long after it was due an event that was put off is expected, while others of its key are
        /// put off behind it: after that it is taken for lost, as where a queue was purged, and they go
        /// on. Longer than a broker may round pauses up.
        pub lost_after: Duration = Duration::from_mins(15), in Duration::from_millis(1)..=Duration::from_hours(24), restart;
        /// How long an event waits for one that is missing before it, where its consumer takes every type
        /// of event and so knows; after that it goes on.
        pub gap_wait: Duration = Duration::from_secs(2), in Duration::ZERO..=Duration::from_mins(10), live;
        /// How long it is remembered that an event is done. One that comes again later than that would
        /// have its effect again, so it is longer than any event can be on its way.
        pub inbox_retention: Duration = Duration::from_hours(7 * 24), in Duration::from_mins(1)..=Duration::from_hours(366 * 24), live;
        /// Pause between two searches for what was remembered long enough.
        pub prune_interval: Duration = Duration::from_mins(1), in Duration::from_millis(10)..=Duration::from_hours(24), live;
        /// How long no instance has to handle a type of events, and none to come or go, before the
        /// consumer lets go of it and has no more of them.
        pub let_go_after: Duration = Duration::from_mins(10), in Duration::from_millis(1)..=Duration::from_hours(24 * 7), live;
        /// How long an instance may be silent before others take over its queues. It shows itself three
        /// times as often, each time with a write.
        pub lease: Duration = Duration::from_secs(3), in Duration::from_millis(30)..=Duration::from_mins(5), restart;
    }
    validate = Config::check;
}

/// How much longer an event is put off each further time.
const GROWTH: f64 = 5.0;

impl Config {
    fn check(&self, check: &mut Check<'_, '_>) {
        if self.pause_max < self.pause {
            check.refuse("pause_max", "expected no less than pause");
        }
        let trying = self.pause_max.saturating_mul(self.attempts_max);
        if self.inbox_retention < trying {
            check.refuse(
                "inbox_retention",
                "expected no less than attempts_max times pause_max: an event may be tried for so long",
            );
        }
    }

    /// The pause before the next attempt in a row, after `before` others.
    pub(super) fn in_place(&self, before: u32) -> Duration {
        let pauses = backoff::Config {
            min: self.pause_in_place,
            max: self.pause_in_place.saturating_mul(1 << 10),
            multiplier: 2.0,
            jitter: 0.2,
        };
        pauses.pause_after(before)
    }

    /// How long an event is put off that was put off `before` times. Not spread: brokers have few
    /// pauses, and one that is a little longer than asked for would be the next.
    pub(super) fn put_off(&self, before: u32) -> Duration {
        let pauses = backoff::Config {
            min: self.pause,
            max: self.pause_max.max(self.pause),
            multiplier: GROWTH,
            jitter: 0.0,
        };
        pauses.pause_after(before)
    }
}

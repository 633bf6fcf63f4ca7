//! Events between services: OpenTelemetry's metrics of messaging, and ours.

use metrics::Unit;

use crate::names::{
    Kind::{Counter, Gauge, Histogram},
    Metric, label,
};

/// Duration of what a broker is asked for.
pub const MESSAGING_OPERATION_DURATION: Metric = Metric::new(
    Histogram,
    "messaging_client_operation_duration_seconds",
    Unit::Seconds,
    "Time from asking a broker for something to its answer.",
)
.by(&[
    label::MESSAGING_SYSTEM,
    label::MESSAGING_GROUP,
    label::MESSAGING_DESTINATION,
    label::MESSAGING_OPERATION,
    label::ERROR_TYPE,
]);

/// Messages that were sent, or not.
pub const MESSAGING_SENT: Metric = Metric::new(
    Counter,
    "messaging_client_sent_messages_total",
    Unit::Count,
    "Attempts to send an event to a broker.",
)
.by(&[
    label::MESSAGING_SYSTEM,
    label::MESSAGING_DESTINATION,
    label::MESSAGING_OPERATION,
    label::ERROR_TYPE,
]);

/// Duration of handling messages.
pub const MESSAGING_PROCESS_DURATION: Metric = Metric::new(
    Histogram,
    "messaging_process_duration_seconds",
    Unit::Seconds,
    "Time for which an event was worked at, pauses between attempts in a row included.",
)
.by(&[
    label::MESSAGING_SYSTEM,
    label::MESSAGING_GROUP,
    label::MESSAGING_DESTINATION,
    label::ERROR_TYPE,
]);

/// Messages that came.
pub const MESSAGING_CONSUMED: Metric = Metric::new(
    Counter,
    "messaging_client_consumed_messages_total",
    Unit::Count,
    "Events that were handed to a consumer, each time that they were.",
)
.by(&[
    label::MESSAGING_SYSTEM,
    label::MESSAGING_GROUP,
    label::MESSAGING_DESTINATION,
]);

/// What became of events that came.
pub const EVENTS_CONSUMED: Metric = Metric::new(
    Counter,
    "gantry_events_consumed_total",
    Unit::Count,
    "Events that came, by what became of them.",
)
.by(&[label::MESSAGING_GROUP, label::OUTCOME]);

/// Events that had been handed out before.
pub const EVENTS_REDELIVERED: Metric = Metric::new(
    Counter,
    "gantry_events_redelivered_total",
    Unit::Count,
    "Events that came and may have been handed out before.",
)
.by(&[label::MESSAGING_GROUP]);

/// Attempts that failed.
pub const EVENTS_ATTEMPTS_FAILED: Metric = Metric::new(
    Counter,
    "gantry_events_attempts_failed_total",
    Unit::Count,
    "Attempts at handling an event that failed, by how.",
)
.by(&[label::MESSAGING_GROUP, label::REASON]);

/// Events that nobody could do.
pub const EVENTS_DEAD_LETTERS: Metric = Metric::new(
    Counter,
    "gantry_events_dead_letters_total",
    Unit::Count,
    "Events that became dead letters, by why.",
)
.by(&[label::MESSAGING_GROUP, label::REASON]);

/// How old events are when they have their effect.
pub const EVENTS_LAG: Metric = Metric::new(
    Histogram,
    "gantry_events_lag_seconds",
    Unit::Seconds,
    "Age of events when they had their effect, by the clocks of both services.",
)
.by(&[label::MESSAGING_GROUP]);

/// Events that are held.
pub const EVENTS_HELD: Metric = Metric::new(
    Gauge,
    "gantry_events_held",
    Unit::Count,
    "Events that come again later, of the partitions that this process has.",
)
.by(&[label::MESSAGING_GROUP]);

/// Events that are held and do not come again.
pub const EVENTS_GIVEN_UP: Metric = Metric::new(
    Counter,
    "gantry_events_given_up_total",
    Unit::Count,
    "Events that were put off and did not come again in time, so that others of their keys went on.",
)
.by(&[label::MESSAGING_GROUP]);

/// Partitions that a process has.
pub const EVENTS_PARTITIONS: Metric = Metric::new(
    Gauge,
    "gantry_events_partitions",
    Unit::Count,
    "Partitions of a consumer that this process has.",
)
.by(&[label::MESSAGING_GROUP]);

/// Events written down.
pub const EVENTS_ADDED: Metric = Metric::new(
    Counter,
    "gantry_events_added_total",
    Unit::Count,
    "Events written down in a transaction that was committed.",
);

/// Publications, by how they ended.
pub const EVENTS_PUBLISHED: Metric = Metric::new(
    Counter,
    "gantry_events_published_total",
    Unit::Count,
    "Attempts to publish an event, by how they ended.",
)
.by(&[label::OUTCOME]);

/// Events that are yet to be published.
pub const EVENTS_PENDING: Metric = Metric::new(
    Gauge,
    "gantry_events_pending",
    Unit::Count,
    "Events in the outbox that no broker has confirmed; the same at each process of a service.",
);

/// How old the oldest of them is.
pub const EVENTS_OLDEST: Metric = Metric::new(
    Gauge,
    "gantry_events_oldest_age_seconds",
    Unit::Seconds,
    "Age of the oldest event in the outbox that no broker has confirmed; 0 where there is none.",
);

/// What keeps consumers from what they do.
pub const EVENTS_TROUBLES: Metric = Metric::new(
    Counter,
    "gantry_events_consumer_failures_total",
    Unit::Count,
    "Times that a consumer could not do what it was about to, beside handling an event, by why.",
)
.by(&[label::MESSAGING_GROUP, label::REASON]);

/// How full queues are.
pub const EVENTS_QUEUED: Metric = Metric::new(
    Gauge,
    "gantry_events_queued",
    Unit::Count,
    "Events in the queues of a group, by what they wait for, as the broker says; the same at each process of a service.",
)
.by(&[label::MESSAGING_GROUP, label::STATE]);

/// Messages that a local broker was to take.
pub const BROKER_PUBLISHED: Metric = Metric::new(
    Counter,
    "gantry_broker_published_total",
    Unit::Count,
    "Messages that were published to the local broker, by what became of them.",
)
.by(&[label::OUTCOME]);

/// Messages that a local broker handed out.
pub const BROKER_DELIVERED: Metric = Metric::new(
    Counter,
    "gantry_broker_delivered_total",
    Unit::Count,
    "Messages that the local broker handed out, each time that it did.",
);

/// What a local broker keeps.
pub const BROKER_MESSAGES: Metric = Metric::new(
    Gauge,
    "gantry_broker_messages",
    Unit::Count,
    "Copies of messages that the local broker keeps, by what they wait for.",
)
.by(&[label::STATE]);

/// Queues of a local broker.
pub const BROKER_QUEUES: Metric = Metric::new(
    Gauge,
    "gantry_broker_queues",
    Unit::Count,
    "Queues of the local broker.",
);

/// Rows of a write of a local broker.
pub const BROKER_BATCH: Metric = Metric::new(
    Histogram,
    "gantry_broker_write_rows",
    Unit::Count,
    "Copies of messages that the local broker wrote at once.",
);

/// Duration of such a write.
pub const BROKER_WRITE: Metric = Metric::new(
    Histogram,
    "gantry_broker_write_duration_seconds",
    Unit::Seconds,
    "Time for which the local broker waited for the disk, once for all that was written together.",
);

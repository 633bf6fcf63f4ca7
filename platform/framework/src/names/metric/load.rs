//! How loaded a process is, and what it has no room for.

use metrics::Unit;

use crate::names::{
    Kind::{Counter, Gauge},
    Metric, label,
};

/// How many calls of a method measuring would let in.
pub const CONCURRENCY_LIMIT: Metric = Metric::new(
    Gauge,
    "gantry_concurrency_limit",
    Unit::Count,
    "Calls in flight that measuring finds right for a method, held to or not.",
)
.by(&[label::RPC_METHOD]);

/// Calls that wait for a place.
pub const CONCURRENCY_WAITING: Metric = Metric::new(
    Gauge,
    "gantry_concurrency_waiting",
    Unit::Count,
    "Calls that wait for others of their method to end.",
)
.by(&[label::RPC_METHOD]);

/// Calls that measuring would have refused.
pub const CONCURRENCY_WOULD_REFUSE: Metric = Metric::new(
    Counter,
    "gantry_concurrency_would_refuse_total",
    Unit::Count,
    "Calls let in that would have been refused by a limit found by measuring.",
)
.by(&[label::RPC_METHOD]);

/// How late tasks run.
pub const LOAD_LAG: Metric = Metric::new(
    Gauge,
    "gantry_load_lag_seconds",
    Unit::Seconds,
    "How late tasks begin to run, as a moving mean.",
);

/// Use of the processors.
pub const LOAD_CPU: Metric = Metric::new(
    Gauge,
    "gantry_load_cpu_ratio",
    Unit::Count,
    "Processor time used, of what the process may use, from 0 to 1.",
);

/// Use of the memory.
pub const LOAD_MEMORY: Metric = Metric::new(
    Gauge,
    "gantry_load_memory_ratio",
    Unit::Count,
    "Memory used, of what the process may use, from 0 to 1; 0 where nothing bounds it.",
);

/// What is refused for load now.
pub const SHED_SHARE: Metric = Metric::new(
    Gauge,
    "gantry_shed_ratio",
    Unit::Count,
    "Share of calls that are refused now as the process is overloaded, from 0 to 1.",
)
.by(&[label::CRITICALITY]);

/// Calls refused for load.
pub const SHED_REFUSED: Metric = Metric::new(
    Counter,
    "gantry_shed_refused_total",
    Unit::Count,
    "Calls refused as the process was overloaded; where that is tried only, those it would refuse.",
)
.by(&[label::CRITICALITY]);

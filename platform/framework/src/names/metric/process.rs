//! Metrics of the process as the system sees it.

use metrics::Unit;

use crate::names::{
    Kind::{Counter, Gauge},
    Metric,
};

/// CPU time of the process.
pub const PROCESS_CPU: Metric = Metric::new(
    Counter,
    "process_cpu_seconds_total",
    Unit::Seconds,
    "User and system CPU time spent.",
);

/// Resident memory of the process.
pub const PROCESS_RESIDENT: Metric = Metric::new(
    Gauge,
    "process_resident_memory_bytes",
    Unit::Bytes,
    "Resident memory size.",
);

/// Virtual memory of the process.
pub const PROCESS_VIRTUAL: Metric = Metric::new(
    Gauge,
    "process_virtual_memory_bytes",
    Unit::Bytes,
    "Virtual memory size.",
);

/// Open file descriptors of the process.
pub const PROCESS_OPEN_FDS: Metric = Metric::new(
    Gauge,
    "process_open_fds",
    Unit::Count,
    "Number of open file descriptors.",
);

/// Limit on open file descriptors.
pub const PROCESS_MAX_FDS: Metric = Metric::new(
    Gauge,
    "process_max_fds",
    Unit::Count,
    "Maximum number of open file descriptors.",
);

/// Threads of the process.
pub const PROCESS_THREADS: Metric = Metric::new(
    Gauge,
    "process_threads",
    Unit::Count,
    "Number of OS threads in the process.",
);

/// Start of the process.
pub const PROCESS_START: Metric = Metric::new(
    Gauge,
    "process_start_time_seconds",
    Unit::Seconds,
    "Start time of the process since the Unix epoch.",
);

/// Tasks that wait in the runtime's global queue.
pub const RUNTIME_QUEUE: Metric = Metric::new(
    Gauge,
    "gantry_runtime_global_queue_depth",
    Unit::Count,
    "Tasks in the tokio runtime's global queue.",
);

//! The platform's own metrics.

mod balance;
mod load;
mod messaging;
mod process;

use metrics::Unit;

use super::{
    Kind::{Counter, Gauge, Histogram},
    Metric, label,
};

pub use balance::{
    BALANCER_PANIC, BALANCER_PANIC_PICKS, EJECTIONS, ENDPOINT_BREAKER_TRANSITIONS,
    ENDPOINT_BREAKERS, ENDPOINTS, ENDPOINTS_EJECTED,
};
pub use load::*;
pub use messaging::*;
pub use process::{
    PROCESS_CPU, PROCESS_MAX_FDS, PROCESS_OPEN_FDS, PROCESS_RESIDENT, PROCESS_START,
    PROCESS_THREADS, PROCESS_VIRTUAL, RUNTIME_QUEUE,
};

/// Duration of calls served, by method and code.
pub const SERVER_CALL_DURATION: Metric = Metric::new(
    Histogram,
    "rpc_server_call_duration_seconds",
    Unit::Seconds,
    "Time from a call's arrival to the end of its stream.",
)
.by(&[label::RPC_METHOD, label::RPC_CODE]);

/// Calls that began to be served.
pub const SERVER_CALLS_STARTED: Metric = Metric::new(
    Counter,
    "grpc_server_call_started_total",
    Unit::Count,
    "Calls that began to be served, ended or not.",
)
.by(&[label::GRPC_METHOD]);

/// Calls being served.
pub const SERVER_CALLS_IN_FLIGHT: Metric = Metric::new(
    Gauge,
    "gantry_server_calls_in_flight",
    Unit::Count,
    "Calls being served now, open streams included.",
)
.by(&[label::RPC_METHOD]);

/// Duration of calls made, by method, target and code.
pub const CLIENT_CALL_DURATION: Metric = Metric::new(
    Histogram,
    "rpc_client_call_duration_seconds",
    Unit::Seconds,
    "Time from the start of a call to the end of its stream, all attempts and waits included.",
)
.by(&[label::RPC_METHOD, label::SERVER_ADDRESS, label::RPC_CODE]);

/// Calls being made.
pub const CLIENT_CALLS_IN_FLIGHT: Metric = Metric::new(
    Gauge,
    "gantry_client_calls_in_flight",
    Unit::Count,
    "Calls being made now, open streams included.",
)
.by(&[label::RPC_METHOD, label::SERVER_ADDRESS]);

/// Attempts begun (gRFC A66).
pub const ATTEMPTS_STARTED: Metric = Metric::new(
    Counter,
    "grpc_client_attempt_started_total",
    Unit::Count,
    "Attempts of calls that began, ended or not.",
)
.by(&[label::GRPC_METHOD, label::GRPC_TARGET]);

/// Duration of single attempts (gRFC A66).
pub const ATTEMPT_DURATION: Metric = Metric::new(
    Histogram,
    "grpc_client_attempt_duration_seconds",
    Unit::Seconds,
    "Time from the start of one attempt to the end of its stream, the pick included.",
)
.by(&[label::GRPC_METHOD, label::GRPC_TARGET, label::GRPC_STATUS]);

/// Transparent retries per call (gRFC A96).
pub const CALL_TRANSPARENT_RETRIES: Metric = Metric::new(
    Counter,
    "grpc_client_call_transparent_retries_total",
    Unit::Count,
    "Attempts that repeated one that provably never reached a handler.",
)
.by(&[label::GRPC_METHOD, label::GRPC_TARGET]);

/// Retries (gRFC A96).
pub const CALL_RETRIES: Metric = Metric::new(
    Counter,
    "grpc_client_call_retries_total",
    Unit::Count,
    "Attempts that followed one that failed, transparent retries and hedges apart.",
)
.by(&[label::GRPC_METHOD, label::GRPC_TARGET]);

/// Hedges (gRFC A96).
pub const CALL_HEDGES: Metric = Metric::new(
    Counter,
    "grpc_client_call_hedges_total",
    Unit::Count,
    "Attempts that were made beside others of the same call.",
)
.by(&[label::GRPC_METHOD, label::GRPC_TARGET]);

/// Time without an attempt per call (gRFC A96).
pub const CALL_RETRY_DELAY: Metric = Metric::new(
    Histogram,
    "grpc_client_call_retry_delay_seconds",
    Unit::Seconds,
    "Time a call spent between its attempts; only of calls that were retried.",
)
.by(&[label::GRPC_METHOD, label::GRPC_TARGET]);

/// Retries that were not made.
pub const RETRIES_REFUSED: Metric = Metric::new(
    Counter,
    "gantry_client_retries_refused_total",
    Unit::Count,
    "Failures of a kind that is tried again, and were not.",
)
.by(&[label::SERVER_ADDRESS, label::REASON]);

/// Calls that were not sent for the sake of this process or the target.
pub const CLIENT_CALLS_REFUSED: Metric = Metric::new(
    Counter,
    "gantry_client_calls_refused_total",
    Unit::Count,
    "Calls and retries that this process refused itself, and did not send.",
)
.by(&[label::SERVER_ADDRESS, label::REASON]);

/// Duration of HTTP requests served that are not gRPC.
pub const HTTP_SERVER_DURATION: Metric = Metric::new(
    Histogram,
    "http_server_request_duration_seconds",
    Unit::Seconds,
    "Time from a request's arrival to the end of its answer.",
)
.by(&[label::HTTP_METHOD, label::HTTP_STATUS]);

/// Duration of HTTP requests made.
pub const HTTP_CLIENT_DURATION: Metric = Metric::new(
    Histogram,
    "http_client_request_duration_seconds",
    Unit::Seconds,
    "Time from the start of a request to the end of its answer.",
)
.by(&[label::HTTP_METHOD, label::HTTP_STATUS]);

/// Connections served.
pub const CONNECTIONS_OPEN: Metric = Metric::new(
    Gauge,
    "gantry_server_connections_open",
    Unit::Count,
    "Connections that callers hold open now.",
);

/// Connections accepted.
pub const CONNECTIONS_ACCEPTED: Metric = Metric::new(
    Counter,
    "gantry_server_connections_accepted_total",
    Unit::Count,
    "Connections accepted, refused ones included.",
);

/// Calls refused by a limit.
pub const LIMIT_REFUSED: Metric = Metric::new(
    Counter,
    "gantry_limit_refused_total",
    Unit::Count,
    "Calls refused by a limit: a quota, or what a method or the process has room for.",
)
.by(&[label::REASON]);

/// Faults that calls met on purpose.
pub const FAULTS_INJECTED: Metric = Metric::new(
    Counter,
    "gantry_faults_injected_total",
    Unit::Count,
    "Faults that calls met on purpose, by what was done to them.",
)
.by(&[label::FAULT]);

/// What each breaker is.
pub const BREAKER_STATE: Metric = Metric::new(
    Gauge,
    "gantry_breaker_state",
    Unit::Count,
    "1 for the state that a breaker is in, 0 for the others.",
)
.by(&[label::BREAKER, label::STATE]);

/// How often each breaker changed.
pub const BREAKER_TRANSITIONS: Metric = Metric::new(
    Counter,
    "gantry_breaker_transitions_total",
    Unit::Count,
    "How often a breaker came to a state.",
)
.by(&[label::BREAKER, label::STATE]);

/// Calls refused by a breaker.
pub const BREAKER_REFUSED: Metric = Metric::new(
    Counter,
    "gantry_breaker_refused_total",
    Unit::Count,
    "Calls refused because those before them failed.",
)
.by(&[label::BREAKER]);

/// Calls that a breaker would have refused.
pub const BREAKER_WOULD_REFUSE: Metric = Metric::new(
    Counter,
    "gantry_breaker_would_refuse_total",
    Unit::Count,
    "Calls let pass by a breaker that only counts, and would have refused them.",
)
.by(&[label::BREAKER]);

/// Connections refused or cut because of their peer.
pub const CONNECTIONS_REFUSED: Metric = Metric::new(
    Counter,
    "gantry_server_connections_refused_total",
    Unit::Count,
    "Connections closed because of what their peer did, or did not do in time.",
)
.by(&[label::REASON]);

/// Connections closed for the sake of others.
pub const CONNECTIONS_EVICTED: Metric = Metric::new(
    Counter,
    "gantry_server_connections_evicted_total",
    Unit::Count,
    "Connections without calls that were closed to make room for others.",
)
.by(&[label::REASON]);

/// Whether this process is registered.
pub const REGISTRY_REGISTERED: Metric = Metric::new(
    Gauge,
    "gantry_registry_registered",
    Unit::Count,
    "1 while this process is registered, else 0.",
);

/// How often this process was registered.
pub const REGISTRY_REGISTRATIONS: Metric = Metric::new(
    Counter,
    "gantry_registry_registrations_total",
    Unit::Count,
    "How often this process was written into the registry, for the first time or again.",
);

/// Whether what is known of a name is kept current.
pub const DISCOVERY_CURRENT: Metric = Metric::new(
    Gauge,
    "gantry_discovery_current",
    Unit::Count,
    "1 while the registry tells of changes of a name, 0 while the last known endpoints are used.",
)
.by(&[label::SERVER_ADDRESS]);

/// Endpoints that are kept without being listed.
pub const DISCOVERY_HELD: Metric = Metric::new(
    Gauge,
    "gantry_discovery_endpoints_held",
    Unit::Count,
    "Endpoints kept though the registry does not list them any more.",
)
.by(&[label::SERVER_ADDRESS]);

/// Values in the registry that could not be used.
pub const DISCOVERY_MALFORMED: Metric = Metric::new(
    Counter,
    "gantry_discovery_malformed_total",
    Unit::Count,
    "Values in the registry that were passed over because they could not be read.",
)
.by(&[label::SERVER_ADDRESS]);

/// Version of the configuration in use.
pub const CONFIG_VERSION: Metric = Metric::new(
    Gauge,
    "gantry_config_version",
    Unit::Count,
    "Version of the configuration in use, counted from 1 at start.",
);

/// Configurations read after start.
pub const CONFIG_RELOADS: Metric = Metric::new(
    Counter,
    "gantry_config_reloads_total",
    Unit::Count,
    "Configurations read after start, by whether they were applied or refused.",
)
.by(&[label::OUTCOME]);

/// Result of each named health check.
pub const HEALTH_CHECK_PASSING: Metric = Metric::new(
    Gauge,
    "gantry_health_check_passing",
    Unit::Count,
    "Whether a named check passes (1) or fails (0).",
)
.by(&[label::CHECK]);

/// Duration of each named health check.
pub const HEALTH_CHECK_DURATION: Metric = Metric::new(
    Histogram,
    "gantry_health_check_duration_seconds",
    Unit::Seconds,
    "How long one run of a named check took.",
)
.by(&[label::CHECK]);

/// Duration of database statements.
pub const DB_STATEMENT_DURATION: Metric = Metric::new(
    Histogram,
    "gantry_db_statement_duration_seconds",
    Unit::Seconds,
    "How long database statements took, the wait for a connection apart.",
)
.by(&[label::OUTCOME]);

/// Wait for a connection of the database pool.
pub const DB_POOL_WAIT: Metric = Metric::new(
    Histogram,
    "gantry_db_pool_wait_seconds",
    Unit::Seconds,
    "How long statements waited for a connection of the pool.",
);

/// Connections of the database pool in use.
pub const DB_CONNECTIONS_USED: Metric = Metric::new(
    Gauge,
    "gantry_db_connections_used",
    Unit::Count,
    "Connections of the database pool that statements and transactions hold.",
);

/// Bound of the database pool.
pub const DB_CONNECTIONS_MAX: Metric = Metric::new(
    Gauge,
    "gantry_db_connections_max",
    Unit::Count,
    "Connections the database pool may have open.",
);

/// Spans handed to the collector.
pub const SPANS_EXPORTED: Metric = Metric::new(
    Counter,
    "gantry_spans_exported_total",
    Unit::Count,
    "Spans the trace collector accepted.",
);

/// Spans lost.
pub const SPANS_DROPPED: Metric = Metric::new(
    Counter,
    "gantry_spans_dropped_total",
    Unit::Count,
    "Spans that never reached the trace collector.",
)
.by(&[label::REASON]);

/// Log lines lost.
pub const LOG_LINES_DROPPED: Metric = Metric::new(
    Counter,
    "gantry_log_lines_dropped_total",
    Unit::Count,
    "Log lines dropped because nobody read the output.",
);

/// Worker threads of the runtime.
pub const RUNTIME_WORKERS: Metric = Metric::new(
    Gauge,
    "gantry_runtime_workers",
    Unit::Count,
    "Worker threads of the tokio runtime.",
);

/// Tasks of the runtime.
pub const RUNTIME_TASKS: Metric = Metric::new(
    Gauge,
    "gantry_runtime_tasks_alive",
    Unit::Count,
    "Tasks of the tokio runtime that have not ended.",
);

/// Every metric of the platform.
pub const ALL: &[Metric] = &[
    SERVER_CALL_DURATION,
    SERVER_CALLS_STARTED,
    SERVER_CALLS_IN_FLIGHT,
    CLIENT_CALL_DURATION,
    CLIENT_CALLS_IN_FLIGHT,
    ATTEMPTS_STARTED,
    ATTEMPT_DURATION,
    CALL_TRANSPARENT_RETRIES,
    CALL_RETRIES,
    CALL_HEDGES,
    CALL_RETRY_DELAY,
    RETRIES_REFUSED,
    CLIENT_CALLS_REFUSED,
    HTTP_SERVER_DURATION,
    HTTP_CLIENT_DURATION,
    CONNECTIONS_OPEN,
    CONNECTIONS_ACCEPTED,
    LIMIT_REFUSED,
    FAULTS_INJECTED,
    CONCURRENCY_LIMIT,
    CONCURRENCY_WAITING,
    CONCURRENCY_WOULD_REFUSE,
    LOAD_LAG,
    LOAD_CPU,
    LOAD_MEMORY,
    SHED_SHARE,
    SHED_REFUSED,
    BREAKER_STATE,
    BREAKER_TRANSITIONS,
    BREAKER_REFUSED,
    BREAKER_WOULD_REFUSE,
    CONNECTIONS_REFUSED,
    CONNECTIONS_EVICTED,
    ENDPOINTS,
    ENDPOINTS_EJECTED,
    EJECTIONS,
    ENDPOINT_BREAKERS,
    ENDPOINT_BREAKER_TRANSITIONS,
    BALANCER_PANIC,
    BALANCER_PANIC_PICKS,
    REGISTRY_REGISTERED,
    REGISTRY_REGISTRATIONS,
    DISCOVERY_CURRENT,
    DISCOVERY_HELD,
    DISCOVERY_MALFORMED,
    CONFIG_VERSION,
    CONFIG_RELOADS,
    HEALTH_CHECK_PASSING,
    HEALTH_CHECK_DURATION,
    DB_STATEMENT_DURATION,
    DB_POOL_WAIT,
    DB_CONNECTIONS_USED,
    DB_CONNECTIONS_MAX,
    MESSAGING_OPERATION_DURATION,
    MESSAGING_SENT,
    MESSAGING_PROCESS_DURATION,
    MESSAGING_CONSUMED,
    EVENTS_CONSUMED,
    EVENTS_REDELIVERED,
    EVENTS_ATTEMPTS_FAILED,
    EVENTS_DEAD_LETTERS,
    EVENTS_LAG,
    EVENTS_HELD,
    EVENTS_GIVEN_UP,
    EVENTS_PARTITIONS,
    EVENTS_TROUBLES,
    EVENTS_QUEUED,
    EVENTS_ADDED,
    EVENTS_PUBLISHED,
    EVENTS_PENDING,
    EVENTS_OLDEST,
    BROKER_PUBLISHED,
    BROKER_DELIVERED,
    BROKER_MESSAGES,
    BROKER_QUEUES,
    BROKER_BATCH,
    BROKER_WRITE,
    SPANS_EXPORTED,
    SPANS_DROPPED,
    LOG_LINES_DROPPED,
    RUNTIME_WORKERS,
    RUNTIME_TASKS,
    RUNTIME_QUEUE,
    PROCESS_CPU,
    PROCESS_RESIDENT,
    PROCESS_VIRTUAL,
    PROCESS_OPEN_FDS,
    PROCESS_MAX_FDS,
    PROCESS_THREADS,
    PROCESS_START,
];

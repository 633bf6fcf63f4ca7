//! Names of the fields of log lines and of the attributes of spans.

/// The RPC system of a span: always `grpc`.
pub const RPC_SYSTEM: &str = "rpc.system.name";
/// `package.Service/Method`, or [`OTHER`](super::OTHER).
pub const RPC_METHOD: &str = "rpc.method";
/// The code a call ended with, as a word.
pub const RPC_CODE: &str = "rpc.response.status_code";
/// The class of an error; for calls its code as a word.
pub const ERROR_TYPE: &str = "error.type";
/// The name a client calls.
pub const SERVER_ADDRESS: &str = "server.address";
/// The other end of the connection.
pub const PEER_ADDRESS: &str = "network.peer.address";
/// Its port.
pub const PEER_PORT: &str = "network.peer.port";
/// Whether an attempt repeats one that provably never reached a handler (gRFC A72).
pub const TRANSPARENT_RETRY: &str = "transparent-retry";
/// How many attempts of the call there were before, transparent ones apart (gRFC A72).
pub const PREVIOUS_ATTEMPTS: &str = "previous-rpc-attempts";
/// Which database: `sqlite` or `postgresql`.
pub const DB_SYSTEM: &str = "db.system.name";
/// The name of a statement, fixed in the program; never its text.
pub const DB_STATEMENT: &str = "db.query.summary";
/// How long a statement waited for a connection of the pool, in seconds.
pub const DB_POOL_WAIT: &str = "gantry.db.pool_wait_seconds";
/// A method of HTTP, or `_OTHER`.
pub const HTTP_METHOD: &str = "http.request.method";
/// The template of a path that the program knows; never the path.
pub const HTTP_ROUTE: &str = "http.route";
/// The status of an HTTP answer.
pub const HTTP_STATUS: &str = "http.response.status_code";
/// What kind of broker: `rabbitmq`, or `gantry` for the local one.
pub const MESSAGING_SYSTEM: &str = "messaging.system";
/// What is done with a message.
pub const MESSAGING_OPERATION: &str = "messaging.operation.name";
/// Which kind of operation that is.
pub const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
/// The type of an event.
pub const MESSAGING_DESTINATION: &str = "messaging.destination.name";
/// Which queue of its group a message came from.
pub const MESSAGING_PARTITION: &str = "messaging.destination.partition.id";
/// Who consumes, as in `notifications.notices`.
pub const MESSAGING_GROUP: &str = "messaging.consumer.group.name";
/// The id of an event.
pub const MESSAGING_MESSAGE_ID: &str = "messaging.message.id";
/// Bytes of an event's body.
pub const MESSAGING_BODY_SIZE: &str = "messaging.message.body.size";
/// Which attempt at an event it is, from 1.
pub const EVENT_ATTEMPT: &str = "gantry.event.attempt";
/// A span's name, read by the OpenTelemetry layer.
pub const OTEL_NAME: &str = "otel.name";
/// A span's status, read by the OpenTelemetry layer.
pub const OTEL_STATUS: &str = "otel.status_code";

/// The trace a log line belongs to, in hex.
pub const TRACE_ID: &str = "trace_id";
/// The span a log line belongs to, in hex.
pub const SPAN_ID: &str = "span_id";
/// The call a log line belongs to, in log lines.
pub const LOG_RPC_METHOD: &str = "rpc_method";

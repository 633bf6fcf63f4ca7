//! Names of metric labels. Their values come from closed sets only.

/// `package.Service/Method`, or [`OTHER`](super::OTHER).
pub const RPC_METHOD: &str = "rpc_method";
/// The code a call ended with, as a word: `DEADLINE_EXCEEDED`.
pub const RPC_CODE: &str = "rpc_response_status_code";
/// The name a client calls: one of the configured clients, never an address.
pub const SERVER_ADDRESS: &str = "server_address";
/// As [`RPC_METHOD`], in gRPC's own metrics.
pub const GRPC_METHOD: &str = "grpc_method";
/// As [`SERVER_ADDRESS`], in gRPC's own metrics.
pub const GRPC_TARGET: &str = "grpc_target";
/// As [`RPC_CODE`], in gRPC's own metrics.
pub const GRPC_STATUS: &str = "grpc_status";
/// A method of HTTP, or `_OTHER`.
pub const HTTP_METHOD: &str = "http_request_method";
/// The status of an HTTP answer; empty where there was none.
pub const HTTP_STATUS: &str = "http_response_status_code";
/// Why something was refused or dropped.
pub const REASON: &str = "reason";
/// What was done to a call on purpose.
pub const FAULT: &str = "fault";
/// How much a call matters, as a word of its header: `SHEDDABLE`.
pub const CRITICALITY: &str = "criticality";
/// A state out of a few.
pub const STATE: &str = "state";
/// The name of a health check, fixed in the program.
pub const CHECK: &str = "check";
/// How something ended.
pub const OUTCOME: &str = "outcome";
/// The name of a breaker, fixed in the program.
pub const BREAKER: &str = "breaker";
/// What kind of broker: `rabbitmq`, or `gantry` for the local one.
pub const MESSAGING_SYSTEM: &str = "messaging_system";
/// Who consumes, as in `notifications.notices`.
pub const MESSAGING_GROUP: &str = "messaging_consumer_group_name";
/// The type of an event, of those that the program knows.
pub const MESSAGING_DESTINATION: &str = "messaging_destination_name";
/// What a broker was asked for.
pub const MESSAGING_OPERATION: &str = "messaging_operation_name";
/// The class of an error; empty where there was none.
pub const ERROR_TYPE: &str = "error_type";

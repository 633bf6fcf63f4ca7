//! Names and targets of the platform's spans.

/// Target of the spans of calls: on when traces are exported, off otherwise.
pub const RPC: &str = "gantry::rpc";
/// Target of the spans of HTTP requests that are not gRPC.
pub const HTTP: &str = "gantry::http";
/// Target of the spans of database statements.
pub const DB: &str = "gantry::db";
/// Target of the spans of events.
pub const MESSAGING: &str = "gantry::messaging";

/// A call being served.
pub const SERVER: &str = "rpc.server";
/// A call made, all attempts and waits included.
pub const CLIENT: &str = "rpc.client";
/// One attempt of a call, as it went over the wire.
pub const ATTEMPT: &str = "rpc.client.attempt";
/// A request being served.
pub const HTTP_SERVER: &str = "http.server";
/// A request made.
pub const HTTP_CLIENT: &str = "http.client";
/// One database statement, the wait for a connection included.
pub const STATEMENT: &str = "db.statement";
/// An event that is written down.
pub const CREATE: &str = "messaging.create";
/// An event on its way to the broker, until that has confirmed it.
pub const SEND: &str = "messaging.send";
/// An event that is worked at.
pub const PROCESS: &str = "messaging.process";
/// An event that is settled with its broker.
pub const SETTLE: &str = "messaging.settle";

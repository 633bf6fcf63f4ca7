//! Adapters by which the gRPC conformance suite drives the chassis.
//!
//! The suite's runner starts `conformance-server` or `conformance-client` and speaks to it over
//! standard input and output: each message is protobuf behind its length, four bytes, big endian.

pub mod headers;
pub mod invoke;
pub mod service;
pub mod wire;

mod contracts {
    gantry::include_contracts!();
}

pub use contracts::connectrpc::conformance::v1 as proto;

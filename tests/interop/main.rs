//! Clients that are not ours against the shop: grpcurl, and Python's grpcio with generated code.

mod discovery;
mod grpcurl;
mod python;

//! What tests of services share: stub servers, captured telemetry, an in-memory network.

pub mod telemetry;

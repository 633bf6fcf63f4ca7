//! The platform's own contracts: messages, clients and servers from `proto/gantry` and `proto/grpc`.
//!
//! Plain tonic and prost: the framework stands on this crate, and any client can use it alone.

mod generated {
    include!(concat!(env!("OUT_DIR"), "/contracts.rs"));
}

pub use generated::gantry::{access, admin, broker};

/// The standard contract of gRPC health checking.
pub mod health {
    pub use crate::generated::grpc::health::v1;
}

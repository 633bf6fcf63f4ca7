//! The platform's own contracts: messages, clients and servers from `proto/gantry` and `proto/grpc`.
//!
//! Plain tonic and prost: the framework stands on this crate, and any client can use it alone.

mod buckets;

mod generated {
    include!(concat!(env!("OUT_DIR"), "/contracts.rs"));
}

pub use generated::gantry::{access, admin};

/// The contract of the local broker, and what all brokers agree on beside it.
pub mod broker {
    pub use crate::buckets::{BUCKETS, bucket};
    pub use crate::generated::gantry::broker::v1;
}

/// The standard contract of gRPC health checking.
pub mod health {
    pub use crate::generated::grpc::health::v1;
}

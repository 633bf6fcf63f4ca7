//! One-machine stand-ins for what a system needs around its services.
//!
//! etcd speaks the wire protocol of the real one, and the broker is one of those behind
//! `gantry_events::broker`, so that a service has one code path and one suite of tests runs against
//! them and the real things. None is meant for more than one machine: there is no
//! replication, and whoever reaches the port may read and write.

mod ask;
pub mod broker;
pub mod etcd;
mod file;
mod serve;

pub use file::StoreError;
pub use serve::{Data, Listen};

//! One-machine stand-ins for what a system needs around its services.
//!
//! Each speaks the wire protocol of the real thing, so that a service has one code path and one
//! suite of tests runs against both. None is meant for more than one machine: there is no
//! replication, and whoever reaches the port may read and write.

pub mod etcd;

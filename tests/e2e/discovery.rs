//! Registration and discovery on real etcd and on the local one, with faults on every side.
//!
//! Times are short here and as they are by default where exact bounds are checked.

mod command;
pub(crate) mod fleet;
mod instances;
mod local;
mod registry;
mod rolling;
mod secure;

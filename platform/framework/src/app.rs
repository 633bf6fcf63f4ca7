//! From a command line to a running service, and from a signal to its end.

#![allow(dead_code)]

mod command_line;
mod drain;
mod identity;

pub use crate::__identity as identity;
pub use identity::Identity;

//! Starts built binaries and real tools for the tests that need them.
//!
//! Everything started here is ended with its handle, and everything waited for is a condition with
//! a bound. A tool that is missing skips its test by name; with `CI=true` it fails it.

pub mod authority;
pub mod broker;
pub mod collector;
pub mod database;
pub mod etcd;
pub mod http_load;
pub mod leash;
pub mod load;
pub mod postgres;
pub mod process;
pub mod rabbitmq;
pub mod slow;
pub mod system;
pub mod tools;
pub mod turnstile;
pub mod wait;

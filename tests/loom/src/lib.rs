//! The framework's lock-free parts, run through every order in which threads can take their steps.
//!
//! The files are those of the framework, taken in here with loom's atomics and locks in the place of
//! the real ones: each names them `super::sync`. Nothing else is built in another way.

#[cfg(test)]
use gantry::{backoff, classify, config, telemetry};

#[cfg(test)]
pub mod breaker;

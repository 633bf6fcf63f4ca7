//! Contracts made for the tests of `gantry-build`, compiled as any crate of contracts is.

gantry::include_contracts!();

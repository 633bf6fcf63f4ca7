//! Requests that are not gRPC, through a gateway to services that describe themselves.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]

mod access;
mod bodies;
mod browsers;
mod catalogue;
mod forms;
mod pages;
mod rate;
mod requests;
mod rules;
mod stale;
mod streams;
mod support;
mod token;

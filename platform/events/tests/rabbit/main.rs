//! RabbitMQ, a real one: what every broker is held to, and what it does when it goes wrong.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod access;
mod faults;
mod stand;

use gantry_events::broker::contract;

use crate::stand::Server;

/// Goal: RabbitMQ does what every broker does.
/// Method: run the suite against a server of its own, through a proxy that can break connections off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract() {
    if let Some(server) = Server::start().await {
        contract::run(&server).await;
    }
}

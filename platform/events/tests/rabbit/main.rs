//! RabbitMQ, a real one: what every broker is held to, and what it does when it goes wrong.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod access;
mod faults;
mod letters;
mod publishing;
mod replaced;
mod stand;
mod strays;
mod upkeep;

use gantry_events::broker::contract;

use crate::stand::Server;

/// In how many parts the suite is run at once, each against a server of its own: most of it waits.
const PARTS: usize = 3;

/// Goal: RabbitMQ does what every broker does.
/// Method: run every third case of the suite, through a proxy that can break connections off; the others
/// are run below.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract() {
    keeps(0).await;
}

/// Goal: as above.
/// Method: the cases after those.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_second_part_of_the_contract() {
    keeps(1).await;
}

/// Goal: as above.
/// Method: the cases after those.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_third_part_of_the_contract() {
    keeps(2).await;
}

async fn keeps(part: usize) {
    if let Some(server) = Server::start().await {
        let cases = contract::CASES.iter().copied().flatten();
        for case in cases.skip(part).step_by(PARTS) {
            case.run(&server).await;
        }
    }
}

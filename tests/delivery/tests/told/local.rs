//! The same with the local broker.

use gantry::{config::Live, contract::prost::Name as _, journal::Journal, shutdown::Tasks};
use gantry_delivery::contract::{Credited, Debited};
use gantry_events::broker::{self, Group};
use gantry_harness::{broker::Broker, wait::SOON};

use crate::{
    CONSUMES, refused,
    stand::{GROUP, Ledger},
    unwanted,
};

/// Goal: an event that nobody wants waits, is named, and goes on once somebody does.
/// Method: publish without any group; then start who consumes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unroutable() {
    let folder = tempfile::tempdir().expect("a folder");
    unwanted(&Broker::local(folder.path())).await;
}

/// Goal: what a full queue does not take waits, is named, and goes on once there is room.
/// Method: queues of two messages, and nobody who consumes; then somebody, who has them larger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_full() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Broker::local(folder.path());
    bound(&server).await;
    let ledger = refused(&server).await;
    let consumer = Ledger::start(&server, CONSUMES).await;
    consumer.applies(&ledger).await;
}

/// Has the queues of the consumer take two messages each.
async fn bound(server: &Broker) {
    let (journal, url) = (Journal::new(), server.url());
    let tasks = Tasks::new(journal.clone());
    let config = broker::Config::to(url.parse().expect("the URL of a broker"));
    let broker = broker::connect(&Live::fixed(config), &tasks, &journal);
    let group = Group {
        name: GROUP.to_owned(),
        topics: vec![Credited::full_name(), Debited::full_name()],
        partitions: 2,
        queue_messages_max: Some(2),
    };
    let declared = tokio::time::timeout(SOON, broker.declare(&group)).await;
    declared.expect("an answer").expect("queues");
    tasks.stopping().cancel();
}

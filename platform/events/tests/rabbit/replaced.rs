//! A RabbitMQ that comes back without what it had.

use std::time::Duration;

use gantry::config::Live;
use gantry_events::{Outbox, Relay, broker::Group, relay::Config};
use gantry_harness::{
    database::Place,
    wait::{self, SOON},
};
use gantry_store::{Database, Statement};
use tokio_util::sync::CancellationToken;

use crate::stand::Server;

const TOPIC: &str = "google.protobuf.StringValue";

const PENDING: Statement = Statement::new(
    "test.pending",
    "SELECT COUNT(*) AS events FROM event_outbox WHERE state = 0",
);

fn group(name: &str) -> Group {
    Group {
        name: name.to_owned(),
        partitions: 1,
        topics: vec![TOPIC.to_owned()],
        queue_messages_max: None,
    }
}

/// A service's outbox.
struct Shop {
    _place: Place,
    database: Database,
    outbox: Outbox,
}

impl Shop {
    async fn open() -> Self {
        let place = Place::file();
        let config = gantry_store::Config {
            url: place.url().parse().unwrap(),
            ..gantry_store::Config::default()
        };
        let database = Database::open(&config, &[]).await.unwrap();
        let outbox = Outbox::open(&database, "orders").await.unwrap();
        Self {
            _place: place,
            database,
            outbox,
        }
    }

    async fn add(&self, key: &str) {
        let mut transaction = self.database.begin("test.add").await.unwrap();
        let event = key.to_owned();
        let added = self.outbox.add(&mut transaction, key, &event);
        added.await.unwrap();
        transaction.commit().await.unwrap();
    }

    async fn is_done(&self) -> bool {
        let row = self.database.statement(&PENDING).fetch_one().await;
        row.unwrap().integer("events").unwrap() == 0
    }

    async fn done(&self) {
        let done = async || self.is_done().await.then_some(());
        wait::until("all to be published", SOON, done).await;
    }
}

/// Goal: a broker that is replaced while nothing is published is asked for the groups before anything is:
/// one that is made late misses nothing.
/// Method: publish; replace it by an empty one; have one of two groups be there, and an event; once that
/// waits, or is published, have the other one be there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nothing_is_published() {
    let Some(server) = Server::start().await else {
        return;
    };
    let rabbit = server.rabbit();
    let (soon, late) = (group("replaced.soon"), group("replaced.late"));
    rabbit.declare(&soon).await.unwrap();
    rabbit.declare(&late).await.unwrap();
    let shop = Shop::open().await;
    let config = Config {
        groups: vec![soon.name.clone(), late.name.clone()],
        pause_max: Duration::from_secs(1),
        ..Config::default()
    };
    // By connections of its own, which nobody else brings back.
    let relay = Relay::new(&shop.outbox, server.rabbit(), Live::fixed(config));
    let relay = relay.journal(server.journal.clone());
    let stopping = CancellationToken::new();
    let relay = relay.run(stopping.clone());
    let test = async {
        shop.add("a").await;
        shop.done().await;
        server.rabbitmq.lock().await.replace().await;
        let declare = async || rabbit.declare(&soon).await.ok();
        wait::until("a group to be made", SOON, declare).await;
        shop.add("b").await;
        let waits = || {
            let entries = server.journal.watch().0;
            let awaiting = |it: &str| it.contains("awaiting: the group replaced.late");
            entries.iter().any(|it| awaiting(&it.detail))
        };
        let settled = async || (waits() || shop.is_done().await).then_some(());
        wait::until("the event to wait", SOON, settled).await;
        rabbit.declare(&late).await.unwrap();
        shop.done().await;
        for group in [&soon, &late] {
            let fill = rabbit.fill(&group.name).await.unwrap();
            assert_eq!(vec![1], fill.ready, "{}", group.name);
        }
        stopping.cancel();
    };
    tokio::join!(relay, test);
}

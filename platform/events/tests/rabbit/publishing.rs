//! Many messages on one channel, each judged by what became of it and of no other.

use std::{sync::Arc, time::Duration};

use gantry::journal::Journal;
use gantry_events::{
    Message,
    broker::{Broker, Group, PublishError},
};
use gantry_harness::rabbitmq;
use tokio::{task::JoinSet, time};

use crate::stand::{Server, config, connect};

fn group(name: &str, topic: &str) -> Group {
    Group {
        name: name.to_owned(),
        partitions: 1,
        topics: vec![topic.to_owned()],
        queue_messages_max: None,
    }
}

/// All have the same id: copies of an event may be on their way at the same time.
fn message(topic: &str) -> Message {
    Message {
        topic: topic.to_owned(),
        key: "a".to_owned(),
        headers: [("id".to_owned(), "the same".to_owned())].into(),
        body: "1".into(),
    }
}

/// Goal: what no queue wants is told apart from what is on disk, whatever else is on its way, also where
/// those who published give up.
/// Method: many tasks publish a mix by a seed, many at once, and drop some of it; each is to be judged
/// right, and what is taken is counted in the queue; once with few that are wanted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mix_is_judged_one_by_one() {
    const TASKS: u64 = 64;
    let Some(server) = rabbitmq::shared().await else {
        return;
    };
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let rabbit = connect(
        config(&format!("amqp://{}", server.address())),
        &Journal::new(),
    );
    let group = group("publishing.mix", "publishing.v1.Wanted");
    rabbit.declare(&group).await.unwrap();
    let mut taken = 0;
    for one_in in [2, 500] {
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let random = fastrand::Rng::with_seed(seed ^ task);
            tasks.spawn(publish_mix(rabbit.clone(), random, one_in));
        }
        while let Some(counted) = tasks.join_next().await {
            taken += counted.unwrap();
        }
    }
    let fill = rabbit.fill(&group.name).await.unwrap();
    assert_eq!(taken, fill.ready.iter().sum::<u64>());
}

/// Publishes messages of which one in some is wanted; how many were taken.
async fn publish_mix(rabbit: Arc<dyn Broker>, mut random: fastrand::Rng, one_in: u32) -> u64 {
    const ROUNDS: u64 = 20;
    const AT_ONCE: usize = 8;
    let mut taken = 0;
    for _ in 0..ROUNDS {
        let mut publishes = Vec::new();
        for _ in 0..AT_ONCE {
            let wanted = random.u32(..one_in) == 0;
            let topic = if wanted { "Wanted" } else { "Unwanted" };
            let publish = rabbit.publish(message(&format!("publishing.v1.{topic}")));
            publishes.push(async move { (wanted, publish.await) });
        }
        // What is dropped on its way may come back all the same, and is no other's.
        let dropped = rabbit.publish(message("publishing.v1.Dropped"));
        let dropped = time::timeout(Duration::from_micros(random.u64(..2_000)), dropped);
        let (judged, _) = tokio::join!(futures_util::future::join_all(publishes), dropped);
        for (wanted, judged) in judged {
            match (wanted, judged) {
                (true, Ok(())) => taken += 1,
                (false, Err(PublishError::Unroutable)) => {}
                (_, judged) => panic!("wanted {wanted}: {judged:?}"),
            }
        }
    }
    taken
}

/// Goal: the same where thousands are sent back at once.
/// Method: stop the server, have thousands on their way that nobody wants, and let it run again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_confirmed_at_once() {
    let Some(server) = Server::start().await else {
        return;
    };
    let rabbit = server.rabbit();
    let unwanted = rabbit.publish(message("publishing.v1.Unwanted")).await;
    assert!(matches!(unwanted, Err(PublishError::Unroutable)));
    for _ in 0..2 {
        server.rabbitmq.lock().await.freeze();
        let all = (0..4_000).map(|_| rabbit.publish(message("publishing.v1.Unwanted")));
        let all = futures_util::future::join_all(all);
        let thaw = async {
            time::sleep(Duration::from_millis(700)).await;
            server.rabbitmq.lock().await.thaw();
        };
        let (all, ()) = tokio::join!(all, thaw);
        for unwanted in all {
            assert!(
                matches!(unwanted, Err(PublishError::Unroutable)),
                "{unwanted:?}"
            );
        }
    }
}

/// Goal: a message that the broker closes the channel for takes none of the others' judgements with it:
/// of those it is told that they may be taken, and all is as before once what is missing is there.
/// Method: many publish, without a pause, while the exchange is deleted; then each is taken again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_is_closed_fails_all_on_it() {
    let Some(server) = Server::start().await else {
        return;
    };
    let rabbit = server.rabbit();
    let group = group("publishing.closed", "publishing.v1.Closed");
    rabbit.declare(&group).await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..64 {
        let rabbit = rabbit.clone();
        tasks.spawn(async move {
            let mut taken = 0;
            loop {
                match rabbit.publish(message("publishing.v1.Closed")).await {
                    Ok(()) => taken += 1,
                    Err(PublishError::Unroutable) => return taken,
                    Err(error) => assert!(error.may_be_taken(), "{error:?}"),
                }
            }
        });
    }
    time::sleep(Duration::from_millis(200)).await;
    server
        .rabbitmq
        .lock()
        .await
        .delete_exchange("gantry.events");
    let mut taken = 0;
    while let Some(counted) = tasks.join_next().await {
        taken += counted.unwrap();
    }
    let fill = rabbit.fill(&group.name).await.unwrap();
    let ready = fill.ready.iter().sum::<u64>();
    assert!(taken <= ready, "{taken} taken, {ready} there");
    rabbit.declare(&group).await.unwrap();
    let again = (0..64).map(|_| rabbit.publish(message("publishing.v1.Closed")));
    for published in futures_util::future::join_all(again).await {
        published.unwrap();
    }
    // None of that was worth a connection.
    assert!(server.journal.watch().0.is_empty());
}

/// Goal: what is late gives its place to others, and is read in the end by nobody else.
/// Method: stop the server; have more late than may be on their way, half of them given up; let it run
/// again, and publish.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_ones_take_no_place() {
    const UNDER_WAY_MAX: usize = 4_096;
    let Some(server) = Server::start().await else {
        return;
    };
    let mut config = config(&format!("amqp://{}", server.way.address));
    config.confirm_timeout = Duration::from_secs(2);
    let rabbit = connect(config, &server.journal);
    let group = group("publishing.late", "publishing.v1.Late");
    rabbit.declare(&group).await.unwrap();
    rabbit.publish(message("publishing.v1.Late")).await.unwrap();
    server.rabbitmq.lock().await.freeze();
    let given_up = (0..UNDER_WAY_MAX / 2).map(|_| {
        let publish = rabbit.publish(message("publishing.v1.Late"));
        time::timeout(Duration::from_millis(500), publish)
    });
    let late = (0..=UNDER_WAY_MAX / 2).map(|_| rabbit.publish(message("publishing.v1.Unwanted")));
    let given_up = futures_util::future::join_all(given_up);
    let late = futures_util::future::join_all(late);
    let (given_up, late) = tokio::join!(given_up, late);
    assert!(given_up.iter().all(Result::is_err));
    for late in late {
        assert!(matches!(late, Err(PublishError::TimedOut)), "{late:?}");
    }
    server.rabbitmq.lock().await.thaw();
    for _ in 0..10 {
        rabbit.publish(message("publishing.v1.Late")).await.unwrap();
        let unwanted = rabbit.publish(message("publishing.v1.Unwanted")).await;
        assert!(
            matches!(unwanted, Err(PublishError::Unroutable)),
            "{unwanted:?}"
        );
    }
}

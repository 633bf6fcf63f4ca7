//! One run: clients, watchers and faults at once, all from one seed.

use std::time::Duration;

use etcd_client::{Txn, TxnOp};
use fastrand::Rng;
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use crate::{
    check::SLACK,
    client::{KEYS, Shared, Worker},
    record::{History, Moment, Operation, Outcome, TTL, Watched, What},
    server::Server,
    watcher::Watcher,
};

/// Clients at once.
const CLIENTS: usize = 4;

/// Watchers at once, the first included.
const WATCHERS: usize = 4;

/// The client that puts the last keys.
const LAST: usize = CLIENTS;

/// Longest that a run may take.
const BOUND: Duration = Duration::from_mins(1);

/// Makes a history of `turns` requests of each client.
///
/// # Panics
///
/// If it does not come to an end.
pub(crate) async fn history(
    server: &mut Server,
    seed: u64,
    turns: usize,
    faults: usize,
) -> History {
    let shared = Shared::new(server.url());
    let mut random = Rng::with_seed(seed);
    let watchers = (0..WATCHERS).map(|number| {
        let span = match number {
            0 | 1 => ("k/", "k0"),
            2 => ("k/1", "k/3"),
            _ => ("k/4", "k/5"),
        };
        let one = Watcher {
            shared: &shared,
            random: random.fork(),
            first: number == 0,
            watched: Watched {
                keys: (span.0.to_owned(), span.1.to_owned()),
                told: Vec::new(),
            },
            next: 2,
        };
        one.watch()
    });
    let watchers: Vec<_> = watchers.collect();
    let working = work(&shared, server, &mut random, turns, faults);
    let both = async { tokio::join!(join_all(watchers), working) };
    let ended = timeout(BOUND, Box::pin(both)).await;
    let (watched, last) = ended.unwrap_or_else(|_| panic!("seed {seed} does not end"));
    let mut operations = shared.operations.take();
    operations.sort_by_key(|operation| operation.begun.order);
    History {
        seed,
        operations,
        restarts: shared.restarts.take(),
        watched,
        last,
    }
}

/// Clients work while the server fails; then the last keys are put.
async fn work(
    shared: &Shared,
    server: &mut Server,
    random: &mut Rng,
    turns: usize,
    faults: usize,
) -> i64 {
    let mut workers: Vec<_> = (0..CLIENTS)
        .map(|number| Worker {
            shared,
            number,
            random: random.fork(),
        })
        .collect();
    let mut moment = random.fork();
    let failing = async {
        for _ in 0..faults {
            sleep(Duration::from_millis(moment.u64(10..400))).await;
            let killed = shared.now().at;
            server.restart().await;
            let back = shared.now().at;
            shared.restarts.borrow_mut().push((killed, back));
        }
    };
    let working = join_all(workers.iter_mut().map(|worker| worker.work(turns)));
    tokio::join!(working, failing);
    if random.u8(..8) == 0 {
        // Leases end meanwhile, and the last reads see whether their keys did.
        sleep(TTL + SLACK + Duration::from_millis(100)).await;
        let reading = workers.iter_mut().map(Worker::look);
        join_all(reading).await;
    }
    end(shared).await
}

/// Puts every key at once, so that every watcher sees the end.
async fn end(shared: &Shared) -> i64 {
    // Whether an attempt that failed has happened is not known, so each puts values of its own.
    for attempt in 0.. {
        let values = KEYS.map(|key| format!("{LAST}-{key}-{attempt}"));
        let puts = KEYS.iter().zip(&values);
        let puts: Vec<_> = puts
            .map(|(key, value)| TxnOp::put(*key, value.as_str(), None))
            .collect();
        let changes = KEYS.iter().zip(values);
        let changes = changes.map(|(key, value)| ((*key).to_owned(), Some(value)));
        shared.operations.borrow_mut().push(Operation {
            begun: shared.now(),
            ended: Moment {
                order: u64::MAX,
                at: Duration::MAX,
            },
            key: String::new(),
            what: What::Many {
                changes: changes.collect(),
                lease: 0,
            },
            outcome: Outcome::Unknown,
        });
        let mut client = shared.connect().await;
        let Ok(answer) = client.txn(Txn::new().and_then(puts)).await else {
            continue;
        };
        let header = answer.header();
        let revision = header.map_or(0, etcd_client::ResponseHeader::revision);
        while shared.told.get() < revision {
            sleep(Duration::from_millis(5)).await;
        }
        shared.ended.set(true);
        return revision;
    }
    unreachable!("an attempt succeeds")
}

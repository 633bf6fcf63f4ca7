//! The pool under load, while it is swapped, and what its connections are.

use std::sync::{Arc, Mutex};

use gantry_store::Statement;
use tokio::sync::{Barrier, watch};

use super::*;

gantry_harness::on_both!(pool_swaps_fail_no_statement);

/// Goal: writers that wait for their turn hold no connection, so that readers are served.
/// Method: as many writers as the pool has connections wait for one that is stuck; then a read.
#[tokio::test]
async fn writers_in_line_keep_no_reader_out() {
    let files = Files::new();
    let config = Config {
        pool_max: 3,
        ..files.config()
    };
    let database = Database::open(&config, &[COUNTERS, LABELS]).await.unwrap();
    let stuck = database.begin("test.stuck").await.unwrap();
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(add_one(&database))).collect();
    for writer in &mut waiting {
        let early = time::timeout(Duration::from_millis(50), writer).await;
        assert!(early.is_err(), "{early:?}");
    }
    let (open, idle) = database.connections();
    assert!(open - idle <= 1, "{open} open, {idle} idle");
    assert_eq!(0, read(&database).await);

    stuck.commit().await.unwrap();
    for writer in waiting {
        writer.await.unwrap();
    }
    assert_eq!(3, read(&database).await);
}

/// Goal: of two processes that write all the time, neither waits for more than a few of the other's
/// writes, though each does several in its turn; transactions and statements by themselves alike.
/// Method: four writers of each, each on a database of its own over one file; who was had in which
/// order, while both had writers left.
#[tokio::test(flavor = "multi_thread")]
async fn processes_take_turns_to_write() {
    const EACH: usize = 40;
    /// As long as a disk takes at least, also where there is none.
    const WRITE_MIN: Duration = Duration::from_millis(4);
    let files = Files::new();
    let order = Arc::new(Mutex::new(Vec::new()));
    let begin = Arc::new(Barrier::new(8));
    let mut writers = JoinSet::new();
    for process in 0..2 {
        let database = files.open().await;
        for writer in 0..4 {
            let (database, order) = (database.clone(), Arc::clone(&order));
            let begin = Arc::clone(&begin);
            writers.spawn(async move {
                database.ping().await.unwrap();
                begin.wait().await;
                for at in 0..EACH {
                    if writer == 0 {
                        let name = format!("{process}-{at}");
                        let insert = database.statement(&INSERT).bind(name).bind(1);
                        insert.execute().await.unwrap();
                        continue;
                    }
                    let mut transaction = database.begin("test.write").await.unwrap();
                    order.lock().unwrap().push(process);
                    let write = transaction.statement(&WRITE).bind("a").bind(1);
                    write.execute().await.unwrap();
                    time::sleep(WRITE_MIN).await;
                    transaction.commit().await.unwrap();
                }
            });
        }
    }
    writers.join_all().await;
    let order = order.lock().unwrap();
    assert_eq!(2 * 3 * EACH, order.len());
    // Until one of them is nearly done.
    let ends = [0, 1].map(|process| {
        let of = order.iter().enumerate().filter(|(_, of)| **of == process);
        of.map(|(at, _)| at).nth(2 * EACH).unwrap()
    });
    let both = &order[..ends[0].min(ends[1])];
    let runs = both.chunk_by(|one, next| one == next);
    let longest = runs.map(<[i32]>::len).max();
    // Else it is nearly all of them.
    assert!(longest <= Some(16), "{longest:?} in a row: {both:?}");
}

/// Goal: a turn that is left to a writer of the same process keeps the others waiting no longer than that
/// is tried, whatever becomes of that writer.
/// Method: two databases over one file; one writer of the first waits and never looks again, and another
/// leaves its turn to it; the second writes meanwhile.
#[tokio::test]
async fn a_turn_that_is_left_is_not_lost() {
    let files = Files::new();
    let [one, other] = [files.open().await, files.open().await];
    let held = one.begin("test.held").await.unwrap();
    let mut waits = pin!(add_one(&one));
    let looked = poll_fn(|context| Poll::Ready(waits.as_mut().poll(context))).await;
    assert!(looked.is_pending(), "{looked:?}");
    held.commit().await.unwrap();
    let passed = time::timeout(Duration::from_secs(10), add_one(&other)).await;
    passed.expect("in time").unwrap();
    waits.await.unwrap();
    assert_eq!(2, read(&other).await);
}

/// Goal: a process that stands still while it waits for its turn holds nobody up for long.
/// Method: the lock of those who wait is held by somebody who does not come on; some writes.
#[tokio::test]
async fn who_stands_still_in_line_is_passed_by() {
    let files = Files::new();
    let database = files.open().await;
    add_one(&database).await.unwrap();
    let mut queue = files.path().into_os_string();
    queue.push("-queue");
    let queue = std::fs::File::open(queue).unwrap();
    queue.lock().unwrap();
    for _ in 0..3 {
        let passed = time::timeout(Duration::from_secs(10), add_one(&database)).await;
        passed.expect("in time").unwrap();
    }
    drop(queue);
    add_one(&database).await.unwrap();
    assert_eq!(5, read(&database).await);
}

/// Goal: a change of the pool's size is taken under load without a failed statement.
/// Method: tasks read and write through a pool of two while its size changes twenty times; count
/// failures, lost writes, and connections beyond the last size.
async fn pool_swaps_fail_no_statement(files: Files) {
    let database = files.open().await;
    let stop = watch::Sender::new(false);
    let mut load = JoinSet::new();
    for task in 0..8 {
        let (database, stopped) = (database.clone(), stop.subscribe());
        load.spawn(async move {
            let mut writes = 0;
            while !*stopped.borrow() {
                if task < 2 {
                    add_one(&database).await.unwrap();
                    writes += 1;
                } else {
                    read(&database).await;
                }
            }
            writes
        });
    }
    for swap in 0..20_u32 {
        let config = Config {
            pool_max: 1 + swap % 3,
            ..files.config()
        };
        database.apply(&config).await;
        let before = read(&database).await;
        let moves = async {
            while read(&database).await < before + 2 {
                tokio::task::yield_now().await;
            }
        };
        let went_on = time::timeout(Duration::from_secs(30), moves).await;
        went_on.expect("the load goes on after a swap");
    }
    stop.send_replace(true);
    let writes: i64 = load.join_all().await.into_iter().sum();
    assert_eq!(20, database.swaps());
    assert_eq!(writes, read(&database).await);
    let (open, _) = database.connections();
    assert!(open <= 2, "{open} connections, the last size is 2");
}

/// Goal: what was answered survives a power cut, and references are kept.
/// Method: what the engine says of a connection of the pool.
#[tokio::test]
async fn connections_are_durable() {
    const FULL: i64 = 2;
    let files = Files::new();
    let database = files.open().await;
    for (pragma, name, expected) in [
        ("PRAGMA synchronous", "synchronous", FULL),
        ("PRAGMA foreign_keys", "foreign_keys", 1),
    ] {
        let statement = Statement::new("test.pragma", pragma);
        let row = database.statement(&statement).fetch_one().await.unwrap();
        assert_eq!(expected, row.integer(name).unwrap(), "{name}");
    }
}

//! Statements, transactions, migrations and pool swaps, on SQLite and PostgreSQL.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]

#[path = "database/extend.rs"]
mod extend;
#[path = "database/files.rs"]
mod files;
#[path = "database/lazy.rs"]
mod lazy;
#[path = "database/pool.rs"]
mod pool;
#[path = "database/server.rs"]
mod server;

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use files::{
    COUNTERS, Files, INSERT, INSERT_LABEL, LABELS, READ, READ_LABEL, SLOW, TABLES_OF_FILE,
    TABLES_OF_SERVER, WRITE, add_one, read,
};
use gantry_store::{Config, Database, Kind, MigrateError, Migration, OpenError};
use sqlx::{AnyConnection, Connection as _, Executor as _};
use tokio::{task::JoinSet, time};

gantry_harness::on_both!(
    many_open_and_migrate_at_once,
    new_steps_run_once_and_keep_the_rows,
    unfit_databases_are_refused,
    what_others_keep_is_opened_as_it_is,
    transactions_of_several_pools_lose_no_update,
    uncommitted_transactions_leave_nothing,
    cancelled_transactions_leave_nothing_half_done,
    failures_have_a_kind_and_a_name_but_no_value,
    absent_values_stay_absent,
    a_stuck_writer_fails_others_in_time,
    slow_statements_are_cut,
    a_closed_database_refuses,
    after_a_failure_nothing_is_kept,
);

/// Goal: processes that start together on no database yet all end up with the same one.
/// Method: open one missing file sixteen times at once, then look at its shape and content.
async fn many_open_and_migrate_at_once(files: Files) {
    let mut opening = JoinSet::new();
    for _ in 0..16 {
        let config = files.config();
        opening.spawn(async move { Database::open(&config, &[COUNTERS, LABELS]).await });
    }
    let databases: Vec<Database> = opening
        .join_all()
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    for database in &databases {
        assert_eq!(0, read(database).await);
    }
    let tables = if files.place.is_file() {
        &TABLES_OF_FILE
    } else {
        &TABLES_OF_SERVER
    };
    let row = databases[0].statement(tables).fetch_one().await.unwrap();
    assert_eq!(2, row.integer("tables").unwrap());
}

/// Goal: a later version adds its steps, and keeps what is there.
/// Method: open with one step, write, open with two.
async fn new_steps_run_once_and_keep_the_rows(files: Files) {
    let old = Database::open(&files.config(), &[COUNTERS]).await.unwrap();
    add_one(&old).await.unwrap();
    for _ in 0..2 {
        assert_eq!(1, read(&files.open().await).await);
    }
}

/// Goal: a database that does not fit the program is refused, and by name.
/// Method: an edited step, a missing one, a misnumbered one, a broken one.
async fn unfit_databases_are_refused(files: Files) {
    files.open().await.close().await;
    let edited = Migration {
        sql: "CREATE TABLE counters (name TEXT)",
        ..COUNTERS
    };
    let misnumbered = Migration {
        version: 7,
        ..LABELS
    };
    let broken = Migration {
        version: 3,
        name: "broken",
        sql: "CREATE TABLE extra (name TEXT); CREATE TABEL broken (name TEXT)",
    };
    let refusal = async |migrations: &[Migration]| {
        let refused = Database::open(&files.config(), migrations).await;
        match refused.unwrap_err() {
            OpenError::Migrate { source, .. } => source,
            other => panic!("{other}"),
        }
    };
    let error = refusal(&[edited, LABELS]).await;
    assert!(
        matches!(error, MigrateError::Edited { version: 1 }),
        "{error}"
    );
    let error = refusal(&[COUNTERS]).await;
    assert!(
        matches!(error, MigrateError::Newer { found: 2, known: 1 }),
        "{error}"
    );
    let error = refusal(&[COUNTERS, misnumbered]).await;
    assert!(
        matches!(
            error,
            MigrateError::OutOfOrder {
                expected: 2,
                found: 7
            }
        ),
        "{error}"
    );
    let error = refusal(&[COUNTERS, LABELS, broken]).await;
    assert!(
        matches!(error, MigrateError::Step { version: 3, .. }),
        "{error}"
    );
    // Nothing of the broken step stayed: mended, it runs.
    let mended = Migration {
        sql: "CREATE TABLE extra (name TEXT)",
        ..broken
    };
    Database::open(&files.config(), &[COUNTERS, LABELS, mended])
        .await
        .unwrap();
}

/// Goal: who only looks at a database makes none, and changes nothing of one.
/// Method: look where none is, twice; then at one with a step nobody told it of.
async fn what_others_keep_is_opened_as_it_is(files: Files) {
    for _ in 0..2 {
        let missing = Database::open_existing(&files.config()).await.unwrap_err();
        assert!(matches!(missing, OpenError::Missing { .. }), "{missing}");
        let named = missing
            .to_string()
            .contains(&files.config().url.to_string());
        assert!(named, "{missing}");
    }
    let kept = files.open().await;
    add_one(&kept).await.unwrap();
    let seen = Database::open_existing(&files.config()).await.unwrap();
    assert_eq!(1, read(&seen).await);
    add_one(&kept).await.unwrap();
    assert_eq!(2, read(&seen).await);
}

/// Goal: what is read in a transaction stays true until it commits, across pools as well.
/// Method: three pools on one file, each with tasks that read, add one and write; no add is lost.
async fn transactions_of_several_pools_lose_no_update(files: Files) {
    const TASKS: i64 = 12;
    const ROUNDS: i64 = 10;
    let pools = [files.open().await, files.open().await, files.open().await];
    let mut tasks = JoinSet::new();
    for (_, pool) in (0..TASKS).zip(pools.iter().cycle()) {
        let pool = pool.clone();
        tasks.spawn(async move {
            for _ in 0..ROUNDS {
                add_one(&pool).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(TASKS * ROUNDS, read(&pools[0]).await);
}

/// Goal: a transaction that is not committed never happened, however it ends.
/// Method: drop one, roll one back, cancel one in the middle; then write again.
async fn uncommitted_transactions_leave_nothing(files: Files) {
    let database = files.open().await;
    let mut dropped = database.begin("test.dropped").await.unwrap();
    let write = dropped.statement(&WRITE).bind("a").bind(7);
    assert_eq!(1, write.execute().await.unwrap());
    drop(dropped);
    assert_eq!(0, read(&database).await);

    let mut undone = database.begin("test.undone").await.unwrap();
    let write = undone.statement(&WRITE).bind("a").bind(8);
    assert_eq!(1, write.execute().await.unwrap());
    undone.rollback().await.unwrap();
    assert_eq!(0, read(&database).await);

    drop(database.begin("test.idle").await.unwrap());
    add_one(&database).await.unwrap();
    assert_eq!(1, read(&database).await);
}

/// Goal: a transaction in which a statement failed keeps nothing, on every engine.
/// Method: write, fail at a duplicate key, write again, commit; the connection goes on.
async fn after_a_failure_nothing_is_kept(files: Files) {
    let config = Config {
        pool_max: 1,
        ..files.config()
    };
    let database = Database::open(&config, &[COUNTERS, LABELS]).await.unwrap();
    let mut transaction = database.begin("test.failing").await.unwrap();
    let write = transaction.statement(&WRITE).bind("a").bind(7);
    write.execute().await.unwrap();
    let twice = transaction.statement(&INSERT).bind("a").bind(1);
    let error = twice.execute().await.unwrap_err();
    assert_eq!(Kind::Conflict, error.kind(), "{error}");
    let write = transaction.statement(&WRITE).bind("a").bind(8);
    drop(write.execute().await);
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(Kind::Broken, error.kind(), "{error}");
    assert_eq!(0, read(&database).await);
}

/// Polls `future` so many times, then drops it.
async fn polled<F: Future>(times: u32, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut polls = 0;
    poll_fn(move |cx| {
        polls += 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polls >= times => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Goal: a caller that leaves at any await takes nothing with it: no half of a transaction, no
/// connection, no turn.
/// Method: cancel an addition after one poll, after two, and so on until it gets through; after
/// each, the value has moved by one or not at all, and the next addition works.
async fn cancelled_transactions_leave_nothing_half_done(files: Files) {
    let config = Config {
        pool_max: 1,
        ..files.config()
    };
    let database = Database::open(&config, &[COUNTERS, LABELS]).await.unwrap();
    let mut expected = 0;
    for times in 1.. {
        let outcome = polled(times, add_one(&database)).await;
        // Cancelled while it commits, it may have committed.
        let value = read(&database).await;
        let moved = value - expected;
        match &outcome {
            Some(done) => assert!(done.is_ok() && moved == 1, "{done:?} {moved}"),
            None => assert!((0..=1).contains(&moved), "{moved} after {times} polls"),
        }
        add_one(&database).await.unwrap();
        expected = value + 1;
        assert_eq!(expected, read(&database).await);
        if outcome.is_some() {
            assert!(times > 1, "an addition waits at least once");
            break;
        }
    }
}

/// Goal: each failure is told by its kind and the statement's name, never by a value.
/// Method: a duplicate key, a missing parent row, a wrong column.
async fn failures_have_a_kind_and_a_name_but_no_value(files: Files) {
    let database = files.open().await;
    let insert = |name: &str| {
        let name = name.to_owned();
        let database = database.clone();
        async move {
            database
                .statement(&INSERT)
                .bind(name)
                .bind(1)
                .execute()
                .await
        }
    };
    assert_eq!(1, insert("secret-value").await.unwrap());
    let error = insert("secret-value").await.unwrap_err();
    assert_eq!(Kind::Conflict, error.kind());
    assert_eq!("test.insert", error.statement());
    let text = format!("{error:?} {}", gantry::status::chain(&error));
    assert!(!text.contains("secret-value"), "{text}");

    let orphan = database.statement(&INSERT_LABEL).bind("nobody").bind("x");
    assert_eq!(Kind::Broken, orphan.execute().await.unwrap_err().kind());

    let row = database
        .statement(&READ)
        .bind("a")
        .fetch_one()
        .await
        .unwrap();
    assert_eq!(Kind::Broken, row.integer("nothing").unwrap_err().kind());
    assert_eq!(Kind::Broken, row.text("value").unwrap_err().kind());
}

/// Goal: absent values are told from present ones, both ways.
/// Method: write and read a column with and without text.
async fn absent_values_stay_absent(files: Files) {
    let database = files.open().await;
    database
        .statement(&INSERT)
        .bind("b")
        .bind(1)
        .execute()
        .await
        .unwrap();
    for (name, label) in [("a", None), ("b", Some("it's; -- \"here\""))] {
        let insert = database.statement(&INSERT_LABEL).bind(name).bind(label);
        insert.execute().await.unwrap();
        let row = database
            .statement(&READ_LABEL)
            .bind(name)
            .fetch_one()
            .await
            .unwrap();
        assert_eq!(label, row.optional_text("label").unwrap().as_deref());
    }
    let none = database
        .statement(&READ)
        .bind("nobody")
        .fetch_optional()
        .await;
    assert!(none.unwrap().is_none());
}

/// Goal: a writer that does not end makes others fail in time and by the right kind, and readers
/// not at all.
/// Method: hold a row in one pool; change it in the same pool and in another, read in both.
async fn a_stuck_writer_fails_others_in_time(files: Files) {
    let config = Config {
        acquire_timeout: Duration::from_secs(1),
        busy_timeout: Duration::from_millis(100),
        ..files.config()
    };
    let steps = [COUNTERS, LABELS];
    let one = Database::open(&config, &steps).await.unwrap();
    let other = Database::open(&config, &steps).await.unwrap();
    let mut stuck = one.begin("test.stuck").await.unwrap();
    stuck
        .statement(&WRITE)
        .bind("a")
        .bind(5)
        .execute()
        .await
        .unwrap();
    for database in [&one, &other] {
        let error = add_one(database).await.unwrap_err();
        assert_eq!(Kind::Busy, error.kind(), "{error}");
        assert_eq!(0, read(database).await);
    }
    stuck.commit().await.unwrap();
    for database in [&one, &other] {
        add_one(database).await.unwrap();
    }
    assert_eq!(7, read(&one).await);
}

/// Goal: a statement that takes too long ends as such, and its connection stays usable.
/// Method: count further than the bound allows over a pool of one, then read.
async fn slow_statements_are_cut(files: Files) {
    let config = Config {
        statement_timeout: Duration::from_millis(20),
        pool_max: 1,
        ..files.config()
    };
    let database = Database::open(&config, &[COUNTERS, LABELS]).await.unwrap();
    let slow = database.statement(&SLOW).bind(3_000_000).fetch_one().await;
    assert_eq!(Kind::TimedOut, slow.unwrap_err().kind());
    let patient = Config {
        statement_timeout: Duration::from_secs(30),
        ..config
    };
    database.apply(&patient).await;
    assert_eq!(0, read(&database).await);
}

/// Goal: nobody else on the machine can read what a service keeps.
/// Method: the mode of a new file, of its log and of its locks.
#[cfg(unix)]
#[tokio::test]
async fn files_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let files = Files::new();
    let database = files.open().await;
    add_one(&database).await.unwrap();
    for file in ["test.db", "test.db-wal", "test.db-queue", "test.db-turn"] {
        let path = files.path().with_file_name(file);
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(0o600, mode & 0o777, "{file}");
    }
}

/// Goal: a closed database refuses, and says so by kind.
/// Method: close, then ping.
async fn a_closed_database_refuses(files: Files) {
    let database = files.open().await;
    database.ping().await.unwrap();
    database.close().await;
    assert_eq!(Kind::Unavailable, database.ping().await.unwrap_err().kind());
}

/// Goal: a place where no file can be is told, with the path.
/// Method: a folder whose parent is a file.
#[tokio::test]
async fn an_impossible_place_is_told() {
    let files = Files::new();
    let blocker = files.path().ancestors().nth(3).unwrap().join("file");
    std::fs::write(&blocker, "").unwrap();
    let config = Config::file(blocker.join("x.db"));
    let error = Database::open(&config, &[]).await.unwrap_err();
    assert!(error.to_string().contains("x.db"), "{error}");
}

/// Goal: a file that somebody reads in the old mode is waited for, not given up on.
/// Method: hold a read on a file without a write-ahead log, with the engine's own patience off;
/// opening lasts as long as the read does, and then succeeds, or ends at its bound.
#[tokio::test]
async fn a_file_in_the_old_mode_is_waited_for() {
    let files = Files::new();
    files.open().await.close().await;
    let url = format!("sqlite://{}", files.path().display());
    let mut reader = AnyConnection::connect(&url).await.unwrap();
    for statement in [
        "PRAGMA journal_mode = DELETE",
        "BEGIN",
        "SELECT * FROM counters",
    ] {
        reader.fetch_all(statement).await.unwrap();
    }
    let config = Config {
        busy_timeout: Duration::ZERO,
        ..files.config()
    };
    let mut opening = pin!(Database::open(&config, &[COUNTERS, LABELS]));
    let early = time::timeout(Duration::from_millis(200), opening.as_mut()).await;
    assert!(early.is_err(), "{early:?}");
    let hasty = Config {
        open_timeout: Duration::from_millis(200),
        ..config.clone()
    };
    let bounded = time::timeout(Duration::from_secs(5), Database::open(&hasty, &[]));
    let error = bounded.await.expect("within its bound").unwrap_err();
    assert!(matches!(error, OpenError::TimedOut { .. }), "{error}");

    reader.execute("COMMIT").await.unwrap();
    assert_eq!(0, read(&opening.await.unwrap()).await);
}

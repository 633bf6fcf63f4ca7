//! Transactions that begin with their first statement.

use std::{sync::mpsc, time::Duration};

use gantry_store::{Config, Database, Kind};

use crate::files::{COUNTERS, Files, LABELS, WRITE, add_one, read};

gantry_harness::on_both!(
    a_lazy_transaction_holds_nothing_before_its_first_statement,
    a_lazy_transaction_that_cannot_begin_keeps_nothing,
);

/// Goal: a transaction that begins lazily has neither the writer's place nor a connection before its
/// first statement, and is one like all others from then on.
/// Method: with a pool of one, write beside one that waits; have it write, and look; commit one without a
/// statement.
async fn a_lazy_transaction_holds_nothing_before_its_first_statement(files: Files) {
    let config = Config {
        pool_max: 1,
        ..files.config()
    };
    let database = Database::open(&config, &[COUNTERS, LABELS]).await.unwrap();
    let other = Database::open(&config, &[COUNTERS, LABELS]).await.unwrap();
    let mut waiting = database.begin_lazily("test.waiting");
    add_one(&database).await.unwrap();
    assert!(!waiting.has_begun());
    let write = waiting.statement(&WRITE).bind("a").bind(7);
    assert_eq!(1, write.execute().await.unwrap());
    assert!(waiting.has_begun());
    assert_eq!(1, read(&other).await);
    waiting.commit().await.unwrap();
    assert_eq!(7, read(&database).await);

    let mut dropped = database.begin_lazily("test.dropped");
    let write = dropped.statement(&WRITE).bind("a").bind(8);
    assert_eq!(1, write.execute().await.unwrap());
    drop(dropped);
    assert_eq!(7, read(&database).await);

    let mut empty = database.begin_lazily("test.empty");
    let (committed, told) = mpsc::channel();
    empty.after_commit(move || committed.send(()).unwrap());
    empty.commit().await.unwrap();
    told.try_recv().unwrap();
    let unbegun = database.begin_lazily("test.unbegun");
    unbegun.rollback().await.unwrap();
}

/// Goal: where a transaction cannot begin, the statement that it was to begin with fails, and what comes
/// behind that is not kept either.
/// Method: take the only connection of a pool; write lazily, give the connection back, write, commit.
async fn a_lazy_transaction_that_cannot_begin_keeps_nothing(files: Files) {
    let config = Config {
        pool_max: 1,
        acquire_timeout: Duration::from_secs(1),
        ..files.config()
    };
    let database = Database::open(&config, &[COUNTERS, LABELS]).await.unwrap();
    let taken = database.begin("test.taken").await.unwrap();
    let mut lazy = database.begin_lazily("test.lazy");
    let write = lazy.statement(&WRITE).bind("a").bind(7);
    let error = write.execute().await.unwrap_err();
    assert_eq!((Kind::Busy, "test.lazy"), (error.kind(), error.statement()));
    assert!(!lazy.has_begun());
    taken.rollback().await.unwrap();
    let write = lazy.statement(&WRITE).bind("a").bind(8);
    write.execute().await.unwrap();
    assert_eq!(Kind::Broken, lazy.commit().await.unwrap_err().kind());
    assert_eq!(0, read(&database).await);
}

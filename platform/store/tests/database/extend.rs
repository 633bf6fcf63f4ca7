//! Tables that a library brings, and what it does beside the statements of a service.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use gantry_store::{Database, MigrateError, Migration, OpenError, Statement};

use super::{COUNTERS, Files, LABELS, WRITE, add_one, read};

const NOTES: Migration = Migration {
    version: 1,
    name: "notes",
    sql: "CREATE TABLE library_notes (note TEXT PRIMARY KEY)",
};
const MORE_NOTES: Migration = Migration {
    version: 2,
    name: "more notes",
    sql: "INSERT INTO library_notes (note) VALUES ('here')",
};
const NOTED: Statement =
    Statement::new("test.noted", "SELECT COUNT(*) AS notes FROM library_notes");

gantry_harness::on_both!(
    libraries_bring_tables_of_their_own,
    what_follows_a_commit_follows_no_rollback,
    a_statement_may_be_another_on_a_server,
);

/// The refusal of a library's steps.
async fn refused(database: &Database, migrations: &[Migration]) -> MigrateError {
    match database.extend("library", migrations).await.unwrap_err() {
        OpenError::Migrate { source, .. } => source,
        other => panic!("{other}"),
    }
}

/// Goal: a library has a history of its own beside that of the service and of other libraries, and
/// neither is in the other's way.
/// Method: extend a database that has run for a while, from several processes at once, again, and
/// further; then open it as before, and as one of another history.
async fn libraries_bring_tables_of_their_own(files: Files) {
    let database = files.open().await;
    add_one(&database).await.unwrap();
    let other = files.open().await;
    let steps = [NOTES];
    let both = tokio::join!(
        database.extend("library", &steps),
        other.extend("library", &steps)
    );
    both.0.and(both.1).unwrap();
    for _ in 0..2 {
        let steps = [NOTES, MORE_NOTES];
        database.extend("library", &steps).await.unwrap();
    }
    let notes = database.statement(&NOTED).fetch_one().await.unwrap();
    assert_eq!(1, notes.integer("notes").unwrap());

    let newer = refused(&database, &[NOTES]).await;
    let is_newer = matches!(newer, MigrateError::Newer { found: 2, known: 1 });
    assert!(is_newer, "{newer}");
    let edited = Migration {
        sql: "CREATE TABLE library_notes (note BIGINT)",
        ..NOTES
    };
    let edited = refused(&database, &[edited, MORE_NOTES]).await;
    let is_edited = matches!(edited, MigrateError::Edited { version: 1 });
    assert!(is_edited, "{edited}");

    let tables = Migration {
        sql: "CREATE TABLE another_library (note TEXT)",
        ..NOTES
    };
    database.extend("another", &[tables]).await.unwrap();
    database.close().await;
    let further = Migration {
        version: 3,
        name: "further",
        sql: "CREATE TABLE further (name TEXT)",
    };
    let steps = [COUNTERS, LABELS, further];
    let reopened = Database::open(&files.config(), &steps).await.unwrap();
    assert_eq!(1, read(&reopened).await);
}

/// Goal: what is to follow a commit runs once it is there, and at no other end.
/// Method: commit, roll back, drop, and commit what has failed; count.
async fn what_follows_a_commit_follows_no_rollback(files: Files) {
    const BROKEN: Statement = Statement::new("test.broken", "UPDATE counters SET nothing = 1");
    let database = files.open().await;
    let ran = Arc::new(AtomicU32::new(0));
    for (commits, fails, expected) in [(false, false, 0), (true, true, 0), (true, false, 2)] {
        let mut transaction = database.begin("test.followed").await.unwrap();
        let write = transaction.statement(&WRITE).bind("a").bind(7);
        write.execute().await.unwrap();
        for _ in 0..2 {
            let ran = Arc::clone(&ran);
            transaction.after_commit(move || {
                ran.fetch_add(1, Ordering::Relaxed);
            });
        }
        if fails {
            transaction.statement(&BROKEN).execute().await.unwrap_err();
        }
        if commits {
            assert_eq!(fails, transaction.commit().await.is_err());
        } else {
            transaction.rollback().await.unwrap();
        }
        assert_eq!(expected, ran.load(Ordering::Relaxed));
    }
    let mut dropped = database.begin("test.dropped").await.unwrap();
    let counts = Arc::clone(&ran);
    dropped.after_commit(move || {
        counts.fetch_add(1, Ordering::Relaxed);
    });
    drop(dropped);
    assert_eq!((2, 7), (ran.load(Ordering::Relaxed), read(&database).await));
}

/// Goal: a statement with a text of its own for servers runs as that there, and as the other on files.
/// Method: one that says which it is.
async fn a_statement_may_be_another_on_a_server(files: Files) {
    const WHERE: Statement = Statement::new("test.where", "SELECT 'a file' AS place")
        .on_server("SELECT 'a server' AS place");
    let database = files.open().await;
    let row = database.statement(&WHERE).fetch_one().await.unwrap();
    let expected = if files.place.is_file() {
        "a file"
    } else {
        "a server"
    };
    assert_eq!(expected, row.text("place").unwrap());
}

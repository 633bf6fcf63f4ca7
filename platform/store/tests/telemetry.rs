//! What a database tells about itself, and what it keeps to itself.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]

#[path = "database/files.rs"]
#[allow(dead_code)] // The other test uses the rest.
mod files;

use files::{COUNTERS, Files, INSERT, LABELS, READ, SLOW, WRITE, read};
use gantry::testing::telemetry;
use gantry_store::{Config, Database, Kind};

gantry_harness::on_both!(
    () statements_are_spans_without_values,
    statements_and_connections_are_counted
);

/// Goal: every statement, and each end of a transaction, is a span with its name, the engine and
/// the wait; failures show; values appear nowhere.
/// Method: statements that carry a canary as value, one of them failing, on one thread.
async fn statements_are_spans_without_values(files: Files) {
    const CANARY: &str = "canary-7f3a";
    let capture = telemetry::capture();
    let database = files.open().await;
    for _ in 0..2 {
        let insert = database.statement(&INSERT).bind(CANARY).bind(1);
        drop(insert.execute().await);
    }
    let mut transaction = database.begin("test.transaction").await.unwrap();
    let write = transaction.statement(&WRITE).bind(CANARY).bind(424_242);
    write.execute().await.unwrap();
    transaction.commit().await.unwrap();

    // The engine's thread lets go of a span a moment after it has answered.
    let spans = loop {
        let spans = capture.spans();
        if spans.len() == 5 {
            break spans;
        }
        tokio::task::yield_now().await;
    };
    let mut ends: Vec<(&str, bool)> = spans.iter().map(|it| (&*it.name, it.error)).collect();
    ends.sort_unstable();
    let expected = vec![
        ("store.commit", false),
        ("test.insert", false),
        ("test.insert", true),
        ("test.transaction", false),
        ("test.write", false),
    ];
    assert_eq!(expected, ends);
    let system = if files.place.is_file() {
        "sqlite"
    } else {
        "postgresql"
    };
    for span in &spans {
        assert_eq!("client", span.kind);
        assert_eq!(system, span.attributes["db.system.name"]);
        assert_eq!(span.name, span.attributes["db.query.summary"]);
        assert!(span.attributes.contains_key("gantry.db.pool_wait_seconds"));
    }
    let told = format!("{} {spans:?} {:?}", capture.text(), capture.all_series());
    for value in [CANARY, "424242", "UPDATE counters"] {
        assert!(!told.contains(value), "{value} in {told}");
    }
}

/// Goal: the numbers say how statements end, how full the pool is and how large.
/// Method: statements that work, fail and are cut; a transaction held open; another size.
async fn statements_and_connections_are_counted(files: Files) {
    const DURATION: &str = "gantry_db_statement_duration_seconds_count";
    let capture = telemetry::capture();
    let config = Config {
        pool_max: 3,
        ..files.config()
    };
    let database = Database::open(&config, &[COUNTERS, LABELS]).await.unwrap();
    let value = |name, labels: &[(&str, &str)]| capture.value(name, labels).unwrap_or_default();

    read(&database).await;
    let twice = database.statement(&INSERT).bind("a").bind(1);
    assert_eq!(Kind::Conflict, twice.execute().await.unwrap_err().kind());
    let slow = database.statement(&SLOW).bind(2_000_000).fetch_one();
    let begun = async {
        while value("gantry_db_connections_used", &[]) < 0.5 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        _ = slow => panic!("two million rows take longer"),
        () = begun => {}
    }
    for (outcome, count) in [("ok", 1.0), ("error", 1.0), ("cancelled", 1.0)] {
        assert_eq!(
            Some(count),
            capture.value(DURATION, &[("outcome", outcome)]),
            "{outcome}"
        );
    }

    assert!(value("gantry_db_connections_used", &[]).abs() < 0.5);
    let mut transaction = database.begin("test.held").await.unwrap();
    transaction
        .statement(&READ)
        .bind("a")
        .fetch_one()
        .await
        .unwrap();
    assert!((value("gantry_db_connections_used", &[]) - 1.0).abs() < 0.5);
    drop(transaction);
    assert!(value("gantry_db_connections_used", &[]).abs() < 0.5);

    assert!((value("gantry_db_connections_max", &[]) - 3.0).abs() < 0.5);
    let larger = Config {
        pool_max: 5,
        ..config
    };
    database.apply(&larger).await;
    assert!((value("gantry_db_connections_max", &[]) - 5.0).abs() < 0.5);
}

//! A database of its own, and statements to try on it.

use std::{path::PathBuf, time::Duration};

use gantry_harness::database::Place;
use gantry_store::{Config, Database, Migration, Statement};

pub(crate) const COUNTERS: Migration = Migration {
    version: 1,
    name: "counters",
    sql: "CREATE TABLE counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL);
          INSERT INTO counters (name, value) VALUES ('a', 0);",
};
pub(crate) const LABELS: Migration = Migration {
    version: 2,
    name: "labels",
    sql: "CREATE TABLE labels (name TEXT PRIMARY KEY REFERENCES counters (name), label TEXT)",
};

pub(crate) const READ: Statement =
    Statement::new("test.read", "SELECT value FROM counters WHERE name = $1");
pub(crate) const WRITE: Statement = Statement::new(
    "test.write",
    "UPDATE counters SET value = $2 WHERE name = $1",
);
pub(crate) const INSERT: Statement = Statement::new(
    "test.insert",
    "INSERT INTO counters (name, value) VALUES ($1, $2)",
);
pub(crate) const INSERT_LABEL: Statement = Statement::new(
    "test.insert_label",
    "INSERT INTO labels (name, label) VALUES ($1, $2)",
);
pub(crate) const READ_LABEL: Statement = Statement::new(
    "test.read_label",
    "SELECT label FROM labels WHERE name = $1",
);
pub(crate) const SLOW: Statement = Statement::new(
    "test.slow",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
     SELECT COUNT(*) AS rows FROM n",
);
/// Tables of that name, wherever the engine keeps them.
pub(crate) const TABLES_OF_FILE: Statement = Statement::new(
    "test.tables",
    "SELECT COUNT(*) AS tables FROM sqlite_master WHERE name IN ('counters', 'labels')",
);
pub(crate) const TABLES_OF_SERVER: Statement = Statement::new(
    "test.tables",
    "SELECT COUNT(*) AS tables FROM pg_tables
     WHERE schemaname = current_schema() AND tablename IN ('counters', 'labels')",
);

/// A database of its own, empty at first.
pub(crate) struct Files {
    pub(crate) place: Place,
}

impl From<Place> for Files {
    fn from(place: Place) -> Self {
        Self { place }
    }
}

impl Files {
    /// In a file.
    pub(crate) fn new() -> Self {
        Place::file().into()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.place.path()
    }

    /// More patient than any disk is slow: what ends a wait is for each test to say.
    pub(crate) fn config(&self) -> Config {
        const PATIENCE: Duration = Duration::from_mins(1);
        Config {
            url: self.place.url().parse().unwrap(),
            acquire_timeout: PATIENCE,
            statement_timeout: PATIENCE,
            busy_timeout: PATIENCE,
            open_timeout: PATIENCE,
            ..Config::default()
        }
    }

    pub(crate) async fn open(&self) -> Database {
        Database::open(&self.config(), &[COUNTERS, LABELS])
            .await
            .unwrap()
    }
}

pub(crate) async fn read(database: &Database) -> i64 {
    let row = database.statement(&READ).bind("a").fetch_one().await;
    row.unwrap().integer("value").unwrap()
}

/// Adds one the way that loses updates unless the transaction keeps others out.
pub(crate) async fn add_one(database: &Database) -> Result<(), gantry_store::Error> {
    let mut transaction = database.begin("test.add_one").await?;
    transaction.alone("counters").await?;
    let row = transaction.statement(&READ).bind("a").fetch_one().await?;
    let value = row.integer("value")?;
    transaction
        .statement(&WRITE)
        .bind("a")
        .bind(value + 1)
        .execute()
        .await?;
    transaction.commit().await
}

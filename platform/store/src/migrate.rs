//! Brings a database to the shape its service expects.

use sqlx::{AnyConnection, Executor as _, Row as _, SqlSafeStr as _, any::AnyRow};

/// One step of a database's shape. Steps are only ever added: what ran once is never edited.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Position, from 1, without gaps.
    pub version: i64,
    /// What it does, in a word or two.
    pub name: &'static str,
    /// The statements; portable, as everything else.
    pub sql: &'static str,
}

impl Migration {
    /// The step at `version` that is known as `name`.
    #[must_use]
    pub const fn new(version: i64, name: &'static str, sql: &'static str) -> Self {
        Self { version, name, sql }
    }
}

/// Why a database was not brought to its shape.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The list itself is wrong: a mistake in the program.
    #[error("migration {found} stands at place {expected} of the list")]
    OutOfOrder {
        /// Where it stands.
        expected: i64,
        /// What its version says.
        found: i64,
    },
    /// What ran once was edited since.
    #[error("migration {version} is not the one this database went through")]
    Edited {
        /// The step.
        version: i64,
    },
    /// The database has seen a newer version of the service.
    #[error("the database is at migration {found}, this version of the service ends at {known}")]
    Newer {
        /// The last step the database went through.
        found: i64,
        /// The last step this program has.
        known: i64,
    },
    /// A step failed; nothing of any step is kept.
    #[error("run migration {version}")]
    Step {
        /// The step.
        version: i64,
        /// What the database said.
        source: sqlx::Error,
    },
    /// The list of steps in the database cannot be read or written.
    #[error("read and write the migrations of the database")]
    Bookkeeping(#[from] sqlx::Error),
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS gantry_migrations (
    version BIGINT PRIMARY KEY,
    name TEXT NOT NULL,
    statements TEXT NOT NULL
)";
const APPLIED: &str = "SELECT version, statements FROM gantry_migrations ORDER BY version";
const RECORD: &str =
    "INSERT INTO gantry_migrations (version, name, statements) VALUES ($1, $2, $3)";

const LIBRARIES_TABLE: &str = "CREATE TABLE IF NOT EXISTS gantry_library_migrations (
    library TEXT NOT NULL,
    version BIGINT NOT NULL,
    name TEXT NOT NULL,
    statements TEXT NOT NULL,
    PRIMARY KEY (library, version)
)";
const LIBRARY_APPLIED: &str = "SELECT version, statements FROM gantry_library_migrations
    WHERE library = $1 ORDER BY version";
const LIBRARY_RECORD: &str = "INSERT INTO gantry_library_migrations
    (version, name, statements, library) VALUES ($1, $2, $3, $4)";

/// Whose steps they are, and which. Each has a history of its own in the database.
#[derive(Debug, Clone, Copy)]
pub(crate) struct History<'a> {
    /// None for those of the service itself.
    library: Option<&'a str>,
    migrations: &'a [Migration],
}

impl<'a> History<'a> {
    /// The steps of the service.
    pub(crate) fn of_service(migrations: &'a [Migration]) -> Self {
        Self {
            library: None,
            migrations,
        }
    }

    /// The steps of a library that has tables in the database of the service.
    pub(crate) fn of_library(library: &'a str, migrations: &'a [Migration]) -> Self {
        Self {
            library: Some(library),
            migrations,
        }
    }

    /// The steps that the database has seen, with their statements.
    async fn applied(
        &self,
        transaction: &mut AnyConnection,
    ) -> Result<Vec<(i64, String)>, sqlx::Error> {
        let rows = if let Some(library) = self.library {
            transaction.execute(LIBRARIES_TABLE).await?;
            let applied = sqlx::query(LIBRARY_APPLIED).bind(library);
            applied.fetch_all(transaction).await?
        } else {
            transaction.execute(TABLE).await?;
            transaction.fetch_all(APPLIED).await?
        };
        let read = |row: &AnyRow| Ok((row.try_get(0)?, row.try_get(1)?));
        rows.iter().map(read).collect()
    }

    async fn record(
        &self,
        transaction: &mut AnyConnection,
        migration: &Migration,
    ) -> Result<(), sqlx::Error> {
        let record = sqlx::query(match self.library {
            Some(_) => LIBRARY_RECORD,
            None => RECORD,
        });
        let record = record.bind(migration.version).bind(migration.name);
        let record = record.bind(migration.sql);
        let record = match self.library {
            Some(library) => record.bind(library),
            None => record,
        };
        record.execute(transaction).await.map(drop)
    }
}

/// Runs the steps the database has not seen. The caller's transaction keeps out whoever wants the
/// same: of processes that start together one does the work and the others find it done.
pub(crate) async fn run(
    transaction: &mut AnyConnection,
    history: History<'_>,
) -> Result<(), MigrateError> {
    let migrations = history.migrations;
    for (expected, migration) in (1..).zip(migrations) {
        if migration.version != expected {
            return Err(MigrateError::OutOfOrder {
                expected,
                found: migration.version,
            });
        }
    }
    let applied = history.applied(transaction).await?;
    for (version, statements) in &applied {
        let version = *version;
        let known = migrations.iter().find(|known| known.version == version);
        match known {
            None => {
                return Err(MigrateError::Newer {
                    found: version,
                    known: migrations.last().map_or(0, |last| last.version),
                });
            }
            Some(known) if known.sql != *statements => {
                return Err(MigrateError::Edited { version });
            }
            Some(_) => {}
        }
    }
    for migration in migrations.iter().skip(applied.len()) {
        transaction
            .execute(sqlx::raw_sql(migration.sql.into_sql_str()))
            .await
            .map_err(|source| MigrateError::Step {
                version: migration.version,
                source,
            })?;
        history.record(transaction, migration).await?;
    }
    Ok(())
}

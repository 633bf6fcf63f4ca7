//! SQLite files.

use std::{path::Path, time::Duration};

use sqlx::{AnyConnection, Connection as _, any::AnyConnectOptions};
use tokio::time;

use super::Unshaped;
use crate::{
    Config, Kind,
    engine::Engine,
    migrate::{self, History},
};

/// Makes the file, where it is missing, for this user alone: it may hold hashes and keys. SQLite
/// gives its log the same mode.
pub(super) async fn make(path: &Path) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        tokio::fs::create_dir_all(parent).await?;
    }
    let mut options = tokio::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    options.mode(0o600);
    options.open(path).await.map(drop)
}

/// Turns on the write-ahead log and migrates, over a connection of its own.
pub(super) async fn shape(
    options: &AnyConnectOptions,
    config: &Config,
    history: History<'_>,
) -> Result<(), Unshaped> {
    let mut connection = AnyConnection::connect_with(options).await?;
    write_ahead(&mut connection, config).await?;
    let mut transaction = connection
        .begin_with(Engine::Sqlite.begin())
        .await
        .map_err(migrate::MigrateError::from)?;
    migrate::run(&mut transaction, history).await?;
    transaction
        .commit()
        .await
        .map_err(migrate::MigrateError::from)?;
    Ok(connection.close().await?)
}

/// Turns on the write-ahead log, which the file then keeps: readers and the writer do not wait for
/// each other. SQLite refuses the change at once while another process has the file open in the
/// old mode, whatever the busy timeout: it is tried until the caller's time is up.
async fn write_ahead(connection: &mut AnyConnection, config: &Config) -> Result<(), sqlx::Error> {
    let busy = format!("PRAGMA busy_timeout = {}", config.busy_timeout.as_millis());
    sqlx::raw_sql(sqlx::AssertSqlSafe(busy))
        .execute(&mut *connection)
        .await?;
    let mut pauses = [5_u64, 10, 20, 40].into_iter().chain(std::iter::repeat(80));
    loop {
        let turned_on = sqlx::raw_sql("PRAGMA journal_mode = WAL")
            .execute(&mut *connection)
            .await;
        match turned_on {
            Ok(_) => return Ok(()),
            Err(error) if Kind::of(&error) == Kind::Busy => {}
            Err(error) => return Err(error),
        }
        time::sleep(Duration::from_millis(pauses.next().unwrap_or(80))).await;
    }
}

//! Schemas of PostgreSQL databases.

use std::time::Duration;

use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _, any::AnyConnectOptions};

use super::Unshaped;
use crate::{
    Config, MigrateError,
    engine::{self, Engine},
    migrate::{self, History},
    url::Server,
};

/// Waits until no other process is at the same schema; until the end of the transaction.
const LOCK: &str =
    "SELECT 1 AS one FROM pg_advisory_xact_lock(hashtextextended('gantry migrates ' || $1, 0))";
const FIND: &str = "SELECT 1 AS one FROM pg_namespace WHERE nspname = $1";

/// Whether the schema is there.
pub(super) async fn is_there(
    options: &AnyConnectOptions,
    server: &Server,
) -> Result<bool, Unshaped> {
    let mut connection = AnyConnection::connect_with(options).await?;
    let find = sqlx::query(FIND).bind(server.schema());
    let found = find.fetch_optional(&mut connection).await?;
    connection.close().await?;
    Ok(found.is_some())
}

/// Makes the schema and migrates, over a connection of its own, in one transaction. Processes that
/// start together take turns.
pub(super) async fn shape(
    options: &AnyConnectOptions,
    server: &Server,
    config: &Config,
    history: History<'_>,
) -> Result<(), Unshaped> {
    let mut connection = AnyConnection::connect_with(options).await?;
    // Its turn is waited for, and a step may take long: the caller's time bounds both.
    let session = engine::session(server, config.open_timeout, Duration::ZERO);
    let session = sqlx::raw_sql(AssertSqlSafe(session));
    session.execute(&mut connection).await?;
    let schema = server.schema();
    let in_shape = async {
        let mut transaction = connection.begin_with(Engine::Postgres.begin()).await?;
        sqlx::query(LOCK)
            .bind(schema)
            .execute(&mut *transaction)
            .await?;
        let found = sqlx::query(FIND).bind(schema);
        // Only a missing one needs the right to make it.
        if found.fetch_optional(&mut *transaction).await?.is_none() {
            let create = format!("CREATE SCHEMA \"{schema}\"");
            transaction.execute(AssertSqlSafe(create)).await?;
        }
        migrate::run(&mut transaction, history).await?;
        transaction.commit().await?;
        Ok::<_, MigrateError>(())
    };
    in_shape.await?;
    Ok(connection.close().await?)
}

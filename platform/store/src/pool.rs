//! A pool of connections of one fixed size.

use std::{sync::Arc, time::Duration};

use sqlx::{
    Any, ConnectOptions as _, Executor as _, SqlSafeStr as _,
    any::{AnyConnectOptions, AnyPoolOptions},
    pool::PoolConnection,
};

use crate::Config;

/// A connection nobody used for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_mins(5);

/// One generation of connections. sqlx cannot resize a pool, so a change of its settings makes the
/// next generation; see [`crate::Database::apply`].
#[derive(Debug)]
pub(crate) struct Pool {
    inner: sqlx::AnyPool,
    pub(crate) config: Config,
}

impl Pool {
    /// A pool without connections yet; no I/O.
    pub(crate) fn lazy(options: &AnyConnectOptions, config: &Config) -> Arc<Self> {
        let busy_timeout = config.busy_timeout.as_millis();
        // Foreign keys and full synchronisation are the driver's and the engine's defaults; they
        // are spelled here because the stores rely on them: an order that was answered survives
        // a power cut.
        let prepare: Arc<str> = format!(
            "PRAGMA busy_timeout = {busy_timeout}; PRAGMA foreign_keys = ON; \
             PRAGMA synchronous = FULL"
        )
        .into();
        let inner = AnyPoolOptions::new()
            .max_connections(config.pool_max)
            .min_connections(0)
            .acquire_timeout(config.acquire_timeout)
            .acquire_slow_threshold(Duration::MAX)
            .idle_timeout(IDLE_TIMEOUT)
            .max_lifetime(None)
            // A connection to a file does not go away by itself.
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let prepare = sqlx::AssertSqlSafe(prepare.to_string()).into_sql_str();
                Box::pin(async move {
                    connection.execute(sqlx::raw_sql(prepare)).await?;
                    Ok(())
                })
            })
            .connect_lazy_with(options.clone());
        Arc::new(Self {
            inner,
            config: config.clone(),
        })
    }

    pub(crate) async fn acquire(&self) -> Result<PoolConnection<Any>, sqlx::Error> {
        self.inner.acquire().await
    }

    /// Refuses new acquisitions at once, wakes those that wait with `PoolClosed`, and ends when
    /// every connection is back and closed.
    pub(crate) async fn close(&self) {
        self.inner.close().await;
    }

    /// Connections open, and those of them nobody uses.
    pub(crate) fn connections(&self) -> (usize, usize) {
        let open = usize::try_from(self.inner.size()).unwrap_or(usize::MAX);
        (open, self.inner.num_idle().min(open))
    }
}

/// How to connect, with sqlx's own logging of statements off: ours has their names, never values.
pub(crate) fn options(url: &str) -> Result<AnyConnectOptions, sqlx::Error> {
    Ok(url
        .parse::<AnyConnectOptions>()?
        .disable_statement_logging())
}

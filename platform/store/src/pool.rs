//! A pool of connections of one fixed size.

use std::{sync::Arc, time::Duration};

use sqlx::{
    Any, ConnectOptions as _, Connection as _, Executor as _, SqlSafeStr as _,
    any::{AnyConnectOptions, AnyPoolOptions},
    pool::PoolConnection,
};
use tokio::time;

use crate::{Config, engine::Engine};

/// A connection nobody used for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_mins(5);

/// A connection to a server is closed and made anew after this long, so that it follows a name that
/// leads elsewhere by then.
const LIFETIME: Duration = Duration::from_mins(30);

/// A connection to a server that nobody used for this long is asked whether it is still one: a
/// server that was started again has forgotten it. One that was just used is believed.
const UNSURE_AFTER: Duration = Duration::from_millis(50);

/// How long a server may take to say that a connection is still one: when it is taken, and when it is
/// given back.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// One generation of connections. sqlx cannot resize a pool, so a change of its settings makes the
/// next generation; see [`crate::Database::apply`].
#[derive(Debug)]
pub(crate) struct Pool {
    inner: sqlx::AnyPool,
    pub(crate) config: Config,
    taken: Taken,
}

/// Held by each connection of a pool that is in use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    count: Arc<()>,
}

impl Pool {
    /// A pool without connections yet; no I/O.
    pub(crate) fn lazy(options: &AnyConnectOptions, config: &Config) -> Arc<Self> {
        let prepare: Arc<str> = Engine::prepare(config).into();
        let engine = Engine::of(&config.url);
        let inner = AnyPoolOptions::new()
            .max_connections(config.pool_max)
            .min_connections(0)
            .acquire_timeout(config.acquire_timeout)
            .acquire_slow_threshold(Duration::MAX)
            .idle_timeout(IDLE_TIMEOUT)
            // A connection to a file does not go away by itself; one to a server may be to the wrong
            // one by and by.
            .max_lifetime(match engine {
                Engine::Sqlite => None,
                Engine::Postgres => Some(LIFETIME),
            })
            .test_before_acquire(false)
            .before_acquire(move |connection, its| {
                let ask = engine == Engine::Postgres && its.idle_for >= UNSURE_AFTER;
                Box::pin(async move {
                    if ask {
                        let answer = time::timeout(ANSWER_TIMEOUT, connection.ping()).await;
                        return Ok(answer.is_ok_and(|answer| answer.is_ok()));
                    }
                    Ok(true)
                })
            })
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
            taken: Taken::default(),
        })
    }

    pub(crate) async fn acquire(&self) -> Result<PoolConnection<Any>, sqlx::Error> {
        self.inner.acquire().await
    }

    /// A mark for one of its connections.
    pub(crate) fn taken(&self) -> Taken {
        self.taken.clone()
    }

    /// Whether fewer connections are in use than there may be.
    pub(crate) fn has_room(&self) -> bool {
        // The pool itself holds one more.
        let taken = Arc::strong_count(&self.taken.count) - 1;
        u32::try_from(taken).is_ok_and(|taken| taken < self.config.pool_max)
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

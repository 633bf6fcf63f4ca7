//! A service's database: statements, transactions, and a pool that can be swapped.

use std::{
    ops::{Deref, DerefMut},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use gantry::{
    config::Live,
    names,
    telemetry::{
        self,
        metric::{self, Gauge, Held},
    },
};
use sqlx::{
    Any, AnyConnection, Connection as _, SqlSafeStr as _, any::AnyConnectOptions,
    pool::PoolConnection,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time,
};
use tracing::Instrument as _;

use crate::{
    Config, Error, Kind, MigrateError, Migration, Query, Statement, Transaction, UrlError, migrate,
    pool::{self, Pool},
    query::{self, On},
};

/// Asks whether the database answers.
const PING: Statement = Statement::new("store.ping", "SELECT 1 AS one");

/// How long connections of a replaced pool may take to come back before they are left to
/// themselves; each still closes when it is returned.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How many replaced pools may drain at once before a further change waits for one of them.
const DRAINING_MAX: usize = 8;

/// A service's database; clones share it.
#[derive(Debug, Clone)]
pub struct Database {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    options: AnyConnectOptions,
    pool: ArcSwap<Pool>,
    // SQLite has one writer at a time. Those of this process wait here, in order and without
    // holding a connection, instead of polling for the lock against each other.
    writers: Arc<Semaphore>,
    swaps: AtomicU64,
    pub(crate) telemetry: telemetry::db::Database,
    used: Gauge,
    max: Gauge,
}

/// A connection in use, and counted as such.
pub(crate) struct Connection {
    inner: PoolConnection<Any>,
    place: Held,
}

impl Connection {
    fn into_parts(self) -> (PoolConnection<Any>, Held) {
        (self.inner, self.place)
    }
}

impl Deref for Connection {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.inner
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.inner
    }
}

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address is none.
    #[error("read the database's address")]
    Url(#[from] UrlError),
    /// The file or its folder cannot be made.
    #[error("make {path}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It cannot be opened.
    #[error("open {url}")]
    Connect {
        /// The database.
        url: String,
        /// What it said.
        source: sqlx::Error,
    },
    /// It cannot be brought to its shape.
    #[error("migrate {url}")]
    Migrate {
        /// The database.
        url: String,
        /// Which step, and why.
        source: MigrateError,
    },
    /// Another process held it all the time.
    #[error("open {url}: not done after {timeout:?}")]
    TimedOut {
        /// The database.
        url: String,
        /// How long it was tried.
        timeout: Duration,
    },
}

impl OpenError {
    /// Whether the same may succeed later: nothing of it is the program's or the configuration's
    /// mistake.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::File { .. } | Self::Connect { .. } | Self::TimedOut { .. } => true,
            Self::Migrate { source, .. } => match source {
                MigrateError::Step { .. } | MigrateError::Bookkeeping(_) => true,
                MigrateError::OutOfOrder { .. }
                | MigrateError::Edited { .. }
                | MigrateError::Newer { .. } => false,
            },
            Self::Url(_) => false,
        }
    }
}

impl Database {
    /// Opens the database, creating it where it is missing, and runs the `migrations` it has not
    /// seen. Processes that open one database together take turns.
    ///
    /// # Errors
    ///
    /// If it is not open and in its shape within the configured time.
    pub async fn open(config: &Config, migrations: &[Migration]) -> Result<Self, OpenError> {
        sqlx::any::install_default_drivers();
        let url = config.url.to_string();
        let unmade = |source| OpenError::File {
            path: config.url.path().display().to_string(),
            source,
        };
        if let Some(parent) = config.url.path().parent() {
            tokio::fs::create_dir_all(parent).await.map_err(unmade)?;
        }
        create_private(config.url.path()).await.map_err(unmade)?;
        let driver_url = config.url.to_driver().map_err(unmade)?;
        let options = pool::options(&driver_url).map_err(|source| OpenError::Connect {
            url: url.clone(),
            source,
        })?;
        let prepared = prepare(&options, config, migrations, &url);
        match time::timeout(config.open_timeout, prepared).await {
            Ok(outcome) => outcome?,
            Err(_) => {
                return Err(OpenError::TimedOut {
                    url,
                    timeout: config.open_timeout,
                });
            }
        }
        let shared = Shared {
            pool: ArcSwap::new(Pool::lazy(&options, config)),
            options,
            writers: Arc::new(Semaphore::new(1)),
            swaps: AtomicU64::new(0),
            telemetry: telemetry::db::Database::new(config.url.system()),
            used: metric::series(&names::metric::DB_CONNECTIONS_USED, &[]),
            max: metric::series(&names::metric::DB_CONNECTIONS_MAX, &[]),
        };
        shared.max.set(f64::from(config.pool_max));
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// A statement to run by itself.
    pub fn statement(&self, statement: &Statement) -> Query<'_> {
        Query::new(On::Database(self), statement)
    }

    /// Begins a transaction that may write; `name` is for telemetry and errors.
    ///
    /// # Errors
    ///
    /// If its turn or a connection does not come in time.
    pub async fn begin(&self, name: &'static str) -> Result<Transaction, Error> {
        let shared = &self.shared;
        let mut measured = shared.telemetry.statement(name);
        let span = measured.span().clone();
        let outcome = async {
            let turn = shared.turn(name).await?;
            let connection = shared.acquire(name).await?;
            measured.connected();
            let (connection, place) = connection.into_parts();
            let begin = "BEGIN IMMEDIATE".into_sql_str();
            let begin = sqlx::Transaction::begin(connection, Some(begin));
            let inner = shared.within(name, begin).await?;
            Ok(Transaction::new(
                name,
                Arc::clone(shared),
                inner,
                (place, turn),
            ))
        }
        .instrument(span)
        .await;
        measured.end(query::how(&outcome));
        outcome
    }

    /// Answers once the database does.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub async fn ping(&self) -> Result<(), Error> {
        self.statement(&PING).fetch_one().await?.integer("one")?;
        Ok(())
    }

    /// Puts `config` into effect for whatever begins from now on; a change of what only takes
    /// effect at a restart is left out.
    ///
    /// sqlx cannot resize a pool, so a new one takes the old one's place. Statements on the old
    /// pool finish; those that waited for one of its connections take one of the new pool.
    /// Returns when the old pool is drained, or after half a minute.
    pub async fn apply(&self, config: &Config) {
        if let Some(old) = self.swap(config) {
            drain(&old).await;
        }
    }

    /// Applies `config` as it is now, and whenever it changes; runs until it is dropped.
    ///
    /// A change takes effect while a few pools that were replaced before it still drain.
    pub async fn follow(self, config: Live<Config>) {
        let mut changes = config.subscribe();
        // What was published between the opening and this moment counts as a change.
        changes.mark_changed();
        let mut draining = FuturesUnordered::new();
        loop {
            // Cancel-safe: a pool stays among the draining ones until it is empty, and a change
            // that was not looked at is still one in the next round. Draining comes first, so
            // that a pool is closed, and those that wait for it move on, as soon as it is replaced.
            tokio::select! {
                biased;
                Some(()) = draining.next() => {}
                next = changes.changed(), if draining.len() < DRAINING_MAX => {
                    if next.is_err() {
                        break;
                    }
                    let config = Arc::clone(&changes.borrow_and_update());
                    if let Some(old) = self.swap(&config) {
                        draining.push(async move { drain(&old).await });
                    }
                }
            }
        }
        while draining.next().await.is_some() {}
    }

    /// Puts a pool of `config` in the place of the one there is; that one is returned.
    fn swap(&self, config: &Config) -> Option<Arc<Pool>> {
        let shared = &self.shared;
        if shared.pool.load().config == *config {
            return None;
        }
        let old = shared.pool.swap(Pool::lazy(&shared.options, config));
        shared.swaps.fetch_add(1, Ordering::Relaxed);
        shared.max.set(f64::from(config.pool_max));
        tracing::info!(
            connections_before = old.config.pool_max,
            connections_now = config.pool_max,
            "database pool swapped"
        );
        Some(old)
    }

    /// Closes all connections once they are back; the last one of a SQLite file folds its log in.
    pub async fn close(&self) {
        let pool = self.shared.pool.load_full();
        if time::timeout(DRAIN_TIMEOUT, pool.close()).await.is_err() {
            tracing::warn!("database connections are still in use at close");
        }
    }

    /// Connections open, and those of them nobody uses.
    #[must_use]
    pub fn connections(&self) -> (usize, usize) {
        self.shared.pool.load().connections()
    }

    /// How often the pool was swapped.
    #[must_use]
    pub fn swaps(&self) -> u64 {
        self.shared.swaps.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// Runs `work` within the time a statement may take.
    pub(crate) async fn within<T>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, Error> {
        let timeout = self.pool.load().config.statement_timeout;
        match time::timeout(timeout, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(Error::new(name, error)),
            Err(_) => Err(Error::of_kind(name, Kind::TimedOut)),
        }
    }

    pub(crate) async fn acquire(&self, statement: &'static str) -> Result<Connection, Error> {
        loop {
            let pool = self.pool.load_full();
            match pool.acquire().await {
                Ok(inner) => {
                    let place = self.used.hold();
                    return Ok(Connection { inner, place });
                }
                // The pool was swapped between load and acquire, or while waiting: take the new
                // one. Each round needs a swap, so there is an end.
                Err(sqlx::Error::PoolClosed) if !Arc::ptr_eq(&pool, &self.pool.load()) => {}
                Err(error) => return Err(Error::new(statement, error)),
            }
        }
    }

    async fn turn(&self, name: &'static str) -> Result<OwnedSemaphorePermit, Error> {
        let timeout = self.pool.load().config.acquire_timeout;
        let turn = Arc::clone(&self.writers).acquire_owned();
        match time::timeout(timeout, turn).await {
            Ok(turn) => Ok(turn.expect("the semaphore is never closed")),
            Err(_) => Err(Error::of_kind(name, Kind::Busy)),
        }
    }
}

/// Closes a pool that was replaced, as its connections come back.
async fn drain(old: &Pool) {
    if time::timeout(DRAIN_TIMEOUT, old.close()).await.is_err() {
        tracing::warn!("connections of the replaced database pool are still in use");
    }
}

/// Creates the file, where it is missing, for this user alone: it may hold hashes and keys. SQLite
/// gives its log the same mode.
async fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = tokio::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    options.mode(0o600);
    options.open(path).await.map(drop)
}

/// Turns on the write-ahead log and migrates, over a connection of its own.
async fn prepare(
    options: &AnyConnectOptions,
    config: &Config,
    migrations: &[Migration],
    url: &str,
) -> Result<(), OpenError> {
    let failed = |source| OpenError::Connect {
        url: url.to_owned(),
        source,
    };
    let mut connection = AnyConnection::connect_with(options).await.map_err(failed)?;
    write_ahead(&mut connection, config).await.map_err(failed)?;
    migrate::run(&mut connection, migrations)
        .await
        .map_err(|source| OpenError::Migrate {
            url: url.to_owned(),
            source,
        })?;
    connection.close().await.map_err(failed)
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

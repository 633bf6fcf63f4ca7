//! A service's database: statements, transactions, and a pool that can be swapped.

use std::{
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
        metric::{self, Gauge},
    },
};
use sqlx::any::AnyConnectOptions;
use tokio::time;
use tracing::Instrument as _;

use crate::{
    Config, Error, Kind, Migration, OpenError, Query, Statement, Transaction,
    connection::Connection,
    engine::Engine,
    migrate::History,
    open,
    pool::Pool,
    query::{self, On},
    step::Step,
    transaction::Open,
    turn::{Turn, Turns},
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
    pub(crate) engine: Engine,
    turns: Arc<Turns>,
    swaps: AtomicU64,
    pub(crate) telemetry: telemetry::db::Database,
    used: Gauge,
    max: Gauge,
    #[cfg(any(test, feature = "testing"))]
    steps: Option<Arc<dyn crate::testing::Steps>>,
}

impl Database {
    /// Opens the database, creating it where it is missing, and runs the `migrations` it has not
    /// seen. Processes that open one database together take turns.
    ///
    /// # Errors
    ///
    /// If it is not open and in its shape within the configured time.
    pub async fn open(config: &Config, migrations: &[Migration]) -> Result<Self, OpenError> {
        let options = open::prepare(config, migrations).await?;
        Ok(Self::over(options, config))
    }

    /// Runs the `migrations` of a library that it has not seen: so a library brings its own tables
    /// into the database of a service. Each `library`, by its name, has a history of its own, beside
    /// that of the service; its tables begin with that name, so that none is there twice.
    ///
    /// # Errors
    ///
    /// As [`Database::open`].
    pub async fn extend(&self, library: &str, migrations: &[Migration]) -> Result<(), OpenError> {
        let config = self.shared.pool.load().config.clone();
        let history = History::of_library(library, migrations);
        open::extend(&self.shared.options, &config, history).await
    }

    /// Opens a database that another program keeps, as it is: nothing is made, and nothing is
    /// brought to a shape. For programs that look at what services have written.
    ///
    /// # Errors
    ///
    /// If it is not there, or not open within the configured time.
    pub async fn open_existing(config: &Config) -> Result<Self, OpenError> {
        Ok(Self::over(open::find(config).await?, config))
    }

    fn over(options: AnyConnectOptions, config: &Config) -> Self {
        let shared = Shared {
            pool: ArcSwap::new(Pool::lazy(&options, config)),
            options,
            engine: Engine::of(&config.url),
            turns: Arc::new(Turns::new(config)),
            swaps: AtomicU64::new(0),
            telemetry: telemetry::db::Database::new(config.url.system()),
            used: metric::series(&names::metric::DB_CONNECTIONS_USED, &[]),
            max: metric::series(&names::metric::DB_CONNECTIONS_MAX, &[]),
            #[cfg(any(test, feature = "testing"))]
            steps: None,
        };
        shared.max.set(f64::from(config.pool_max));
        Self {
            shared: Arc::new(shared),
        }
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
        let open = shared.begin(name).await?;
        Ok(Transaction::new(name, Arc::clone(shared), Some(open)))
    }

    /// A transaction that begins with its first statement, which fails where [`Database::begin`]
    /// would. Until then it has no connection and keeps nobody from writing: whoever waits for something
    /// else first holds up nobody. One without a statement never begins; its commit does nothing.
    #[must_use]
    pub fn begin_lazily(&self, name: &'static str) -> Transaction {
        Transaction::new(name, Arc::clone(&self.shared), None)
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
    /// Begins a transaction.
    pub(crate) async fn begin(&self, name: &'static str) -> Result<Open, Error> {
        let mut measured = self.telemetry.statement(name);
        let span = measured.span().clone();
        let outcome = async {
            let turn = self.turn(name).await?;
            let mut connection = self.acquire(name).await?;
            measured.connected();
            let begun = connection.begin(async |connection| {
                let begin = sqlx::raw_sql(self.engine.begin()).execute(connection);
                self.within(Step::Begin(name), begin).await.map(drop)
            });
            begun.await?;
            Ok(Open {
                connection,
                _turn: turn,
            })
        }
        .instrument(span)
        .await;
        measured.end(query::how(&outcome));
        outcome
    }

    /// Runs `work` within the time a statement may take.
    pub(crate) async fn within<T>(
        &self,
        step: Step,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, Error> {
        let timeout = self.pool.load().config.statement_timeout;
        let name = step.name();
        #[cfg(any(test, feature = "testing"))]
        let work = crate::testing::stepped(self.steps.as_deref(), step, work);
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
                    let place = (self.used.hold(), pool.taken());
                    let connection = Connection::new(inner, self.engine, place);
                    #[cfg(any(test, feature = "testing"))]
                    let connection = connection.given_back_at_once(self.steps.is_some());
                    return Ok(connection);
                }
                // The pool was swapped between load and acquire, or while waiting: take the new
                // one. Each round needs a swap, so there is an end.
                Err(sqlx::Error::PoolClosed) if !Arc::ptr_eq(&pool, &self.pool.load()) => {}
                // There was room for one more, and a server did not take it.
                Err(sqlx::Error::PoolTimedOut)
                    if self.engine == Engine::Postgres && pool.has_room() =>
                {
                    return Err(Error::of_kind(statement, Kind::Unavailable));
                }
                Err(error) => return Err(Error::new(statement, error)),
            }
        }
    }

    /// The same with `steps`.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn in_steps(&self, steps: Arc<dyn crate::testing::Steps>) -> Self {
        Self {
            options: self.options.clone(),
            pool: ArcSwap::new(self.pool.load_full()),
            engine: self.engine,
            turns: Arc::clone(&self.turns),
            swaps: AtomicU64::new(0),
            telemetry: self.telemetry.clone(),
            used: self.used.clone(),
            max: self.max.clone(),
            steps: Some(steps),
        }
    }

    /// Most connections open at once.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn connections_max(&self) -> usize {
        usize::try_from(self.pool.load().config.pool_max).unwrap_or(usize::MAX)
    }

    /// The turn to write, where writers take turns: had without holding a connection.
    pub(crate) async fn turn(&self, name: &'static str) -> Result<Option<Turn>, Error> {
        let pool = self.pool.load_full();
        self.turns.take(name, &pool.config).await
    }
}

/// Closes a pool that was replaced, as its connections come back.
async fn drain(old: &Pool) {
    if time::timeout(DRAIN_TIMEOUT, old.close()).await.is_err() {
        tracing::warn!("connections of the replaced database pool are still in use");
    }
}

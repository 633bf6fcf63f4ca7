//! Named statements, and running them.

use gantry::telemetry::db::Outcome;
use sqlx::{
    AnyConnection, SqlSafeStr as _,
    any::{AnyArguments, AnyRow},
};
use tracing::Instrument as _;

use crate::{
    Database, Error, Kind, Row, Transaction, Value, connection::Connection, database::Shared,
    engine::Engine, step::Step,
};

/// A piece of SQL and the name by which telemetry and errors know it.
///
/// Names are `service.what`, fixed in the program. Placeholders are `$1`, `$2`, …. One that does not
/// begin with `SELECT` is taken for one that writes, and by itself waits for its turn on SQLite.
#[derive(Debug, Clone, Copy)]
pub struct Statement {
    name: &'static str,
    sql: &'static str,
    on_server: Option<&'static str>,
}

impl Statement {
    /// The statement `sql`, known as `name`.
    #[must_use]
    pub const fn new(name: &'static str, sql: &'static str) -> Self {
        Self {
            name,
            sql,
            on_server: None,
        }
    }

    /// The same with the text `sql` on a server: where what is meant cannot be said in one way, as in
    /// `FOR UPDATE SKIP LOCKED`, which a file with one writer neither has nor needs.
    #[must_use]
    pub const fn on_server(self, sql: &'static str) -> Self {
        Self {
            on_server: Some(sql),
            ..self
        }
    }

    /// The same, known as `name`: where a server is to do it in another way.
    #[must_use]
    pub const fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) const fn sql(&self) -> &'static str {
        self.sql
    }

    fn sql_on(&self, engine: Engine) -> &'static str {
        match (engine, self.on_server) {
            (Engine::Postgres, Some(sql)) => sql,
            _ => self.sql,
        }
    }

    /// Whether it is not known to only read.
    fn may_write(&self) -> bool {
        let first = self.sql.split_whitespace().next().unwrap_or_default();
        !first.eq_ignore_ascii_case("SELECT")
    }
}

/// A statement with its values, ready to run.
#[must_use = "a query does nothing until it is run"]
pub struct Query<'a> {
    on: On<'a>,
    statement: Statement,
    arguments: AnyArguments,
}

impl std::fmt::Debug for Query<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query")
            .field("statement", &self.statement.name)
            .finish_non_exhaustive()
    }
}

/// What runs the query.
pub(crate) enum On<'a> {
    Database(&'a Database),
    Transaction(&'a mut Transaction),
}

/// How much of an answer is wanted.
#[derive(Clone, Copy)]
enum Want {
    Count,
    Rows,
}

#[derive(Default)]
struct Answer {
    count: u64,
    rows: Vec<AnyRow>,
}

impl<'a> Query<'a> {
    pub(crate) fn new(on: On<'a>, statement: &Statement) -> Self {
        Self {
            on,
            statement: *statement,
            arguments: AnyArguments::default(),
        }
    }

    /// Gives the next placeholder its value.
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        value.into().add_to(&mut self.arguments);
        self
    }

    /// Runs it and answers how many rows it changed.
    ///
    /// # Errors
    ///
    /// If it could not be run; outside a transaction its effect may be unknown.
    pub async fn execute(self) -> Result<u64, Error> {
        Ok(self.run(Want::Count).await?.count)
    }

    /// Runs it and answers all rows: bound the number in the statement.
    ///
    /// # Errors
    ///
    /// If it could not be run.
    pub async fn fetch_all(self) -> Result<Vec<Row>, Error> {
        let name = self.statement.name;
        let answer = self.run(Want::Rows).await?;
        Ok(answer
            .rows
            .into_iter()
            .map(|row| Row::new(name, row))
            .collect())
    }

    /// Runs it and answers the first row, where there is one; no further rows are expected.
    ///
    /// # Errors
    ///
    /// If it could not be run.
    pub async fn fetch_optional(self) -> Result<Option<Row>, Error> {
        let name = self.statement.name;
        let answer = self.run(Want::Rows).await?;
        Ok(answer
            .rows
            .into_iter()
            .next()
            .map(|row| Row::new(name, row)))
    }

    /// Runs a statement that always answers a row, and answers it.
    ///
    /// # Errors
    ///
    /// If it could not be run or answered none.
    pub async fn fetch_one(self) -> Result<Row, Error> {
        let name = self.statement.name;
        self.fetch_optional()
            .await?
            .ok_or(Error::of_kind(name, Kind::Broken))
    }

    async fn run(self, want: Want) -> Result<Answer, Error> {
        let Self {
            on,
            statement,
            arguments,
        } = self;
        match on {
            On::Database(database) => {
                let shared = &database.shared;
                let mut measured = shared.telemetry.statement(statement.name);
                let span = measured.span().clone();
                let outcome = async {
                    let _turn = if statement.may_write() {
                        shared.turn(statement.name).await?
                    } else {
                        None
                    };
                    let mut connection = shared.acquire(statement.name).await?;
                    measured.connected();
                    bounded(shared, &mut connection, statement, arguments, want).await
                }
                .instrument(span)
                .await;
                measured.end(how(&outcome));
                outcome
            }
            On::Transaction(transaction) => {
                let (shared, connection, failed) = transaction.begun().await?;
                let mut measured = shared.telemetry.statement(statement.name);
                measured.connected();
                let span = measured.span().clone();
                let outcome = bounded(shared, connection, statement, arguments, want)
                    .instrument(span)
                    .await;
                *failed |= outcome.is_err();
                measured.end(how(&outcome));
                outcome
            }
        }
    }
}

/// How it ended, for telemetry.
pub(crate) fn how<T>(outcome: &Result<T, Error>) -> Outcome {
    match outcome {
        Ok(_) => Outcome::Ok,
        Err(_) => Outcome::Error,
    }
}

async fn bounded(
    shared: &Shared,
    connection: &mut Connection,
    statement: Statement,
    arguments: AnyArguments,
    want: Want,
) -> Result<Answer, Error> {
    let sql = statement.sql_on(shared.engine);
    let run = connection.run(async |connection| {
        let run = perform(connection, sql, arguments, want);
        shared.within(Step::Statement(statement.name), run).await
    });
    run.await
}

async fn perform(
    connection: &mut AnyConnection,
    sql: &'static str,
    arguments: AnyArguments,
    want: Want,
) -> Result<Answer, sqlx::Error> {
    let query = sqlx::query_with(sql.into_sql_str(), arguments);
    Ok(match want {
        Want::Count => Answer {
            count: query.execute(connection).await?.rows_affected(),
            rows: Vec::new(),
        },
        // To the end also where the first row is enough: a server sends rows of a statement that
        // writes before it has kept what it wrote.
        Want::Rows => Answer {
            count: 0,
            rows: query.fetch_all(connection).await?,
        },
    })
}

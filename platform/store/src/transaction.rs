//! Several statements that happen together or not at all.

use std::sync::Arc;

use tracing::Instrument as _;

use crate::{
    Error, Kind, Query, Statement,
    connection::Connection,
    database::Shared,
    engine::Engine,
    query::{self, On},
    step::Step,
    turn::Turn,
};

/// The names under which the ends of transactions are measured.
const COMMIT: Statement = Statement::new("store.commit", "COMMIT");
const ROLLBACK: Statement = Statement::new("store.rollback", "ROLLBACK");

/// Waits until no other transaction of the schema has the same to itself, and has it from then on.
const ALONE: Statement = Statement::new(
    "store.alone",
    "SELECT 1 AS one FROM
         pg_advisory_xact_lock(hashtextextended(current_schema() || ' alone with ' || $1, 0))",
);

/// An open transaction that may write. Dropped without [`Transaction::commit`], it never happened.
///
/// On SQLite it is the one writer, so what it reads stays true until it commits. On PostgreSQL
/// others write beside it: a row that it has changed is its own until the end, and each statement
/// sees what others have committed by then. A statement that relies on something says so in its
/// own `WHERE`; what relies on rows that were read before, or that are not there, is done
/// [alone](Transaction::alone).
///
/// After a statement that failed it can only be rolled back.
pub struct Transaction {
    name: &'static str,
    shared: Arc<Shared>,
    /// None until it has begun.
    open: Option<Open>,
    failed: bool,
    after_commit: Vec<Box<dyn FnOnce() + Send>>,
}

/// What a transaction that has begun has to itself.
pub(crate) struct Open {
    pub(crate) connection: Connection,
    // Behind the connection, so that the next writer of this process starts after a commit or a
    // rollback that was waited for. Dropping only asks for the rollback: then the next writer may
    // meet the old one for a moment, and waits for it as for one of another process.
    pub(crate) _turn: Option<Turn>,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Transaction {
    pub(crate) fn new(name: &'static str, shared: Arc<Shared>, open: Option<Open>) -> Self {
        Self {
            name,
            shared,
            open,
            failed: false,
            after_commit: Vec::new(),
        }
    }

    /// Whether it has begun; one that has not has no connection, and keeps nobody from writing.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.open.is_some()
    }

    /// A statement to run in this transaction.
    pub fn statement(&mut self, statement: &Statement) -> Query<'_> {
        Query::new(On::Transaction(self), statement)
    }

    /// Keeps every other transaction of the service that asks for the same away until the end of
    /// this one: what they would write stays as it is read here. The first thing a transaction does.
    ///
    /// # Errors
    ///
    /// If another one does not end in time.
    pub async fn alone(&mut self, with: &'static str) -> Result<(), Error> {
        if self.shared.engine == Engine::Postgres {
            self.statement(&ALONE).bind(with).fetch_one().await?;
        }
        Ok(())
    }

    /// Has `act` run once the transaction is known to be committed, and never otherwise; it must not
    /// block. Where the outcome of a commit is unknown, as where its caller leaves, it does not run:
    /// what relies on it looks by itself now and then.
    pub fn after_commit(&mut self, act: impl FnOnce() + Send + 'static) {
        self.after_commit.push(Box::new(act));
    }

    /// Makes everything it did permanent and visible.
    ///
    /// # Errors
    ///
    /// If it could not be; with [`Kind::TimedOut`] and [`Kind::Unavailable`] it may have been.
    pub async fn commit(mut self) -> Result<(), Error> {
        if self.failed {
            let name = self.name;
            self.rollback().await?;
            return Err(Error::of_kind(name, Kind::Broken));
        }
        let after_commit = std::mem::take(&mut self.after_commit);
        let step = Step::Commit(self.name);
        self.end(COMMIT, step).await?;
        for act in after_commit {
            act();
        }
        Ok(())
    }

    /// Undoes everything it did, and waits for that; dropping it does the same unseen, and costs a
    /// new connection.
    ///
    /// # Errors
    ///
    /// If the database did not answer; nothing is kept all the same.
    pub async fn rollback(self) -> Result<(), Error> {
        let step = Step::Rollback(self.name);
        self.end(ROLLBACK, step).await
    }

    async fn end(mut self, how: Statement, step: Step) -> Result<(), Error> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let mut measured = self.shared.telemetry.statement(how.name());
        measured.connected();
        let span = measured.span().clone();
        let work = open.connection.end(async |connection| {
            let end = sqlx::raw_sql(how.sql()).execute(connection);
            self.shared.within(step, end).await.map(drop)
        });
        let outcome = work.instrument(span).await;
        measured.end(query::how(&outcome));
        outcome
    }

    /// Its connection, for a statement to run; begins it where that has not happened. Where that
    /// fails, it has failed as after a statement.
    pub(crate) async fn begun(&mut self) -> Result<(&Shared, &mut Connection, &mut bool), Error> {
        if self.open.is_none() {
            let begun = self.shared.begin(self.name).await;
            self.failed |= begun.is_err();
            self.open = Some(begun?);
        }
        let open = self.open.as_mut().expect("it has begun");
        Ok((&self.shared, &mut open.connection, &mut self.failed))
    }
}

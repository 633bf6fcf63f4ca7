//! Several statements that happen together or not at all.

use std::sync::Arc;

use tracing::Instrument as _;

use crate::{
    Error, Kind, Query, Statement,
    connection::Connection,
    database::Shared,
    engine::Engine,
    query::{self, On},
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
    connection: Connection,
    failed: bool,
    after_commit: Vec<Box<dyn FnOnce() + Send>>,
    // Behind the connection, so that the next writer of this process starts after a commit or a
    // rollback that was waited for. Dropping only asks for the rollback: then the next writer may
    // meet the old one for a moment, and waits for it as for one of another process.
    _turn: Option<Turn>,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Transaction {
    pub(crate) fn new(
        name: &'static str,
        shared: Arc<Shared>,
        connection: Connection,
        turn: Option<Turn>,
    ) -> Self {
        Self {
            name,
            shared,
            connection,
            failed: false,
            after_commit: Vec::new(),
            _turn: turn,
        }
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
        self.end(COMMIT).await?;
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
        self.end(ROLLBACK).await
    }

    async fn end(mut self, how: Statement) -> Result<(), Error> {
        let mut measured = self.shared.telemetry.statement(how.name());
        measured.connected();
        let span = measured.span().clone();
        let work = self.connection.end(async |connection| {
            let end = sqlx::raw_sql(how.sql()).execute(connection);
            self.shared.within(self.name, end).await.map(drop)
        });
        let outcome = work.instrument(span).await;
        measured.end(query::how(&outcome));
        outcome
    }

    pub(crate) fn parts(&mut self) -> (&Shared, &mut Connection, &mut bool) {
        (&self.shared, &mut self.connection, &mut self.failed)
    }
}

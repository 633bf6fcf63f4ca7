//! Several statements that happen together or not at all.

use std::sync::Arc;

use futures_util::{FutureExt as _, future::BoxFuture};
use gantry::telemetry::metric::Held;
use sqlx::{Any, AnyConnection};
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument as _;

use crate::{
    Error, Query, Statement,
    database::Shared,
    query::{self, On},
};

/// The names under which the ends of transactions are measured.
const COMMIT: &str = "store.commit";
const ROLLBACK: &str = "store.rollback";

/// An open transaction that may write.
///
/// It sees and keeps the database as it was when it began: on SQLite it is the one writer, so what
/// it reads stays true until it commits. Dropped without [`Transaction::commit`], it never
/// happened.
pub struct Transaction {
    name: &'static str,
    shared: Arc<Shared>,
    inner: sqlx::Transaction<'static, Any>,
    // Behind the transaction, so that the next writer of this process starts after a commit or a
    // rollback that was waited for. Dropping only asks for the rollback: then the next writer may
    // meet the old one for a moment, and waits for it as for one of another process.
    _places: (Held, OwnedSemaphorePermit),
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
        inner: sqlx::Transaction<'static, Any>,
        places: (Held, OwnedSemaphorePermit),
    ) -> Self {
        Self {
            name,
            shared,
            inner,
            _places: places,
        }
    }

    /// A statement to run in this transaction.
    pub fn statement(&mut self, statement: &Statement) -> Query<'_> {
        Query::new(On::Transaction(self), statement)
    }

    /// Makes everything it did permanent and visible.
    ///
    /// # Errors
    ///
    /// If it could not be; with [`Kind::TimedOut`](crate::Kind::TimedOut) and
    /// [`Kind::Unavailable`](crate::Kind::Unavailable) it may have been.
    pub async fn commit(self) -> Result<(), Error> {
        self.end(COMMIT, |inner| inner.commit().boxed()).await
    }

    /// Undoes everything it did, and waits for that; dropping it does the same unseen.
    ///
    /// # Errors
    ///
    /// If the database did not answer; nothing is kept all the same.
    pub async fn rollback(self) -> Result<(), Error> {
        self.end(ROLLBACK, |inner| inner.rollback().boxed()).await
    }

    async fn end(
        self,
        how: &'static str,
        end: fn(sqlx::Transaction<'static, Any>) -> BoxFuture<'static, Result<(), sqlx::Error>>,
    ) -> Result<(), Error> {
        let mut measured = self.shared.telemetry.statement(how);
        measured.connected();
        let span = measured.span().clone();
        let work = self.shared.within(self.name, end(self.inner));
        let outcome = work.instrument(span).await;
        measured.end(query::how(&outcome));
        outcome
    }

    pub(crate) fn parts(&mut self) -> (&Shared, &mut AnyConnection) {
        (&self.shared, &mut self.inner)
    }
}

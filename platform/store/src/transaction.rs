//! Several statements that happen together or not at all.

use std::sync::Arc;

use sqlx::{Any, AnyConnection};
use tokio::{sync::OwnedSemaphorePermit, time};

use crate::{Error, Kind, Query, Statement, database::Shared, query::On};

/// An open transaction that may write.
///
/// It sees and keeps the database as it was when it began: on SQLite it is the one writer, so what
/// it reads stays true until it commits. Dropped without [`Transaction::commit`], it never
/// happened.
pub struct Transaction {
    name: &'static str,
    shared: Arc<Shared>,
    inner: sqlx::Transaction<'static, Any>,
    // Behind the transaction, so that the next writer of this process starts after its end.
    _turn: Option<OwnedSemaphorePermit>,
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
        turn: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            name,
            shared,
            inner,
            _turn: turn,
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
    /// If it could not be; with [`Kind::TimedOut`] and [`Kind::Unavailable`] it may have been.
    pub async fn commit(self) -> Result<(), Error> {
        let timeout = self.shared.statement_timeout();
        match time::timeout(timeout, self.inner.commit()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::new(self.name, error)),
            Err(_) => Err(Error::of_kind(self.name, Kind::TimedOut)),
        }
    }

    /// Undoes everything it did, and waits for that; dropping it does the same unseen.
    ///
    /// # Errors
    ///
    /// If the database did not answer; nothing is kept all the same.
    pub async fn rollback(self) -> Result<(), Error> {
        let timeout = self.shared.statement_timeout();
        match time::timeout(timeout, self.inner.rollback()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::new(self.name, error)),
            Err(_) => Err(Error::of_kind(self.name, Kind::TimedOut)),
        }
    }

    pub(crate) fn parts(&mut self) -> (&Shared, &mut AnyConnection) {
        (&self.shared, &mut self.inner)
    }
}

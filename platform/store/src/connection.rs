//! A connection in use.

use gantry::telemetry::metric::Held;
use sqlx::{Any, AnyConnection, pool::PoolConnection};
use tokio::{runtime::Handle, time};

use crate::{
    Error, Kind,
    engine::Engine,
    pool::{ANSWER_TIMEOUT, Taken},
};

/// A connection in use, and counted as such. It goes back to its pool when dropped, unless nobody
/// knows how it stands: then it is closed, which undoes what it has not committed.
pub(crate) struct Connection {
    inner: PoolConnection<Any>,
    engine: Engine,
    /// Whether work on it was begun whose end nobody has seen.
    unsure: bool,
    /// Whether a transaction is open on it.
    in_transaction: bool,
    /// Whether it is back in its pool once it is dropped.
    #[cfg(any(test, feature = "testing"))]
    at_once: bool,
    _place: (Held, Taken),
}

impl Connection {
    pub(crate) fn new(inner: PoolConnection<Any>, engine: Engine, place: (Held, Taken)) -> Self {
        Self {
            inner,
            engine,
            unsure: false,
            in_transaction: false,
            #[cfg(any(test, feature = "testing"))]
            at_once: false,
            _place: place,
        }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn given_back_at_once(mut self, at_once: bool) -> Self {
        self.at_once = at_once;
        self
    }

    /// Has `work` done on it.
    pub(crate) async fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut AnyConnection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        // A caller that leaves in the middle drops this future here.
        self.unsure = true;
        let outcome = work(&mut self.inner).await;
        self.unsure = outcome.as_ref().is_err_and(|error| match error.kind() {
            Kind::TimedOut | Kind::Unavailable => true,
            Kind::Busy | Kind::Full | Kind::Conflict | Kind::Broken => false,
        });
        outcome
    }

    /// Has a transaction begun on it by `work`.
    pub(crate) async fn begin(
        &mut self,
        work: impl AsyncFnOnce(&mut AnyConnection) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // Before it is known: a caller may leave while the database begins it.
        self.in_transaction = true;
        let outcome = self.run(work).await;
        self.in_transaction = outcome.is_ok() || self.unsure;
        outcome
    }

    /// Has the transaction ended by `work`.
    pub(crate) async fn end(
        &mut self,
        work: impl AsyncFnOnce(&mut AnyConnection) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let outcome = self.run(work).await;
        self.in_transaction = outcome.is_err();
        outcome
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        #[cfg(any(test, feature = "testing"))]
        if self.at_once {
            crate::testing::give_back(&mut self.inner, self.in_transaction);
            return;
        }
        // The driver of files waits for what was given up and uses the connection again. That of
        // servers would wait as well, for one that may never answer.
        let unsure = self.unsure && self.engine == Engine::Postgres;
        if unsure || self.in_transaction {
            self.inner.close_on_drop();
        } else if self.engine == Engine::Postgres
            && let Ok(runtime) = Handle::try_current()
        {
            // A pool asks what it is given back whether it is well, and waits for the answer as long
            // as the network takes to give up: a place lost for a quarter of an hour where that
            // falls silent. Given up here, the connection is closed, and the place free. It is over
            // within that second, so nobody owns it.
            runtime.spawn(time::timeout(ANSWER_TIMEOUT, self.inner.return_to_pool()));
        }
    }
}

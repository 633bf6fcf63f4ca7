//! A database in the steps of a test, by a clock that the test moves.
//!
//! Of a file the driver does every statement in a thread of its own. A test under a paused clock would
//! see time pass while it waits for that, and whatever else goes on would be quicker or slower by
//! chance. [In steps](Database::in_steps) a statement is done before whoever asks for it goes on, and
//! in front of and behind each the test says when that is, and whether: so a run has one order, that of
//! its seed, and can end between any two statements.

use std::{
    cell::Cell,
    fmt,
    marker::PhantomData,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use tokio::{task::coop, time::Instant};

use sqlx::{Any, pool::PoolConnection};

pub use crate::step::Step;

use crate::{Database, Error, Timestamp};

/// A wait of a test.
pub type Wait<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// What stands between a database and whoever uses it.
///
/// What these waits take is within the time that a statement may take. Dropped in them, a statement was
/// not done before, and was done after.
pub trait Steps: fmt::Debug + Send + Sync + 'static {
    /// Waits before something is done.
    fn before(&self, step: Step) -> Wait<'_>;

    /// Waits before whoever asked hears that it was done.
    fn after(&self, step: Step) -> Wait<'_>;
}

impl Database {
    /// The same database in `steps`: with the connections and the turns of this one.
    ///
    /// Connections that are made while a clock stands still let it go on meanwhile: have as many as are
    /// needed [at hand](Database::fill) before that.
    #[must_use]
    pub fn in_steps(&self, steps: Arc<dyn Steps>) -> Self {
        Self {
            shared: Arc::new(self.shared.in_steps(steps)),
        }
    }

    /// Opens all the connections there may be.
    ///
    /// # Errors
    ///
    /// If one cannot be had.
    pub async fn fill(&self) -> Result<(), Error> {
        let max = self.shared.connections_max();
        let mut all = Vec::with_capacity(max);
        while all.len() < max {
            let connection = self.shared.acquire("store.fill").await?;
            all.push(connection.given_back_at_once(true));
        }
        Ok(())
    }
}

thread_local! {
    static CLOCK: Cell<Option<(Instant, Timestamp)>> = const { Cell::new(None) };
}

/// While it is there, [`Timestamp::now`] follows tokio's clock on this thread, paused or not.
#[derive(Debug)]
#[must_use = "dropped, it is the wall clock again"]
pub struct Clock {
    _this_thread: PhantomData<*const ()>,
}

impl Clock {
    /// It is `now`, and from here on as much later as tokio's clock says.
    pub fn at(now: Timestamp) -> Self {
        CLOCK.set(Some((Instant::now(), now)));
        Self {
            _this_thread: PhantomData,
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        CLOCK.set(None);
    }
}

/// What a test says that time it is.
pub(crate) fn now() -> Option<Timestamp> {
    CLOCK.get().map(|(since, then)| then.after(since.elapsed()))
}

/// Does `work` as `steps` say, where there are any.
pub(crate) async fn stepped<T>(
    steps: Option<&dyn Steps>,
    step: Step,
    work: impl Future<Output = T>,
) -> T {
    let Some(steps) = steps else {
        return work.await;
    };
    steps.before(step).await;
    let done = at_once(work).await;
    steps.after(step).await;
    done
}

/// Does `work` before it returns, and nothing else on this thread meanwhile.
async fn at_once<F: Future>(work: F) -> F::Output {
    AtOnce(Box::pin(coop::unconstrained(work))).await
}

/// Gives a connection back, with nothing left of its transaction.
pub(crate) fn give_back(connection: &mut PoolConnection<Any>, in_transaction: bool) {
    if in_transaction {
        let rollback = sqlx::raw_sql("ROLLBACK").execute(&mut **connection);
        // There may be none, where it was not begun.
        drop(wait(pin!(rollback)));
    }
    wait(pin!(connection.return_to_pool()));
}

struct AtOnce<F>(Pin<Box<F>>);

impl<F: Future> Future for AtOnce<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<F::Output> {
        Poll::Ready(wait(self.0.as_mut()))
    }
}

fn wait<F: Future>(mut work: Pin<&mut F>) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut context) {
            return done;
        }
        thread::park();
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests;

//! Takes orders from placed to final, across the orders' database and the catalog.
//!
//! ```text
//! place ─▶ PENDING ─ reserve, confirm at the catalog ─▶ CONFIRMED ─ time ─▶ COMPLETED
//!              │                                            │
//!              └────────────▶ CANCELLED ◀───────────────────┘
//!                                 └ release at the catalog, until it has been done
//! ```
//!
//! Each arrow is one transaction here or one idempotent call there, under the order's identifier.
//! A process can end between any two of them: [`Placing::advance_due`] and its like of any replica
//! go on from what is written down. Several may take them for one order at once, each knowing only what it was
//! answered: whoever cancels releases, and the catalog refuses what comes after that.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gantry::{config::Live, status};
use gantry_store::{Error, Timestamp};
use tonic::{Code, Status};

use crate::{
    catalog::{Catalog, Held, Reserved},
    changes::Changes,
    config::Orders,
    domain::{CancelReason, Line, Order, OrderState, total},
    store::{CancelFrom, Store},
};

/// Orders that wait for the catalog at once, of those that are due. One that hangs costs a call its
/// whole deadline; one that comes back is not to be met by every order there is.
const STEPS_MAX: usize = 8;

/// Moves orders; clones share everything.
#[derive(Debug, Clone)]
pub struct Placing {
    store: Store,
    catalog: Catalog,
    changes: Changes,
    config: Live<Orders>,
}

/// What became of a wish to cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancelled {
    /// It is cancelled, now or since before.
    Done,
    /// It is completed.
    TooLate,
}

impl Placing {
    /// Moves the orders of `store` with the stock of `catalog`, telling `changes`.
    #[must_use]
    pub fn new(store: Store, catalog: Catalog, changes: Changes, config: Live<Orders>) -> Self {
        Self {
            store,
            catalog,
            changes,
            config,
        }
    }

    /// Takes a pending order as far as it goes now. While the catalog is away it stays pending, and
    /// the sweeper goes on.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn advance(&self, order: &Order) -> Result<(), Error> {
        let reserved = match self.catalog.reserve(&order.id, &order.lines).await {
            Ok(reserved) => reserved,
            Err(error) => return self.unanswered(order, &error).await,
        };
        let priced = match reserved {
            Reserved::Priced(priced) => priced,
            Reserved::Short => return self.give_up(order, CancelReason::OutOfStock).await,
            Reserved::Gone => return self.give_up(order, CancelReason::TimedOut).await,
        };
        if total(&priced).is_none() {
            return self.give_up(order, CancelReason::MixedCurrencies).await;
        }
        match self.catalog.confirm(&order.id).await {
            Ok(Held::Yes) => self.confirmed(order, &priced).await,
            Ok(Held::Gone) => self.give_up(order, CancelReason::TimedOut).await,
            Err(error) => self.unanswered(order, &error).await,
        }
    }

    /// Gives up an order the catalog would refuse again; any other is left to a later sweep.
    async fn unanswered(&self, order: &Order, error: &Status) -> Result<(), Error> {
        if !refuses(error.code()) {
            put_off(&order.id, error);
            return Ok(());
        }
        let (code, cause) = (status::code_name(error.code()), error.message());
        tracing::error!(
            order_id = order.id,
            code,
            cause,
            "the catalog refused; the order is given up"
        );
        self.give_up(order, CancelReason::Refused).await
    }

    async fn confirmed(&self, order: &Order, priced: &[Line]) -> Result<(), Error> {
        if self
            .store
            .confirm(&order.id, priced, Timestamp::now())
            .await?
        {
            self.changes.tell(&order.id);
        }
        // Otherwise it was cancelled meanwhile, and whoever did that returns the stock.
        Ok(())
    }

    /// Cancels an order that cannot be placed. Its stock is returned whatever this call knows of it:
    /// another call may be placing the same order, and have reserved where this one found too little.
    async fn give_up(&self, order: &Order, reason: CancelReason) -> Result<(), Error> {
        let from = CancelFrom::Pending;
        let now = Timestamp::now();
        if self.store.cancel(&order.id, from, reason, now).await? {
            self.changes.tell(&order.id);
            self.return_stock(&order.id).await?;
        }
        Ok(())
    }

    /// Cancels an order because its account asks for it.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn cancel(&self, order: &Order) -> Result<Cancelled, Error> {
        let (from, reason) = (CancelFrom::PendingOrConfirmed, CancelReason::Requested);
        let now = Timestamp::now();
        if self.store.cancel(&order.id, from, reason, now).await? {
            self.changes.tell(&order.id);
            self.return_stock(&order.id).await?;
            return Ok(Cancelled::Done);
        }
        let order = self.store.find(&order.id).await?;
        Ok(match order.map(|order| order.state) {
            Some(OrderState::Cancelled) => Cancelled::Done,
            _ => Cancelled::TooLate,
        })
    }

    /// Has the catalog release what it holds for a cancelled order, now or, while it is away, in a
    /// later sweep.
    async fn return_stock(&self, order_id: &str) -> Result<(), Error> {
        match self.catalog.release(order_id).await {
            Ok(()) => self.store.stock_returned(order_id).await,
            Err(error) => {
                put_off(order_id, &error);
                Ok(())
            }
        }
    }

    /// Completes orders whose time to be cancelled is over. Needs the database alone, so no other
    /// service holds it up.
    ///
    /// Takes a bounded number, as do the other two; what is left is for the next time. Replicas may
    /// do the same at once: each step happens once.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn complete_due(&self, now: Timestamp) -> Result<(), Error> {
        let until = now.before(self.config.load().cancel_window);
        for id in self.store.due(OrderState::Confirmed, until).await? {
            if self.store.complete(&id, now).await? {
                self.changes.tell(&id);
            }
        }
        Ok(())
    }

    /// Returns the stock of cancelled orders that was not returned at once.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn return_due(&self, now: Timestamp) -> Result<(), Error> {
        let until = now.before(self.config.load().pending_grace);
        let due = self.store.due(OrderState::Cancelled, until).await?;
        at_once(due, |id| async move { self.return_stock(&id).await }).await
    }

    /// Goes on with pending orders, and gives up those that have been pending for too long.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn advance_due(&self, now: Timestamp) -> Result<(), Error> {
        let config = self.config.load();
        let until = now.before(config.pending_grace);
        let expired = now.before(config.pending_max);
        let due = self.store.due(OrderState::Pending, until).await?;
        at_once(due, |id| async move {
            match self.store.find(&id).await? {
                None => Ok(()),
                Some(order) if order.created_at <= expired => {
                    self.give_up(&order, CancelReason::TimedOut).await
                }
                Some(order) => self.advance(&order).await,
            }
        })
        .await
    }
}

/// Takes `step` with each of these orders, a few at once.
async fn at_once<F>(ids: Vec<String>, step: impl Fn(String) -> F) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>>,
{
    let steps = stream::iter(ids).map(Ok);
    steps.try_for_each_concurrent(STEPS_MAX, step).await
}

/// Whether `code` is a verdict on the request itself, which is the same however often it is sent.
/// Others, as of a method that is missing or a caller that may not, change with the next deployment.
fn refuses(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument | Code::OutOfRange | Code::AlreadyExists
    )
}

/// What a step that cannot be made now comes to: it is made later.
fn put_off(order_id: &str, error: &Status) {
    let cause = error.message();
    match error.code() {
        // Away, busy or slow: it will be back.
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Cancelled => {
            tracing::info!(
                order_id,
                cause,
                "the catalog did not answer; the order waits"
            );
        }
        code => {
            let code = status::code_name(code);
            tracing::error!(order_id, code, cause, "the catalog failed; the order waits");
        }
    }
}

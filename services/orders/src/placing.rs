//! Takes orders from placed to final, across the orders' database, the catalog and payments.
//!
//! ```text
//! place ─▶ PENDING ─ reserve ─▶ RESERVED ─ charge ─▶ PAID ─ confirm ─▶ CONFIRMED ─ time ─▶ COMPLETED
//!              │                    │                  │                   │
//!              └────────────────────┴────▶ CANCELLED ◀─┴───────────────────┘
//!                                              └ release and refund, until both are done
//! ```
//!
//! Each arrow is one idempotent call to another service under the order's identifier, then one
//! transaction here, under the claim of whoever works at the order. A process can end between any
//! two of them: [`Placing::take_up_due`] and its like of any replica go on from what is written
//! down, once the claim is over. A call of one who lost the order may still arrive anywhere. Whoever
//! cancels releases and refunds, and both refuse what comes after that under the same identifier.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use gantry::{
    backoff::{self, Backoff},
    config::Live,
    crash, status,
};
use gantry_store::{Error, Timestamp};
use tokio::time;
use tonic::{Code, Status};

use crate::{
    catalog::{Catalog, Held, Reserved},
    changes::Changes,
    config::Orders,
    domain::{CancelReason, Order, OrderState, total},
    payments::{Charged, Payments},
    store::{Claim, Placed, Step, Store},
};

/// Orders that wait for another service at once, of those that are due. One that hangs costs a call
/// its whole deadline; one that comes back is not to be met by every order there is.
const STEPS_MAX: usize = 8;

/// Pauses between tries that grow; from the shortest to the longest that can be set there are fewer.
const GROWTHS_MAX: u32 = 32;

/// Whom orders need.
#[derive(Debug, Clone)]
pub struct Others {
    /// Holds their stock.
    pub catalog: Catalog,
    /// Takes their money.
    pub payments: Payments,
}

/// Moves orders; clones share everything.
#[derive(Debug, Clone)]
pub struct Placing {
    store: Store,
    others: Others,
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

/// Where a step leads.
enum Next {
    /// On, to here.
    To(OrderState),
    /// To an end.
    GiveUp(CancelReason),
    /// Nowhere for now: somebody did not answer, in this way.
    Wait(&'static str, Status),
}

impl Placing {
    /// Moves the orders of `store` with the help of `others`, telling `changes`.
    #[must_use]
    pub fn new(store: Store, others: Others, changes: Changes, config: Live<Orders>) -> Self {
        Self {
            store,
            others,
            changes,
            config,
        }
    }

    /// Writes an order down, with the claim on it.
    ///
    /// # Errors
    ///
    /// If the database fails; trying again is safe.
    pub async fn place(&self, order: Order) -> Result<Placed, Error> {
        crash::point("orders.row.before");
        let placed = self.store.place(order, self.lease()).await;
        crash::point("orders.row.after");
        placed
    }

    /// Takes an order as far as it goes now. While another service is away it stays where it is, and
    /// the sweeper goes on.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn advance(&self, mut order: Order, mut claim: Claim) -> Result<(), Error> {
        loop {
            let from = order.state;
            let next = match from {
                OrderState::Pending => self.reserve(&mut order).await,
                OrderState::Reserved => self.charge(&order).await,
                OrderState::Paid => self.confirm(&order).await,
                OrderState::Cancelled => return self.give_back(&order, &claim).await,
                OrderState::Confirmed | OrderState::Completed => return Ok(()),
            };
            let (to, held) = match next {
                Next::To(to) => {
                    // Prices are those of the time when the stock was reserved.
                    let priced = match from {
                        OrderState::Pending => &order.lines[..],
                        _ => &[],
                    };
                    // Written down before anybody asks for money; where all is free, nobody does.
                    let is_due = order.total().is_some_and(|total| total.minor_units > 0);
                    order.money_held |= to == OrderState::Reserved && is_due;
                    let money_held = order.money_held;
                    let step = Step {
                        from,
                        to,
                        money_held,
                    };
                    let held = self.store.step(&claim, step, priced, self.lease());
                    (to, held.await?)
                }
                Next::GiveUp(reason) => {
                    let held = self.store.give_up(&claim, reason, self.lease());
                    (OrderState::Cancelled, held.await?)
                }
                Next::Wait(who, error) => return self.put_off(&claim, who, &error).await,
            };
            // Otherwise somebody else has it now, and goes on or gives back.
            if !held {
                return Ok(());
            }
            order.state = to;
            goes_on(&claim);
            claim.tries = 0;
            if to == OrderState::Paid {
                crash::point("orders.charge-answered.after");
            }
            self.changes.tell(&order.id);
        }
    }

    async fn reserve(&self, order: &mut Order) -> Next {
        crash::point("orders.reserve.before");
        let reserved = self.others.catalog.reserve(&order.id, &order.lines);
        let reserved = self.in_time(reserved).await;
        crash::point("orders.reserve.after");
        match reserved {
            Ok(Reserved::Priced(priced)) => {
                order.lines = priced;
                match total(&order.lines) {
                    Some(_) => Next::To(OrderState::Reserved),
                    None => Next::GiveUp(CancelReason::MixedCurrencies),
                }
            }
            Ok(Reserved::Short) => Next::GiveUp(CancelReason::OutOfStock),
            Ok(Reserved::Gone) => Next::GiveUp(CancelReason::TimedOut),
            Err(error) => unanswered(&order.id, "the catalog", error),
        }
    }

    async fn charge(&self, order: &Order) -> Next {
        // It was there when the stock was reserved.
        let Some(total) = order.total() else {
            return Next::GiveUp(CancelReason::MixedCurrencies);
        };
        if total.minor_units == 0 {
            return Next::To(OrderState::Paid);
        }
        crash::point("orders.charge-sent.before");
        let charged = self.others.payments.charge(&order.id, &total);
        let charged = self.in_time(crash::amid("orders.charge-sent.after", charged));
        let charged = charged.await;
        crash::point("orders.charge-answered.before");
        match charged {
            Ok(Charged::Yes) => Next::To(OrderState::Paid),
            Ok(Charged::Declined) => Next::GiveUp(CancelReason::PaymentDeclined),
            Ok(Charged::Refunded) => Next::GiveUp(CancelReason::TimedOut),
            Err(error) => unanswered(&order.id, "payments", error),
        }
    }

    async fn confirm(&self, order: &Order) -> Next {
        crash::point("orders.confirm.before");
        let confirmed = self.in_time(self.others.catalog.confirm(&order.id)).await;
        crash::point("orders.confirm.after");
        match confirmed {
            Ok(Held::Yes) => Next::To(OrderState::Confirmed),
            Ok(Held::Gone) => Next::GiveUp(CancelReason::TimedOut),
            Err(error) => unanswered(&order.id, "the catalog", error),
        }
    }

    /// Has the others give back what they hold for a cancelled order, now or, while one is away, when
    /// it is taken up again. They do so whatever this process knows: another may have been further.
    async fn give_back(&self, order: &Order, claim: &Claim) -> Result<(), Error> {
        let Others { catalog, payments } = &self.others;
        let refund = async {
            if !order.money_held {
                return Ok(());
            }
            crash::point("orders.refund.before");
            let refunded = payments.refund(&order.id).await;
            crash::point("orders.refund.after");
            refunded
        };
        let release = async {
            crash::point("orders.release.before");
            let released = catalog.release(&order.id).await;
            crash::point("orders.release.after");
            released
        };
        let released = self.in_time(release);
        let (released, refunded) = tokio::join!(released, self.in_time(refund));
        match (released, refunded) {
            (Ok(()), Ok(())) => {
                goes_on(claim);
                self.store.settled(claim).await
            }
            (Err(error), _) => self.put_off(claim, "the catalog", &error).await,
            (_, Err(error)) => self.put_off(claim, "payments", &error).await,
        }
    }

    /// Cancels an order because its account asks for it.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn cancel(&self, order: &Order) -> Result<Cancelled, Error> {
        let reason = CancelReason::Requested;
        let claim = self.store.cancel(&order.id, reason, self.lease()).await?;
        let found = self.store.find(&order.id).await?;
        let state = found.as_ref().map(|order| order.state);
        if let (Some(claim), Some(order)) = (claim, found) {
            self.changes.tell(&order.id);
            self.advance(order, claim).await?;
        }
        Ok(match state {
            Some(OrderState::Cancelled) => Cancelled::Done,
            _ => Cancelled::TooLate,
        })
    }

    /// Completes orders whose time to be cancelled is over. Needs the database alone, so no other
    /// service holds it up.
    ///
    /// Takes a bounded number; what is left is for the next time. Replicas may do the same at once:
    /// each step happens once.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn complete_due(&self, now: Timestamp) -> Result<(), Error> {
        let until = now.before(self.config.load().cancel_window);
        for id in self.store.confirmed(until).await? {
            if self.store.complete(&id, now).await? {
                self.changes.tell(&id);
            }
        }
        Ok(())
    }

    /// Goes on with orders that need a further step and that nobody works at, a bounded number.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn take_up_due(&self, now: Timestamp) -> Result<(), Error> {
        let due = self.store.unsettled(now).await?;
        // One that fails leaves the others alone: they hold their claims.
        let taken_up = stream::iter(due).map(|id| async move { self.take_up(&id).await });
        let taken_up = taken_up.buffer_unordered(STEPS_MAX);
        let first_failed = async |failed: Result<(), Error>, one| failed.and(one);
        taken_up.fold(Ok(()), first_failed).await
    }

    /// Goes on with an order unless somebody works at it, or nothing is left to do. One that has been
    /// on its way for too long is given up.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn take_up(&self, order_id: &str) -> Result<(), Error> {
        let now = Timestamp::now();
        let Some(mut claim) = self.store.claim(order_id, now, self.lease()).await? else {
            return Ok(());
        };
        let Some(mut order) = self.store.find(order_id).await? else {
            return Ok(());
        };
        let expired = now.before(self.config.load().pending_max);
        if order.created_at <= expired && order.state != OrderState::Cancelled {
            let reason = CancelReason::TimedOut;
            if !self.store.give_up(&claim, reason, self.lease()).await? {
                return Ok(());
            }
            order.state = OrderState::Cancelled;
            // Giving back is another step.
            claim.tries = 0;
            self.changes.tell(&order.id);
        }
        self.advance(order, claim).await
    }

    /// Until when a claim that is taken or used now is good.
    fn lease(&self) -> Timestamp {
        Timestamp::now().after(self.config.load().lease)
    }

    /// Lets go of an order whose step `who` did not answer, for longer each time.
    async fn put_off(&self, claim: &Claim, who: &str, error: &Status) -> Result<(), Error> {
        let tries = claim.tries.saturating_add(1);
        waits(claim, who, error);
        let pause = retry_pause(&self.config.load(), tries);
        let until = Timestamp::now().after(pause);
        self.store.put_off(claim, tries, until).await
    }

    /// The answer of another service, well before the claim is over.
    async fn in_time<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let longest: Duration = self.config.load().lease / 2;
        let answered = time::timeout(longest, call).await;
        answered.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
    }
}

/// Gives up an order that another service would refuse again; any other waits.
fn unanswered(order_id: &str, who: &'static str, error: Status) -> Next {
    if !refuses(error.code()) {
        return Next::Wait(who, error);
    }
    let (code, cause) = (status::code_name(error.code()), error.message());
    tracing::error!(
        order_id,
        code,
        cause,
        "{who} refused; the order is given up"
    );
    Next::GiveUp(CancelReason::Refused)
}

/// Whether `code` is a verdict on the request itself, which is the same however often it is sent.
/// Others, as of a method that is missing or a caller that may not, change with the next deployment.
pub(crate) fn refuses(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument | Code::OutOfRange | Code::AlreadyExists
    )
}

/// How long an order waits whose step has failed `tries` times: in an outage each asks less and less,
/// and soon enough after it.
fn retry_pause(config: &Orders, tries: u32) -> Duration {
    let pauses = backoff::Config {
        min: config.retry_pause,
        max: config.retry_pause_max.max(config.retry_pause),
        multiplier: 1.6,
        jitter: 0.2,
    };
    let mut pauses = Backoff::new(pauses).expect("the pauses are above zero and grow");
    for _ in 1..tries.min(GROWTHS_MAX) {
        pauses.next_pause();
    }
    pauses.next_pause()
}

/// Says that a step is made that failed before.
fn goes_on(claim: &Claim) {
    if claim.tries > 0 {
        let (order_id, tries) = (&claim.order_id, claim.tries);
        tracing::info!(order_id, tries, "the order goes on");
    }
}

/// Says what a step that cannot be made now comes to: it is made later. Said once for each, until it
/// is made, whoever tries it.
fn waits(claim: &Claim, who: &str, error: &Status) {
    let (order_id, cause) = (&claim.order_id, error.message());
    if claim.tries > 0 {
        tracing::debug!(
            order_id,
            claim.tries,
            cause,
            "the order still waits for {who}"
        );
        return;
    }
    match error.code() {
        // Away, busy or slow: it will be back.
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Cancelled => {
            tracing::info!(order_id, cause, "{who} did not answer; the order waits");
        }
        code => {
            let code = status::code_name(code);
            tracing::error!(order_id, code, cause, "{who} failed; the order waits");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// Goal: in an outage an order asks less and less, and is taken up within half of the 30 seconds
    /// in which every order is to come to its end after one, however long it was.
    /// Method: a paused clock, as the pauses ship; outages of a second to a day, and settings that
    /// want the longest pause below the first.
    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_end_soon_after_an_outage() {
        let config = Orders::default();
        for (outage, tries_max) in [(1, 2), (10, 6), (60, 14), (24 * 60 * 60, 14_000)] {
            let begun = Instant::now();
            let back = begun + Duration::from_secs(outage);
            let mut tries = 0;
            while Instant::now() < back {
                tries += 1;
                time::sleep(retry_pause(&config, tries)).await;
            }
            let late = Instant::now() - back;
            assert!(late < Duration::from_secs(15), "{outage} s: {late:?}");
            assert!(tries <= tries_max, "{outage} s: {tries} tries");
        }
        let odd = Orders {
            retry_pause: Duration::from_mins(1),
            ..config
        };
        let pause = retry_pause(&odd, u32::MAX).as_secs_f64();
        assert!((48.0..=72.0).contains(&pause), "{pause}");
        // From the shortest setting to the longest there are no more growths than are made.
        let wide = Orders {
            retry_pause: Duration::from_millis(10),
            retry_pause_max: Duration::from_hours(1),
            ..Orders::default()
        };
        let longest = retry_pause(&wide, u32::MAX);
        assert!(longest >= Duration::from_mins(48), "{longest:?}");
    }
}

//! Who takes an order further, and how far it has come.
//!
//! One at a time has the claim on an order. Every claim has a number of its own, a fence, and a
//! step is written down only under the last of them: whoever lost an order to another, by a crash, a
//! pause or a cancellation, moves nothing any more.

use gantry_store::{Error, Row, Statement, Timestamp};

use super::{DUE_MAX, PRICE_LINE, Store, code, reason_code};
use crate::domain::{CancelReason, Line, OrderState};

const CLAIM: Statement = Statement::new(
    "orders.claim_order",
    "UPDATE orders SET fence = fence + 1, leased_until = $3
     WHERE order_id = $1 AND unsettled = 1 AND leased_until <= $2 RETURNING fence, tries",
);
const STEP: Statement = Statement::new(
    "orders.step_order",
    "UPDATE orders SET state = $4, unsettled = $5, money_held = $6, leased_until = $7,
         tries = 0, version = version + 1, updated_at = $8
     WHERE order_id = $1 AND fence = $2 AND state = $3",
);
const GIVE_UP: Statement = Statement::new(
    "orders.give_up_order",
    "UPDATE orders SET state = $3, cancel_reason = $4, leased_until = $5, tries = 0,
         version = version + 1, updated_at = $6
     WHERE order_id = $1 AND fence = $2 AND state IN ($7, $8, $9)",
);
const CANCEL: Statement = Statement::new(
    "orders.cancel_order",
    "UPDATE orders SET state = $2, cancel_reason = $3, unsettled = 1, fence = fence + 1,
         leased_until = $4, tries = 0, version = version + 1, updated_at = $5
     WHERE order_id = $1 AND state IN ($6, $7, $8, $9) RETURNING fence, tries",
);
const SETTLED: Statement = Statement::new(
    "orders.settle_order",
    "UPDATE orders SET unsettled = 0 WHERE order_id = $1 AND fence = $2 AND state = $3",
);
const PUT_OFF: Statement = Statement::new(
    "orders.put_off_order",
    "UPDATE orders SET leased_until = $3, tries = $4 WHERE order_id = $1 AND fence = $2",
);
const UNSETTLED: Statement = Statement::new(
    "orders.unsettled_orders",
    "SELECT order_id FROM orders WHERE unsettled = 1 AND leased_until <= $1
     ORDER BY leased_until LIMIT $2",
);
/// The right to take an order further, until somebody else has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which order.
    pub order_id: String,
    /// How many have had it, this one included.
    fence: i64,
    /// How often the step that is due has failed.
    pub tries: u32,
}

impl Claim {
    /// Of whoever placed the order.
    pub(super) fn first(order_id: &str) -> Self {
        Self {
            order_id: order_id.to_owned(),
            fence: 1,
            tries: 0,
        }
    }

    fn read(order_id: &str, row: &Row) -> Result<Self, Error> {
        Ok(Self {
            order_id: order_id.to_owned(),
            fence: row.integer("fence")?,
            tries: u32::try_from(row.integer("tries")?).unwrap_or(u32::MAX),
        })
    }
}

/// A step that an order has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Where it was.
    pub from: OrderState,
    /// Where it is.
    pub to: OrderState,
    /// Whether a charge may be asked for from now on, or has been.
    pub money_held: bool,
}

impl Store {
    /// Takes an order up that needs a further step and that nobody else works at; nobody else will
    /// until `until`.
    ///
    /// # Errors
    ///
    /// If the database fails; trying again is safe.
    pub async fn claim(
        &self,
        order_id: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Claim>, Error> {
        let claim = self.database.statement(&CLAIM).bind(order_id);
        let row = claim.bind(now).bind(until).fetch_optional().await?;
        row.map(|row| Claim::read(order_id, &row)).transpose()
    }

    /// Writes a step down, with the prices where it found them; answers whether the order was
    /// there, and the claim's still. It is then until `until`.
    ///
    /// # Errors
    ///
    /// If the database fails; trying again is safe.
    pub async fn step(
        &self,
        claim: &Claim,
        step: Step,
        priced: &[Line],
        until: Timestamp,
    ) -> Result<bool, Error> {
        let mut transaction = self.database.begin("orders.step").await?;
        let moved = transaction
            .statement(&STEP)
            .bind(&claim.order_id)
            .bind(claim.fence)
            .bind(code(step.from))
            .bind(code(step.to))
            .bind(step.to != OrderState::Confirmed)
            .bind(step.money_held)
            .bind(until)
            .bind(Timestamp::now())
            .execute()
            .await?;
        if moved == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        for line in priced {
            let price = line.unit_price.as_ref();
            transaction
                .statement(&PRICE_LINE)
                .bind(&claim.order_id)
                .bind(&line.sku)
                .bind(price.map(|price| price.minor_units))
                .bind(price.map(|price| &*price.currency_code))
                .execute()
                .await?;
        }
        self.record(transaction, &claim.order_id).await?;
        Ok(true)
    }

    /// Cancels an order that is on its way; answers whether it was, and the claim's still. What it
    /// holds is to be given back, until [`Store::settled`].
    ///
    /// # Errors
    ///
    /// If the database fails; trying again is safe.
    pub async fn give_up(
        &self,
        claim: &Claim,
        reason: CancelReason,
        until: Timestamp,
    ) -> Result<bool, Error> {
        let mut transaction = self.database.begin("orders.give_up").await?;
        let moved = transaction
            .statement(&GIVE_UP)
            .bind(&claim.order_id)
            .bind(claim.fence)
            .bind(code(OrderState::Cancelled))
            .bind(reason_code(reason))
            .bind(until)
            .bind(Timestamp::now())
            .bind(code(OrderState::Pending))
            .bind(code(OrderState::Reserved))
            .bind(code(OrderState::Paid))
            .execute()
            .await?;
        if moved == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        self.record(transaction, &claim.order_id).await?;
        Ok(true)
    }

    /// Cancels an order that is not final, whoever works at it: it is taken from them. What it holds
    /// is to be given back, until [`Store::settled`].
    ///
    /// # Errors
    ///
    /// If the database fails; trying again is safe.
    pub async fn cancel(
        &self,
        order_id: &str,
        reason: CancelReason,
        until: Timestamp,
    ) -> Result<Option<Claim>, Error> {
        let mut transaction = self.database.begin("orders.cancel").await?;
        let row = transaction
            .statement(&CANCEL)
            .bind(order_id)
            .bind(code(OrderState::Cancelled))
            .bind(reason_code(reason))
            .bind(until)
            .bind(Timestamp::now())
            .bind(code(OrderState::Pending))
            .bind(code(OrderState::Reserved))
            .bind(code(OrderState::Paid))
            .bind(code(OrderState::Confirmed))
            .fetch_optional()
            .await?;
        let Some(row) = row else {
            transaction.rollback().await?;
            return Ok(None);
        };
        self.record(transaction, order_id).await?;
        Claim::read(order_id, &row).map(Some)
    }

    /// Notes that a cancelled order holds nothing any more.
    ///
    /// # Errors
    ///
    /// If the database fails; trying again is safe.
    pub async fn settled(&self, claim: &Claim) -> Result<(), Error> {
        let settled = self.database.statement(&SETTLED).bind(&claim.order_id);
        let settled = settled.bind(claim.fence).bind(code(OrderState::Cancelled));
        settled.execute().await?;
        Ok(())
    }

    /// Lets go of an order whose step has failed `tries` times; anybody may take it up from `until` on.
    ///
    /// # Errors
    ///
    /// If the database fails; then nobody does before the claim's own end.
    pub async fn put_off(&self, claim: &Claim, tries: u32, until: Timestamp) -> Result<(), Error> {
        let put_off = self.database.statement(&PUT_OFF).bind(&claim.order_id);
        let put_off = put_off.bind(claim.fence).bind(until);
        put_off.bind(i64::from(tries)).execute().await?;
        Ok(())
    }

    /// Orders that need a further step and that nobody works at, those that wait longest first, a
    /// bounded number.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn unsettled(&self, now: Timestamp) -> Result<Vec<String>, Error> {
        let due = self.database.statement(&UNSETTLED).bind(now).bind(DUE_MAX);
        let rows = due.fetch_all().await?;
        rows.iter().map(|row| row.text("order_id")).collect()
    }
}

//! What orders tell: how much of each product was sold, and what each day came to.

use gantry::contract::prost_types::Timestamp;
use gantry_events::{Failure, Handle, Received};
use gantry_store::Transaction;
use shop_proto::orders::v1::{OrderCancelled, OrderConfirmed, OrderLine, OrderPaid, OrderPlaced};

use crate::{
    domain::{self, Money, SoldLine},
    store::sales,
};

/// Keeps what was sold of each product.
#[derive(Debug, Clone, Copy)]
pub struct Stock;

/// Keeps what each day came to.
#[derive(Debug, Clone, Copy)]
pub struct Sales;

impl Handle<OrderConfirmed> for Stock {
    async fn handle(
        &self,
        confirmed: &Received<OrderConfirmed>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        let lines = sold_lines(&confirmed.lines);
        match sales::sold(transaction, &confirmed.order_id, &lines).await? {
            None => Ok(()),
            // It may be imported yet.
            Some(sku) => Err(Failure::retry(format!("there is no product {sku}"))),
        }
    }
}

impl Handle<OrderCancelled> for Stock {
    async fn handle(
        &self,
        cancelled: &Received<OrderCancelled>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        let lines = sold_lines(&cancelled.lines);
        Ok(sales::returned(transaction, &cancelled.order_id, &lines).await?)
    }
}

impl Handle<OrderPlaced> for Sales {
    async fn handle(
        &self,
        placed: &Received<OrderPlaced>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        let day = day(placed.place_time.as_ref());
        Ok(sales::placed(transaction, &placed.order_id, day).await?)
    }
}

impl Handle<OrderPaid> for Sales {
    async fn handle(
        &self,
        paid: &Received<OrderPaid>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        let Some(total) = &paid.total else {
            return Err(Failure::reject("a paid order comes to something"));
        };
        let total = Money {
            minor_units: total.minor_units,
            currency_code: total.currency_code.clone(),
        };
        let day = day(paid.pay_time.as_ref());
        Ok(sales::paid(transaction, &paid.order_id, day, &total).await?)
    }
}

impl Handle<OrderCancelled> for Sales {
    async fn handle(
        &self,
        cancelled: &Received<OrderCancelled>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        let day = day(cancelled.cancel_time.as_ref());
        Ok(sales::cancelled(transaction, &cancelled.order_id, day).await?)
    }
}

fn sold_lines(lines: &[OrderLine]) -> Vec<SoldLine> {
    let line = |line: &OrderLine| SoldLine {
        sku: line.sku.clone(),
        quantity: line.quantity.into(),
    };
    lines.iter().map(line).collect()
}

/// The day of a time; one that is missing is of the first day there is.
fn day(time: Option<&Timestamp>) -> i64 {
    time.map_or(0, |time| domain::day(time.seconds))
}

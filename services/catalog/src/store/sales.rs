//! What orders came to, as they tell.
//!
//! Written in the transactions of events, one order's in their order, and read by the staff.

use gantry_store::{Error, Page, Statement, Transaction};

use super::Store;
use crate::domain::{Day, Money, SoldLine, StockLevel};

const SOLD: Statement = Statement::new(
    "catalog.insert_sold_line",
    "INSERT INTO sold_lines (order_id, sku, quantity, cancelled)
     SELECT $1, sku, $3, 0 FROM products WHERE sku = $2
     ON CONFLICT (order_id, sku) DO UPDATE SET quantity = $3",
);
const RETURNED: Statement = Statement::new(
    "catalog.return_sold_line",
    "INSERT INTO sold_lines (order_id, sku, quantity, cancelled) VALUES ($1, $2, $3, 1)
     ON CONFLICT (order_id, sku) DO UPDATE SET cancelled = 1",
);
const PLACED: Statement = Statement::new(
    "catalog.insert_sale",
    "INSERT INTO sales (order_id, day, cancelled) VALUES ($1, $2, 0) ON CONFLICT (order_id) DO NOTHING",
);
const PAID: Statement = Statement::new(
    "catalog.pay_sale",
    "INSERT INTO sales (order_id, day, minor_units, currency_code, cancelled) VALUES ($1, $2, $3, $4, 0)
     ON CONFLICT (order_id) DO UPDATE SET minor_units = $3, currency_code = $4",
);
const CANCELLED: Statement = Statement::new(
    "catalog.cancel_sale",
    "INSERT INTO sales (order_id, day, cancelled) VALUES ($1, $2, 1)
     ON CONFLICT (order_id) DO UPDATE SET cancelled = 1",
);
const LEVELS: Statement = Statement::new(
    "catalog.list_stock_levels",
    "SELECT sku, on_hand - reserved AS available,
         (SELECT CAST(COALESCE(SUM(quantity), 0) AS BIGINT) FROM sold_lines
          WHERE sold_lines.sku = products.sku AND cancelled = 0) AS sold
     FROM products WHERE sku > $1 ORDER BY sku LIMIT $2",
);
const DAYS: Statement = Statement::new(
    "catalog.sum_up_sales",
    "SELECT day, COUNT(*) AS placed,
         CAST(SUM(CASE WHEN minor_units IS NULL THEN 0 ELSE 1 END) AS BIGINT) AS paid,
         CAST(SUM(cancelled) AS BIGINT) AS cancelled
     FROM sales WHERE day > $1 GROUP BY day ORDER BY day DESC",
);
const REVENUES: Statement = Statement::new(
    "catalog.sum_up_revenues",
    "SELECT day, currency_code, CAST(SUM(minor_units) AS BIGINT) AS minor_units FROM sales
     WHERE day > $1 AND cancelled = 0 AND minor_units IS NOT NULL
     GROUP BY day, currency_code ORDER BY day DESC, currency_code",
);

/// Notes what a confirmed order took out, unless it was cancelled before: one that was a dead letter for
/// a while is told of late. Answers with the SKU of a product that there is none of, if any; then
/// nothing may be kept of the rest.
///
/// # Errors
///
/// If the database fails.
pub async fn sold<'a>(
    transaction: &mut Transaction,
    order_id: &str,
    lines: &'a [SoldLine],
) -> Result<Option<&'a str>, Error> {
    for line in lines {
        let sold = transaction.statement(&SOLD).bind(order_id);
        let sold = sold.bind(&line.sku).bind(line.quantity);
        if sold.execute().await? == 0 {
            return Ok(Some(&line.sku));
        }
    }
    Ok(None)
}

/// Notes that what an order took out, if it did, is back.
///
/// # Errors
///
/// If the database fails.
pub async fn returned(
    transaction: &mut Transaction,
    order_id: &str,
    lines: &[SoldLine],
) -> Result<(), Error> {
    for line in lines {
        let returned = transaction.statement(&RETURNED).bind(order_id);
        let returned = returned.bind(&line.sku).bind(line.quantity);
        returned.execute().await?;
    }
    Ok(())
}

/// Notes an order of a day.
///
/// # Errors
///
/// If the database fails.
pub async fn placed(transaction: &mut Transaction, order_id: &str, day: i64) -> Result<(), Error> {
    let placed = transaction.statement(&PLACED).bind(order_id).bind(day);
    placed.execute().await.map(drop)
}

/// Notes what an order came to; it is of `day` where nobody told that it was placed.
///
/// # Errors
///
/// If the database fails.
pub async fn paid(
    transaction: &mut Transaction,
    order_id: &str,
    day: i64,
    total: &Money,
) -> Result<(), Error> {
    let paid = transaction.statement(&PAID).bind(order_id).bind(day);
    let paid = paid.bind(total.minor_units).bind(&total.currency_code);
    paid.execute().await.map(drop)
}

/// Notes that an order came to nothing; it is of `day` where nobody told that it was placed.
///
/// # Errors
///
/// If the database fails.
pub async fn cancelled(
    transaction: &mut Transaction,
    order_id: &str,
    day: i64,
) -> Result<(), Error> {
    let cancelled = transaction.statement(&CANCELLED).bind(order_id).bind(day);
    cancelled.execute().await.map(drop)
}

impl Store {
    /// Stock levels after the page's key, one more than the page has room for.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn stock_levels(&self, page: &Page) -> Result<Vec<StockLevel>, Error> {
        let levels = self.database.statement(&LEVELS);
        let levels = levels.bind(page.after().unwrap_or("")).bind(page.fetch());
        let rows = levels.fetch_all().await?;
        rows.iter()
            .map(|row| {
                Ok(StockLevel {
                    sku: row.text("sku")?,
                    available: row.integer("available")?,
                    sold: row.integer("sold")?,
                })
            })
            .collect()
    }

    /// What the orders came to of each day after `day`, the newest first.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn sales_after(&self, day: i64) -> Result<Vec<Day>, Error> {
        let rows = self.database.statement(&DAYS).bind(day);
        let rows = rows.fetch_all().await?;
        let mut days = Vec::with_capacity(rows.len());
        for row in &rows {
            days.push(Day {
                day: row.integer("day")?,
                placed: row.integer("placed")?,
                paid: row.integer("paid")?,
                cancelled: row.integer("cancelled")?,
                revenues: Vec::new(),
            });
        }
        let rows = self.database.statement(&REVENUES).bind(day);
        for row in &rows.fetch_all().await? {
            let of = row.integer("day")?;
            // A day that began between the two statements is in the next answer.
            if let Some(day) = days.iter_mut().find(|day| day.day == of) {
                day.revenues.push(Money {
                    minor_units: row.integer("minor_units")?,
                    currency_code: row.text("currency_code")?,
                });
            }
        }
        Ok(days)
    }
}

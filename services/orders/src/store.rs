//! Orders in SQL.
//!
//! Every change of an order's state is one transaction that moves the row from the state it
//! relies on, and writes the step down. Whoever comes second moves nothing and finds out. The steps
//! of an order on its way are in [`saga`], what others are told of them in [`events`].

mod events;
mod saga;

use std::cmp::Ordering;

use gantry_events::Outbox;
use gantry_store::{Database, Error, Migration, Page, Row, Statement, Timestamp, Transaction};

use crate::domain::{CancelReason, Change, Line, Money, Order, OrderState};

pub use saga::{Claim, Step};

/// The shape of the database.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "orders",
        sql: include_str!("../migrations/0001_orders.sql"),
    },
    Migration {
        version: 2,
        name: "saga",
        sql: include_str!("../migrations/0002_saga.sql"),
    },
    Migration {
        version: 3,
        name: "news",
        sql: include_str!("../migrations/0003_news.sql"),
    },
    Migration {
        version: 4,
        name: "news held",
        sql: include_str!("../migrations/0004_news_held.sql"),
    },
    Migration {
        version: 5,
        name: "tries",
        sql: include_str!("../migrations/0005_tries.sql"),
    },
    Migration {
        version: 6,
        name: "events",
        sql: include_str!("../migrations/0006_events.sql"),
    },
];

const INSERT: Statement = Statement::new(
    "orders.insert_order",
    "INSERT INTO orders (order_id, account_id, request_id, state, unsettled, version,
         fence, leased_until, created_at, updated_at)
     VALUES ($1, $2, $3, $4, 1, $5, 1, $6, $7, $7) ON CONFLICT (account_id, request_id) DO NOTHING",
);
const INSERT_LINE: Statement = Statement::new(
    "orders.insert_line",
    "INSERT INTO order_lines (order_id, sku, quantity) VALUES ($1, $2, $3)",
);
const PRICE_LINE: Statement = Statement::new(
    "orders.price_line",
    "UPDATE order_lines SET price_minor_units = $3, currency_code = $4
     WHERE order_id = $1 AND sku = $2",
);
const INSERT_CHANGE: Statement = Statement::new(
    "orders.insert_change",
    "INSERT INTO order_changes (order_id, version, state, cancel_reason, changed_at)
     SELECT order_id, version, state, cancel_reason, updated_at FROM orders WHERE order_id = $1",
);
const FIND: Statement = Statement::new(
    "orders.find_order",
    "SELECT order_id, account_id, request_id, state, cancel_reason, money_held, version,
         created_at, updated_at
     FROM orders WHERE order_id = $1",
);
const FIND_BY_REQUEST: Statement = Statement::new(
    "orders.find_order_by_request",
    "SELECT order_id, account_id, request_id, state, cancel_reason, money_held, version,
         created_at, updated_at
     FROM orders WHERE account_id = $1 AND request_id = $2",
);
const VERSION: Statement = Statement::new(
    "orders.find_version",
    "SELECT version FROM orders WHERE order_id = $1",
);
const LIST: Statement = Statement::new(
    "orders.list_orders",
    "SELECT order_id, account_id, request_id, state, cancel_reason, money_held, version,
         created_at, updated_at
     FROM orders WHERE account_id = $1 AND order_id < $2 ORDER BY order_id DESC LIMIT $3",
);
const LINES: Statement = Statement::new(
    "orders.find_lines",
    "SELECT sku, quantity, price_minor_units, currency_code FROM order_lines
     WHERE order_id = $1 ORDER BY sku",
);
const LINES_LISTED: Statement = Statement::new(
    "orders.list_lines",
    "SELECT order_lines.order_id, sku, quantity, price_minor_units, currency_code
     FROM order_lines JOIN orders ON orders.order_id = order_lines.order_id
     WHERE account_id = $1 AND orders.order_id <= $2 AND orders.order_id >= $3
     ORDER BY order_lines.order_id DESC, sku",
);
const CHANGES: Statement = Statement::new(
    "orders.find_changes",
    "SELECT version, state, cancel_reason, changed_at FROM order_changes
     WHERE order_id = $1 AND version > $2 ORDER BY version LIMIT 16",
);
const COMPLETE: Statement = Statement::new(
    "orders.complete_order",
    "UPDATE orders SET state = $2, version = version + 1, updated_at = $4
     WHERE order_id = $1 AND state = $3",
);
const CONFIRMED: Statement = Statement::new(
    "orders.confirmed_orders",
    "SELECT order_id FROM orders WHERE state = $1 AND updated_at <= $2
     ORDER BY updated_at LIMIT $3",
);

/// Beyond every `order_id`: where the first page begins.
const BEYOND: &str = "z";
/// Orders one sweep takes of each kind.
const DUE_MAX: i64 = 100;

/// What became of a wish to place an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// It is new, and whoever placed it works at it.
    New(Order, Claim),
    /// There is one for this `request_id`; it may ask for something else.
    Known(Order),
}

/// The rows of this service.
#[derive(Debug, Clone)]
pub struct Store {
    database: Database,
    outbox: Outbox,
}

impl Store {
    /// Rows in `database`, which has gone through [`MIGRATIONS`]; others are told through `outbox`.
    #[must_use]
    pub fn new(database: Database, outbox: Outbox) -> Self {
        Self { database, outbox }
    }

    /// Adds an order unless the account has one for the same `request_id`. Nobody takes it up before
    /// `until` but who has the claim.
    ///
    /// # Errors
    ///
    /// If the database fails; trying again is safe.
    pub async fn place(&self, order: Order, until: Timestamp) -> Result<Placed, Error> {
        let mut transaction = self.database.begin("orders.place").await?;
        let inserted = transaction
            .statement(&INSERT)
            .bind(&order.id)
            .bind(&order.account_id)
            .bind(&order.request_id)
            .bind(code(order.state))
            .bind(order.version)
            .bind(until)
            .bind(order.created_at)
            .execute()
            .await?;
        if inserted == 0 {
            let row = transaction
                .statement(&FIND_BY_REQUEST)
                .bind(&order.account_id)
                .bind(&order.request_id)
                .fetch_one()
                .await?;
            let known = complete_read(&mut transaction, &row).await?;
            transaction.rollback().await?;
            return Ok(Placed::Known(known));
        }
        for line in &order.lines {
            transaction
                .statement(&INSERT_LINE)
                .bind(&order.id)
                .bind(&line.sku)
                .bind(line.quantity)
                .execute()
                .await?;
        }
        self.record(transaction, &order.id).await?;
        let claim = Claim::first(&order.id);
        Ok(Placed::New(order, claim))
    }

    /// One order, whoever's it is.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn find(&self, order_id: &str) -> Result<Option<Order>, Error> {
        let find = self.database.statement(&FIND).bind(order_id);
        let Some(row) = find.fetch_optional().await? else {
            return Ok(None);
        };
        let lines = self.database.statement(&LINES).bind(order_id);
        let lines = lines.fetch_all().await?;
        read_order(&row, &lines).map(Some)
    }

    /// How many steps an order has made; 0 where there is none.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn version(&self, order_id: &str) -> Result<i64, Error> {
        let version = self.database.statement(&VERSION).bind(order_id);
        let row = version.fetch_optional().await?;
        row.map_or(Ok(0), |row| row.integer("version"))
    }

    /// Orders of `account_id` after the page's key, the newest first, one more than the page has
    /// room for.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn list(&self, account_id: &str, page: &Page) -> Result<Vec<Order>, Error> {
        let rows = self
            .database
            .statement(&LIST)
            .bind(account_id)
            .bind(page.after().unwrap_or(BEYOND))
            .bind(page.fetch())
            .fetch_all()
            .await?;
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return Ok(Vec::new());
        };
        let lines = self
            .database
            .statement(&LINES_LISTED)
            .bind(account_id)
            .bind(first.text("order_id")?)
            .bind(last.text("order_id")?)
            .fetch_all()
            .await?;
        // Both are in the order of identifiers: each order's lines are the next ones.
        let mut lines = lines.into_iter().peekable();
        let mut orders = Vec::with_capacity(rows.len());
        for row in &rows {
            let order_id = row.text("order_id")?;
            let mut own = Vec::new();
            while let Some(line) = lines.peek() {
                match line.text("order_id")?.cmp(&order_id) {
                    // Of an order placed between the two statements.
                    Ordering::Greater => drop(lines.next()),
                    Ordering::Equal => own.extend(lines.next()),
                    Ordering::Less => break,
                }
            }
            orders.push(read_order(row, &own)?);
        }
        Ok(orders)
    }

    /// The steps of an order after `version`, a few at a time.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn changes(&self, order_id: &str, version: i64) -> Result<Vec<Change>, Error> {
        let changes = self.database.statement(&CHANGES).bind(order_id);
        let rows = changes.bind(version).fetch_all().await?;
        rows.iter()
            .map(|row| {
                Ok(Change {
                    version: row.integer("version")?,
                    state: read_state(row)?,
                    cancel_reason: read_reason(row)?,
                    changed_at: row.time("changed_at")?,
                })
            })
            .collect()
    }

    /// Completes a confirmed order; answers whether it was confirmed.
    ///
    /// # Errors
    ///
    /// If the database fails; trying again is safe.
    pub async fn complete(&self, order_id: &str, now: Timestamp) -> Result<bool, Error> {
        let mut transaction = self.database.begin("orders.complete").await?;
        let moved = transaction
            .statement(&COMPLETE)
            .bind(order_id)
            .bind(code(OrderState::Completed))
            .bind(code(OrderState::Confirmed))
            .bind(now)
            .execute()
            .await?;
        if moved == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        self.record(transaction, order_id).await?;
        Ok(true)
    }

    /// Orders that have been confirmed since `until` or longer, the oldest first, a bounded number.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn confirmed(&self, until: Timestamp) -> Result<Vec<String>, Error> {
        let state = code(OrderState::Confirmed);
        let due = self.database.statement(&CONFIRMED).bind(state).bind(until);
        let rows = due.bind(DUE_MAX).fetch_all().await?;
        rows.iter().map(|row| row.text("order_id")).collect()
    }

    /// Writes down the step that the order's row has just made, and commits it with that.
    async fn record(&self, mut transaction: Transaction, order_id: &str) -> Result<(), Error> {
        let insert = transaction.statement(&INSERT_CHANGE).bind(order_id);
        insert.execute().await?;
        events::tell(&self.outbox, &mut transaction, order_id).await?;
        transaction.commit().await
    }
}

async fn complete_read(transaction: &mut Transaction, row: &Row) -> Result<Order, Error> {
    let lines = transaction.statement(&LINES).bind(row.text("order_id")?);
    let lines = lines.fetch_all().await?;
    read_order(row, &lines)
}

fn read_order(row: &Row, lines: &[Row]) -> Result<Order, Error> {
    Ok(Order {
        id: row.text("order_id")?,
        account_id: row.text("account_id")?,
        request_id: row.text("request_id")?,
        state: read_state(row)?,
        cancel_reason: read_reason(row)?,
        lines: lines.iter().map(read_line).collect::<Result<_, _>>()?,
        money_held: row.integer("money_held")? != 0,
        version: row.integer("version")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

fn read_line(row: &Row) -> Result<Line, Error> {
    let minor_units = row.optional_integer("price_minor_units")?;
    let currency_code = row.optional_text("currency_code")?;
    Ok(Line {
        sku: row.text("sku")?,
        quantity: row.integer("quantity")?,
        unit_price: minor_units
            .zip(currency_code)
            .map(|(minor_units, currency_code)| Money {
                minor_units,
                currency_code,
            }),
    })
}

fn code(state: OrderState) -> i64 {
    match state {
        OrderState::Pending => 1,
        OrderState::Confirmed => 2,
        OrderState::Completed => 3,
        OrderState::Cancelled => 4,
        OrderState::Reserved => 5,
        OrderState::Paid => 6,
    }
}

fn read_state(row: &Row) -> Result<OrderState, Error> {
    match row.integer("state")? {
        1 => Ok(OrderState::Pending),
        2 => Ok(OrderState::Confirmed),
        3 => Ok(OrderState::Completed),
        4 => Ok(OrderState::Cancelled),
        5 => Ok(OrderState::Reserved),
        6 => Ok(OrderState::Paid),
        _ => Err(row.unreadable()),
    }
}

fn reason_code(reason: CancelReason) -> i64 {
    match reason {
        CancelReason::Requested => 1,
        CancelReason::OutOfStock => 2,
        CancelReason::TimedOut => 3,
        CancelReason::MixedCurrencies => 4,
        CancelReason::Refused => 5,
        CancelReason::PaymentDeclined => 6,
    }
}

fn read_reason(row: &Row) -> Result<Option<CancelReason>, Error> {
    match row.optional_integer("cancel_reason")? {
        None => Ok(None),
        Some(1) => Ok(Some(CancelReason::Requested)),
        Some(2) => Ok(Some(CancelReason::OutOfStock)),
        Some(3) => Ok(Some(CancelReason::TimedOut)),
        Some(4) => Ok(Some(CancelReason::MixedCurrencies)),
        Some(5) => Ok(Some(CancelReason::Refused)),
        Some(6) => Ok(Some(CancelReason::PaymentDeclined)),
        Some(_) => Err(row.unreadable()),
    }
}

//! What the services have written down, a page at a time.

use std::collections::BTreeMap;

use gantry_store::{Database, Row, Statement};

use crate::{
    books::{
        Judged, Money, Order, Payment, PaymentState, Reservation, ReservationState, Shelf, Shelves,
        State,
    },
    sources::Error,
};

/// Rows of one kind that are looked at: what a machine has memory for.
pub(crate) const ROWS_MAX: usize = 1_000_000;
/// Orders, payments or reservations of one statement.
const PAGE: i64 = 1_000;

const ORDERS: Statement = Statement::new(
    "audit.orders",
    "SELECT page.order_id AS id, state, unsettled, version, sku, quantity, price_minor_units,
         currency_code
     FROM (SELECT order_id, state, unsettled, version FROM orders
           WHERE order_id > $1 ORDER BY order_id LIMIT $2) AS page
     LEFT JOIN order_lines ON order_lines.order_id = page.order_id ORDER BY page.order_id",
);
const PAYMENTS: Statement = Statement::new(
    "audit.payments",
    "SELECT payment_id AS id, minor_units, currency_code, state FROM payments
     WHERE payment_id > $1 ORDER BY payment_id LIMIT $2",
);
const RESERVATIONS: Statement = Statement::new(
    "audit.reservations",
    "SELECT page.reservation_id AS id, state, sku, quantity
     FROM (SELECT reservation_id, state FROM reservations
           WHERE reservation_id > $1 ORDER BY reservation_id LIMIT $2) AS page
     LEFT JOIN reservation_lines ON reservation_lines.reservation_id = page.reservation_id
     ORDER BY page.reservation_id",
);
/// Of one moment: a shelf and what is held of it change together.
const SHELVES: Statement = Statement::new(
    "audit.shelves",
    "SELECT products.sku AS sku, on_hand, reserved,
         CAST(SUM(CASE WHEN state = 1 THEN quantity ELSE 0 END) AS BIGINT) AS held,
         CAST(SUM(CASE WHEN state = 2 THEN quantity ELSE 0 END) AS BIGINT) AS sold
     FROM products
     LEFT JOIN reservation_lines ON reservation_lines.sku = products.sku
     LEFT JOIN reservations ON reservations.reservation_id = reservation_lines.reservation_id
     GROUP BY products.sku, on_hand, reserved ORDER BY products.sku LIMIT $1",
);

/// Every order; none of them is judged yet.
pub(crate) async fn orders(database: &Database) -> Result<BTreeMap<String, Order>, Error> {
    let mut orders = BTreeMap::<String, Order>::new();
    pages(database, &ORDERS, |id, row| {
        let first = Order {
            state: order_state(row)?,
            unsettled: row.integer("unsettled")? != 0,
            version: row.integer("version")?,
            lines: BTreeMap::new(),
            total: None,
            judged: Judged::Later,
        };
        let order = orders.entry(id).or_insert(first);
        let Some((sku, quantity)) = line(row)? else {
            return Ok(orders.len());
        };
        let price = money(row, "price_minor_units")?;
        let price = price.map(|price| Money {
            minor_units: price.minor_units.saturating_mul(quantity),
            ..price
        });
        order.total = match (order.total.take(), price) {
            (None, price) if order.lines.is_empty() => price,
            (Some(total), Some(price)) if total.currency_code == price.currency_code => {
                Some(Money {
                    minor_units: total.minor_units.saturating_add(price.minor_units),
                    ..total
                })
            }
            _ => None,
        };
        order.lines.insert(sku, quantity);
        Ok(orders.len())
    })
    .await?;
    Ok(orders)
}

/// Every payment.
pub(crate) async fn payments(database: &Database) -> Result<BTreeMap<String, Payment>, Error> {
    let mut payments = BTreeMap::new();
    pages(database, &PAYMENTS, |id, row| {
        let state = match row.integer("state")? {
            1 => PaymentState::Pending,
            2 => PaymentState::Charged,
            3 => PaymentState::Declined,
            4 => PaymentState::Refunding,
            5 => PaymentState::Refunded,
            _ => return Err(row.unreadable()),
        };
        let amount = money(row, "minor_units")?;
        payments.insert(id, Payment { amount, state });
        Ok(payments.len())
    })
    .await?;
    Ok(payments)
}

/// Everything that is or was held for somebody.
pub(crate) async fn reservations(
    database: &Database,
) -> Result<BTreeMap<String, Reservation>, Error> {
    let mut reservations = BTreeMap::<String, Reservation>::new();
    pages(database, &RESERVATIONS, |id, row| {
        let first = Reservation {
            state: match row.integer("state")? {
                1 => ReservationState::Held,
                2 => ReservationState::Confirmed,
                3 => ReservationState::Released,
                _ => return Err(row.unreadable()),
            },
            lines: BTreeMap::new(),
        };
        let reservation = reservations.entry(id).or_insert(first);
        reservation.lines.extend(line(row)?);
        Ok(reservations.len())
    })
    .await?;
    Ok(reservations)
}

/// Every shelf.
pub(crate) async fn shelves(database: &Database) -> Result<Shelves, Error> {
    let most = i64::try_from(ROWS_MAX + 1).unwrap_or(i64::MAX);
    let rows = database.statement(&SHELVES).bind(most).fetch_all().await?;
    if rows.len() > ROWS_MAX {
        return Err(Error::TooMany(SHELVES.name()));
    }
    let shelves = rows.iter().map(|row| {
        let shelf = Shelf {
            on_hand: row.integer("on_hand")?,
            reserved: row.integer("reserved")?,
            held: row.integer("held")?,
            sold: row.integer("sold")?,
        };
        Ok((row.text("sku")?, shelf))
    });
    shelves.collect()
}

/// Hands every row of `statement` to `read`, with its identifier; `read` answers how many it has.
async fn pages(
    database: &Database,
    statement: &Statement,
    mut read: impl FnMut(String, &Row) -> Result<usize, gantry_store::Error>,
) -> Result<(), Error> {
    let mut after = String::new();
    loop {
        let page = database.statement(statement).bind(&*after).bind(PAGE);
        let rows = page.fetch_all().await?;
        // The last as the database sorts, which need not be as Rust does.
        let Some(last) = rows.last() else {
            return Ok(());
        };
        after = last.text("id")?;
        for row in &rows {
            if read(row.text("id")?, row)? > ROWS_MAX {
                return Err(Error::TooMany(statement.name()));
            }
        }
    }
}

fn order_state(row: &Row) -> Result<State, gantry_store::Error> {
    match row.integer("state")? {
        1 => Ok(State::Pending),
        2 => Ok(State::Confirmed),
        3 => Ok(State::Completed),
        4 => Ok(State::Cancelled),
        5 => Ok(State::Reserved),
        6 => Ok(State::Paid),
        _ => Err(row.unreadable()),
    }
}

fn line(row: &Row) -> Result<Option<(String, i64)>, gantry_store::Error> {
    let (sku, quantity) = (row.optional_text("sku")?, row.optional_integer("quantity")?);
    Ok(sku.zip(quantity))
}

fn money(row: &Row, minor_units: &str) -> Result<Option<Money>, gantry_store::Error> {
    let minor_units = row.optional_integer(minor_units)?;
    let currency_code = row.optional_text("currency_code")?;
    let both = minor_units.zip(currency_code);
    Ok(both.map(|(minor_units, currency_code)| Money {
        minor_units,
        currency_code,
    }))
}

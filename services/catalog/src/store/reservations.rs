//! Holding stock, taking it and putting it back, each in one transaction.

use std::time::Duration;

use gantry_store::{Error, Row, Statement, Timestamp, Transaction};

use super::{Store, read_price, read_sku};
use crate::domain::{Demand, Reservation, ReservationState, ReservedLine, Shortage};

const CLAIM: Statement = Statement::new(
    "catalog.claim_reservation",
    "INSERT INTO reservations (reservation_id, state, expires_at, updated_at)
     VALUES ($1, $2, $3, $4) ON CONFLICT (reservation_id) DO NOTHING",
);
const READ: Statement = Statement::new(
    "catalog.read_reservation",
    "SELECT state, expires_at FROM reservations WHERE reservation_id = $1",
);
const READ_LINES: Statement = Statement::new(
    "catalog.read_reservation_lines",
    "SELECT sku, quantity, price_minor_units, currency_code
     FROM reservation_lines WHERE reservation_id = $1",
);
const MOVE: Statement = Statement::new(
    "catalog.move_reservation",
    "UPDATE reservations SET state = $3, updated_at = $4
     WHERE reservation_id = $1 AND state = $2 AND expires_at > $5",
);
const INSERT_LINE: Statement = Statement::new(
    "catalog.insert_reservation_line",
    "INSERT INTO reservation_lines
         (reservation_id, sku, quantity, price_minor_units, currency_code)
     SELECT $1, sku, $3, price_minor_units, currency_code FROM products WHERE sku = $2",
);
const HOLD: Statement = Statement::new(
    "catalog.hold_stock",
    "UPDATE products SET reserved = reserved + $2 WHERE sku = $1 AND on_hand - reserved >= $2",
);
const AVAILABLE: Statement = Statement::new(
    "catalog.available_stock",
    "SELECT on_hand - reserved AS available FROM products WHERE sku = $1",
);
const UNHOLD: Statement = Statement::new(
    "catalog.unhold_stock",
    "UPDATE products SET reserved = reserved - $2 WHERE sku = $1",
);
const TAKE: Statement = Statement::new(
    "catalog.take_stock",
    "UPDATE products SET reserved = reserved - $2, on_hand = on_hand - $2 WHERE sku = $1",
);
const RETURN: Statement = Statement::new(
    "catalog.return_stock",
    "UPDATE products SET on_hand = on_hand + $2 WHERE sku = $1",
);
const EXPIRED: Statement = Statement::new(
    "catalog.expired_reservations",
    "SELECT reservation_id FROM reservations
     WHERE state = $1 AND expires_at <= $2 ORDER BY expires_at LIMIT $3",
);
const FORGET: Statement = Statement::new("catalog.forget_reservations", FORGET_SQL);
const FORGET_SQL: &str = "DELETE FROM reservations WHERE reservation_id IN
    (SELECT reservation_id FROM reservations WHERE state = $1 AND updated_at < $2 LIMIT $3)";

/// Of reservations that wait to be released or forgotten, how many one sweep takes.
const SWEEP_MAX: i64 = 200;
/// How long a released reservation is remembered: longer than anybody tries again.
const MEMORY: Duration = Duration::from_hours(7 * 24);
/// Before every time: reservations of any age.
const ANY_AGE: Timestamp = Timestamp::from_micros(i64::MIN);

/// What became of a wish to hold stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reserved {
    /// It is held or confirmed, now or since before.
    Done(Reservation),
    /// There was too little of these; nothing is held.
    Short(Vec<Shortage>),
    /// The identifier stands for other lines.
    Different,
    /// The identifier was released or has expired.
    Released,
}

/// What became of a wish to take held stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmed {
    /// It is taken, now or since before.
    Done(Reservation),
    /// It was released or has expired.
    Released,
    /// Nobody reserved under this identifier.
    Unknown,
}

/// What a reservation leaves behind when it ends.
#[derive(Clone, Copy)]
struct Move {
    from: ReservationState,
    to: ReservationState,
    /// Done to the stock of each line.
    stock: &'static Statement,
}

const CONFIRM: Move = Move {
    from: ReservationState::Held,
    to: ReservationState::Confirmed,
    stock: &TAKE,
};
const RELEASE_HELD: Move = Move {
    from: ReservationState::Held,
    to: ReservationState::Released,
    stock: &UNHOLD,
};
const RELEASE_CONFIRMED: Move = Move {
    from: ReservationState::Confirmed,
    to: ReservationState::Released,
    stock: &RETURN,
};

impl Store {
    /// Holds what `demand` asks for until `expires_at`: all or nothing.
    ///
    /// # Errors
    ///
    /// If the database fails; trying again is safe.
    pub async fn reserve(
        &self,
        id: &str,
        demand: &Demand,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Reserved, Error> {
        let mut transaction = self.database.begin("catalog.reserve").await?;
        let claimed = claim(
            &mut transaction,
            id,
            ReservationState::Held,
            now,
            expires_at,
        )
        .await?;
        if !claimed {
            let known = read(&mut transaction, id).await?;
            transaction.rollback().await?;
            return Ok(match known {
                Some(known) if is_gone(&known, now) => Reserved::Released,
                Some(known) if known.meets(demand) => Reserved::Done(known),
                Some(_) => Reserved::Different,
                None => Reserved::Released,
            });
        }
        let mut shortages = Vec::new();
        for (sku, quantity) in demand {
            let hold = transaction.statement(&HOLD).bind(sku.as_str());
            if hold.bind(*quantity).execute().await? == 0 {
                let available = transaction.statement(&AVAILABLE).bind(sku.as_str());
                let row = available.fetch_optional().await?;
                shortages.push(Shortage {
                    sku: sku.clone(),
                    requested: *quantity,
                    available: row.map_or(Ok(0), |row| row.integer("available"))?,
                });
            }
        }
        if !shortages.is_empty() {
            transaction.rollback().await?;
            return Ok(Reserved::Short(shortages));
        }
        for (sku, quantity) in demand {
            transaction
                .statement(&INSERT_LINE)
                .bind(id)
                .bind(sku.as_str())
                .bind(*quantity)
                .execute()
                .await?;
        }
        let lines = read_lines(&mut transaction, id).await?;
        transaction.commit().await?;
        Ok(Reserved::Done(Reservation {
            id: id.to_owned(),
            state: ReservationState::Held,
            lines,
            expires_at,
        }))
    }

    /// Takes what a reservation holds out of the stock for good.
    ///
    /// # Errors
    ///
    /// If the database fails; trying again is safe.
    pub async fn confirm(&self, id: &str, now: Timestamp) -> Result<Confirmed, Error> {
        let mut transaction = self.database.begin("catalog.confirm").await?;
        make(&mut transaction, id, CONFIRM, now, now).await?;
        let known = read(&mut transaction, id).await?;
        transaction.commit().await?;
        Ok(match known {
            None => Confirmed::Unknown,
            Some(known) if known.state == ReservationState::Confirmed => Confirmed::Done(known),
            Some(_) => Confirmed::Released,
        })
    }

    /// Puts the stock of a reservation back, confirmed or not; remembers an identifier nobody
    /// reserved under, so that a late reservation finds it released.
    ///
    /// # Errors
    ///
    /// If the database fails; trying again is safe.
    pub async fn release(&self, id: &str, now: Timestamp) -> Result<(), Error> {
        let mut transaction = self.database.begin("catalog.release").await?;
        if !claim(&mut transaction, id, ReservationState::Released, now, now).await? {
            for step in [RELEASE_HELD, RELEASE_CONFIRMED] {
                make(&mut transaction, id, step, now, ANY_AGE).await?;
            }
        }
        transaction.commit().await
    }

    /// Releases reservations that have expired and forgets those that were released long ago;
    /// answers how many were released. Bounded: what is left is for the next sweep.
    ///
    /// # Errors
    ///
    /// If the database fails; trying again is safe.
    pub async fn sweep(&self, now: Timestamp) -> Result<usize, Error> {
        let expired = self
            .database
            .statement(&EXPIRED)
            .bind(code(ReservationState::Held))
            .bind(now)
            .bind(SWEEP_MAX)
            .fetch_all()
            .await?;
        for row in &expired {
            let id = row.text("reservation_id")?;
            let mut transaction = self.database.begin("catalog.expire").await?;
            make(&mut transaction, &id, RELEASE_HELD, now, ANY_AGE).await?;
            transaction.commit().await?;
        }
        self.database
            .statement(&FORGET)
            .bind(code(ReservationState::Released))
            .bind(now.before(MEMORY))
            .bind(SWEEP_MAX)
            .execute()
            .await?;
        Ok(expired.len())
    }
}

/// Writes the reservation down unless its identifier is known; answers whether it did.
async fn claim(
    transaction: &mut Transaction,
    id: &str,
    state: ReservationState,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<bool, Error> {
    let rows = transaction
        .statement(&CLAIM)
        .bind(id)
        .bind(code(state))
        .bind(expires_at)
        .bind(now)
        .execute()
        .await?;
    Ok(rows == 1)
}

/// Moves the reservation, and the stock of its lines with it, if it stands where the move begins
/// and expires after `alive`.
async fn make(
    transaction: &mut Transaction,
    id: &str,
    step: Move,
    now: Timestamp,
    alive: Timestamp,
) -> Result<(), Error> {
    let moved = transaction
        .statement(&MOVE)
        .bind(id)
        .bind(code(step.from))
        .bind(code(step.to))
        .bind(now)
        .bind(alive)
        .execute()
        .await?;
    if moved == 0 {
        return Ok(());
    }
    for line in read_lines(transaction, id).await? {
        transaction
            .statement(step.stock)
            .bind(line.sku.as_str())
            .bind(line.quantity)
            .execute()
            .await?;
    }
    Ok(())
}

async fn read(transaction: &mut Transaction, id: &str) -> Result<Option<Reservation>, Error> {
    let read = transaction.statement(&READ).bind(id);
    let Some(row) = read.fetch_optional().await? else {
        return Ok(None);
    };
    Ok(Some(Reservation {
        id: id.to_owned(),
        state: read_state(&row)?,
        lines: read_lines(transaction, id).await?,
        expires_at: row.time("expires_at")?,
    }))
}

async fn read_lines(transaction: &mut Transaction, id: &str) -> Result<Vec<ReservedLine>, Error> {
    let rows = transaction
        .statement(&READ_LINES)
        .bind(id)
        .fetch_all()
        .await?;
    let lines = rows.iter().map(|row| {
        Ok(ReservedLine {
            sku: read_sku(row)?,
            quantity: row.integer("quantity")?,
            unit_price: read_price(row)?,
        })
    });
    let mut lines = lines.collect::<Result<Vec<_>, Error>>()?;
    // As `demand` is sorted, which a database need not do: two that change the stock of the same
    // products in different orders would be in each other's way for good.
    lines.sort_by(|one, other| one.sku.cmp(&other.sku));
    Ok(lines)
}

/// Whether its stock is back, or is as soon as the next sweep comes by.
fn is_gone(reservation: &Reservation, now: Timestamp) -> bool {
    match reservation.state {
        ReservationState::Held => reservation.expires_at <= now,
        ReservationState::Confirmed => false,
        ReservationState::Released => true,
    }
}

fn code(state: ReservationState) -> i64 {
    match state {
        ReservationState::Held => 1,
        ReservationState::Confirmed => 2,
        ReservationState::Released => 3,
    }
}

fn read_state(row: &Row) -> Result<ReservationState, Error> {
    match row.integer("state")? {
        1 => Ok(ReservationState::Held),
        2 => Ok(ReservationState::Confirmed),
        3 => Ok(ReservationState::Released),
        _ => Err(row.unreadable()),
    }
}

#[cfg(test)]
mod tests;

//! What is in the tables of the service under test, and in those of the platform beside them.

use gantry::contract::prost::{Message as _, Name as _};
use gantry_store::{Database, Error, Row, Statement};

use crate::{
    contract::{Credited, Debited},
    evidence::{Balance, Committed, Effect, Entry, Evidence, State},
};

/// Most rows of a kind: far beyond what a run makes.
const ROWS_MAX: i64 = 100_000;

const ENTRIES: Statement = Statement::new(
    "delivery.entries",
    "SELECT request_id, account, amount FROM entries LIMIT $1",
);
const COMMITTED: Statement = Statement::new(
    "delivery.committed",
    "SELECT event_id, aggregate_key, sequence, topic, body, state, created_at FROM event_outbox
     ORDER BY aggregate_key, sequence LIMIT $1",
);
const EFFECTS: Statement = Statement::new(
    "delivery.effects",
    "SELECT account, place, event_id, request_id, sequence, amount FROM effects LIMIT $1",
);
const BALANCES: Statement = Statement::new(
    "delivery.balances",
    "SELECT account, effects, amount FROM balances LIMIT $1",
);

/// Adds what the tables say to `evidence`.
///
/// # Errors
///
/// If they cannot be read.
pub(crate) async fn read(database: &Database, evidence: &mut Evidence) -> Result<(), Error> {
    for row in all(database, &ENTRIES).await? {
        let entry = Entry {
            account: row.text("account")?,
            amount: row.integer("amount")?,
        };
        evidence.entries.insert(row.text("request_id")?, entry);
    }
    for row in all(database, &COMMITTED).await? {
        evidence.committed.push(committed(&row)?);
    }
    for row in all(database, &EFFECTS).await? {
        evidence.effects.push(Effect {
            event_id: row.text("event_id")?,
            request_id: row.text("request_id")?,
            account: row.text("account")?,
            place: row.narrow("place")?,
            sequence: row.narrow("sequence")?,
            amount: row.integer("amount")?,
        });
    }
    for row in all(database, &BALANCES).await? {
        let balance = Balance {
            count: row.narrow("effects")?,
            amount: row.integer("amount")?,
        };
        evidence.balances.insert(row.text("account")?, balance);
    }
    let pending = evidence.committed.iter();
    let pending = pending.filter(|it| it.state == State::Pending).count();
    evidence.left.pending = u64::try_from(pending).unwrap_or(u64::MAX);
    Ok(())
}

async fn all(database: &Database, statement: &Statement) -> Result<Vec<Row>, Error> {
    database
        .statement(statement)
        .bind(ROWS_MAX)
        .fetch_all()
        .await
}

fn committed(row: &Row) -> Result<Committed, Error> {
    let (topic, body) = (row.text("topic")?, row.bytes("body")?);
    let unreadable = |_| row.unreadable();
    let (request_id, amount) = if topic == Debited::full_name() {
        let event = Debited::decode(&*body).map_err(unreadable)?;
        (event.request_id, -event.amount)
    } else {
        let event = Credited::decode(&*body).map_err(unreadable)?;
        (event.request_id, event.amount)
    };
    Ok(Committed {
        event_id: row.text("event_id")?,
        request_id,
        account: row.text("aggregate_key")?,
        sequence: row.narrow("sequence")?,
        amount,
        at: row.time("created_at")?.micros(),
        state: match row.integer("state")? {
            0 => State::Pending,
            1 => State::Delivered,
            2 => State::Unroutable,
            _ => return Err(row.unreadable()),
        },
    })
}

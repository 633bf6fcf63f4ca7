//! The ledger in SQL.

use gantry_store::{Database, Error, Migration, Row, Statement, Timestamp};
use serde::Serialize;

/// The shape of the database.
pub const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "bank",
    sql: include_str!("../migrations/0001_bank.sql"),
}];

const INSERT: Statement = Statement::new(
    "bank.insert_charge",
    "INSERT INTO charges (charge_key, reference, minor_units, currency_code, state,
         created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT (charge_key) DO NOTHING",
);
const FIND: Statement = Statement::new(
    "bank.find_charge",
    "SELECT charge_key, reference, minor_units, currency_code, state FROM charges
     WHERE charge_key = $1",
);
const REFUND: Statement = Statement::new(
    "bank.refund_charge",
    "UPDATE charges SET state = $2, updated_at = $4 WHERE charge_key = $1 AND state = $3",
);
const LIST: Statement = Statement::new(
    "bank.list_charges",
    "SELECT charge_key, reference, minor_units, currency_code, state FROM charges
     WHERE charge_key > $1 ORDER BY charge_key LIMIT $2",
);
const TOTALS: Statement = Statement::new(
    "bank.total_charges",
    "SELECT currency_code, CAST(SUM(minor_units) AS BIGINT) AS minor_units FROM charges
     WHERE state = $1 GROUP BY currency_code ORDER BY currency_code",
);

/// Charges of one page of the ledger.
pub const PAGE: usize = 1_000;

/// Where a charge stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The money is taken.
    Charged,
    /// It was taken and given back.
    Refunded,
    /// It was refused, and will be again.
    Declined,
    /// It was refunded before it ever came, and will not be taken.
    Void,
}

/// One charge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Charge {
    /// The idempotency key it came with.
    pub charge: String,
    /// What it is for, as the merchant says.
    pub reference: String,
    /// In the smallest unit of its currency.
    pub amount_minor_units: i64,
    /// ISO 4217.
    pub currency_code: String,
    /// Where it stands.
    pub state: State,
}

/// What is charged and not refunded, in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Total {
    /// ISO 4217.
    pub currency_code: String,
    /// The sum, in the smallest unit of the currency.
    pub amount_minor_units: i64,
}

/// The rows of this service.
#[derive(Debug, Clone)]
pub struct Store {
    database: Database,
}

impl Store {
    /// Rows in `database`, which has gone through [`MIGRATIONS`].
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Writes a charge down unless there is one under its key; answers the one there is.
    ///
    /// # Errors
    ///
    /// If the database fails; trying again is safe.
    pub async fn charge(&self, charge: &Charge) -> Result<Charge, Error> {
        let mut transaction = self.database.begin("bank.charge").await?;
        transaction
            .statement(&INSERT)
            .bind(&charge.charge)
            .bind(&charge.reference)
            .bind(charge.amount_minor_units)
            .bind(&charge.currency_code)
            .bind(code(charge.state))
            .bind(Timestamp::now())
            .execute()
            .await?;
        let find = transaction.statement(&FIND).bind(&charge.charge);
        let found = read(&find.fetch_one().await?)?;
        transaction.commit().await?;
        Ok(found)
    }

    /// Gives a charge back; one that never came is void from then on.
    ///
    /// # Errors
    ///
    /// If the database fails; trying again is safe.
    pub async fn refund(&self, charge_key: &str) -> Result<Charge, Error> {
        let void = Charge {
            charge: charge_key.to_owned(),
            reference: String::new(),
            amount_minor_units: 0,
            currency_code: String::new(),
            state: State::Void,
        };
        // Whoever comes first of a charge and its refund, the other finds it.
        self.charge(&void).await?;
        let refund = self.database.statement(&REFUND).bind(charge_key);
        let (to, from) = (code(State::Refunded), code(State::Charged));
        refund
            .bind(to)
            .bind(from)
            .bind(Timestamp::now())
            .execute()
            .await?;
        let find = self.database.statement(&FIND).bind(charge_key);
        read(&find.fetch_one().await?)
    }

    /// A page of charges after `after`, by their keys.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn list(&self, after: &str) -> Result<Vec<Charge>, Error> {
        let page = i64::try_from(PAGE).unwrap_or(i64::MAX);
        let list = self.database.statement(&LIST).bind(after).bind(page);
        list.fetch_all().await?.iter().map(read).collect()
    }

    /// What is charged and not refunded.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn totals(&self) -> Result<Vec<Total>, Error> {
        let totals = self.database.statement(&TOTALS).bind(code(State::Charged));
        let rows = totals.fetch_all().await?;
        rows.iter()
            .map(|row| {
                Ok(Total {
                    currency_code: row.text("currency_code")?,
                    amount_minor_units: row.integer("minor_units")?,
                })
            })
            .collect()
    }
}

fn read(row: &Row) -> Result<Charge, Error> {
    Ok(Charge {
        charge: row.text("charge_key")?,
        reference: row.text("reference")?,
        amount_minor_units: row.integer("minor_units")?,
        currency_code: row.text("currency_code")?,
        state: match row.integer("state")? {
            1 => State::Charged,
            2 => State::Refunded,
            3 => State::Declined,
            4 => State::Void,
            _ => return Err(row.unreadable()),
        },
    })
}

fn code(state: State) -> i64 {
    match state {
        State::Charged => 1,
        State::Refunded => 2,
        State::Declined => 3,
        State::Void => 4,
    }
}

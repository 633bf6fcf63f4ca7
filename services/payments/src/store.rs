//! Payments in SQL.
//!
//! A payment's row is written before the bank is asked, so that whatever became of a request is
//! known to be unknown, and found out by asking again under the same key.

use gantry_store::{Database, Error, Migration, Row, Statement, Timestamp};

use crate::domain::{Money, Payment, PaymentState};

/// The shape of the database.
pub const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "payments",
    sql: include_str!("../migrations/0001_payments.sql"),
}];

const INSERT: Statement = Statement::new(
    "payments.insert_payment",
    "INSERT INTO payments (payment_id, minor_units, currency_code, state, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT (payment_id) DO NOTHING",
);
const FIND: Statement = Statement::new(
    "payments.find_payment",
    "SELECT payment_id, minor_units, currency_code, state, created_at, updated_at
     FROM payments WHERE payment_id = $1",
);
const MOVE: Statement = Statement::new(
    "payments.move_payment",
    "UPDATE payments SET state = $2, updated_at = $5
     WHERE payment_id = $1 AND state IN ($3, $4)",
);

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

    /// The payment `id`, begun now with `amount` where there is none.
    ///
    /// # Errors
    ///
    /// If the database fails; trying again is safe.
    pub async fn begin(&self, id: &str, amount: &Money) -> Result<Payment, Error> {
        self.insert(id, Some(amount), PaymentState::Pending).await
    }

    /// The payment `id`, which is to be given back from now on, unless it was declined. One that is
    /// unknown is known from now on.
    ///
    /// # Errors
    ///
    /// If the database fails; trying again is safe.
    pub async fn begin_refund(&self, id: &str) -> Result<Payment, Error> {
        self.insert(id, None, PaymentState::Refunding).await?;
        let from = [PaymentState::Pending, PaymentState::Charged];
        self.settle(id, from, PaymentState::Refunding).await
    }

    /// Notes what the bank said, if the payment still stands in one of `from`; answers how it stands.
    ///
    /// # Errors
    ///
    /// If the database fails; trying again is safe.
    pub async fn settle(
        &self,
        id: &str,
        from: [PaymentState; 2],
        to: PaymentState,
    ) -> Result<Payment, Error> {
        self.database
            .statement(&MOVE)
            .bind(id)
            .bind(code(to))
            .bind(code(from[0]))
            .bind(code(from[1]))
            .bind(Timestamp::now())
            .execute()
            .await?;
        let find = self.database.statement(&FIND).bind(id);
        read(&find.fetch_one().await?)
    }

    /// One payment.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn find(&self, id: &str) -> Result<Option<Payment>, Error> {
        let find = self.database.statement(&FIND).bind(id);
        let row = find.fetch_optional().await?;
        row.as_ref().map(read).transpose()
    }

    async fn insert(
        &self,
        id: &str,
        amount: Option<&Money>,
        state: PaymentState,
    ) -> Result<Payment, Error> {
        self.database
            .statement(&INSERT)
            .bind(id)
            .bind(amount.map(|amount| amount.minor_units))
            .bind(amount.map(|amount| &*amount.currency_code))
            .bind(code(state))
            .bind(Timestamp::now())
            .execute()
            .await?;
        let find = self.database.statement(&FIND).bind(id);
        read(&find.fetch_one().await?)
    }
}

fn read(row: &Row) -> Result<Payment, Error> {
    let minor_units = row.optional_integer("minor_units")?;
    let currency_code = row.optional_text("currency_code")?;
    let amount = minor_units.zip(currency_code);
    Ok(Payment {
        id: row.text("payment_id")?,
        amount: amount.map(|(minor_units, currency_code)| Money {
            minor_units,
            currency_code,
        }),
        state: match row.integer("state")? {
            1 => PaymentState::Pending,
            2 => PaymentState::Charged,
            3 => PaymentState::Declined,
            4 => PaymentState::Refunding,
            5 => PaymentState::Refunded,
            _ => return Err(row.unreadable()),
        },
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

fn code(state: PaymentState) -> i64 {
    match state {
        PaymentState::Pending => 1,
        PaymentState::Charged => 2,
        PaymentState::Declined => 3,
        PaymentState::Refunding => 4,
        PaymentState::Refunded => 5,
    }
}

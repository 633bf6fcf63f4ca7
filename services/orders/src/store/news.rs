//! What accounts are still to be told.

use gantry_store::{Error, Statement, Timestamp};

use super::{DUE_MAX, Store, read_state};
use crate::domain::OrderState;

const UNTOLD: Statement = Statement::new(
    "orders.untold_changes",
    "SELECT order_changes.order_id, order_changes.version, order_changes.state,
         orders.account_id, news_held.tries
     FROM order_changes
     JOIN orders ON orders.order_id = order_changes.order_id
     LEFT JOIN news_held ON news_held.account_id = orders.account_id
     WHERE untold = 1 AND (held_until IS NULL OR held_until <= $1)
     ORDER BY changed_at, order_changes.order_id, order_changes.version LIMIT $2",
);
const TOLD: Statement = Statement::new(
    "orders.tell_change",
    "UPDATE order_changes SET untold = 0 WHERE order_id = $1 AND version = $2",
);
const SET_ASIDE: Statement = Statement::new(
    "orders.set_change_aside",
    "UPDATE order_changes SET untold = 2 WHERE order_id = $1 AND version = $2 AND untold = 1",
);
const HOLD: Statement = Statement::new(
    "orders.hold_news",
    "INSERT INTO news_held (account_id, tries, held_until)
     SELECT $1, $2, $3 FROM order_changes WHERE order_id = $4 AND version = $5 AND untold = 1
     ON CONFLICT (account_id) DO UPDATE SET tries = $2, held_until = $3",
);
const LET_GO: Statement = Statement::new(
    "orders.let_news_go",
    "DELETE FROM news_held WHERE account_id = $1",
);

/// A step that its account is to be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Which order.
    pub order_id: String,
    /// Which step of it.
    pub version: i64,
    /// Where it led.
    pub state: OrderState,
    /// Whose order.
    pub account_id: String,
    /// How often it failed, where the account's were held for that.
    pub held: Option<u32>,
}

impl Store {
    /// Steps that accounts have not been told of, the oldest first, a bounded number; none of an
    /// account whose news are held at `now`.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn untold(&self, now: Timestamp) -> Result<Vec<News>, Error> {
        let untold = self.database.statement(&UNTOLD).bind(now).bind(DUE_MAX);
        let rows = untold.fetch_all().await?;
        rows.iter()
            .map(|row| {
                Ok(News {
                    order_id: row.text("order_id")?,
                    version: row.integer("version")?,
                    state: read_state(row)?,
                    account_id: row.text("account_id")?,
                    held: row
                        .optional_integer("tries")?
                        .map(|tries| u32::try_from(tries).unwrap_or(u32::MAX)),
                })
            })
            .collect()
    }

    /// Notes that an account was told.
    ///
    /// # Errors
    ///
    /// If the database fails; then it is told again.
    pub async fn told(&self, news: &News) -> Result<(), Error> {
        let told = self.database.statement(&TOLD).bind(&news.order_id);
        told.bind(news.version).execute().await?;
        self.let_go(news).await
    }

    /// Notes that an account cannot be told, and that nobody is to try any more; answers whether
    /// somebody would have. The row stays, for whoever looks into it.
    ///
    /// # Errors
    ///
    /// If the database fails; then it is tried again.
    pub async fn set_aside(&self, news: &News) -> Result<bool, Error> {
        let aside = self.database.statement(&SET_ASIDE).bind(&news.order_id);
        let rows = aside.bind(news.version).execute().await?;
        self.let_go(news).await?;
        Ok(rows == 1)
    }

    /// Holds all news of an account until `until`, after the oldest has failed `tries` times: they
    /// are told in the order in which they came about. Nothing where another has told them since.
    ///
    /// # Errors
    ///
    /// If the database fails; then they are not held.
    pub async fn hold(&self, news: &News, tries: u32, until: Timestamp) -> Result<(), Error> {
        let hold = self.database.statement(&HOLD).bind(&news.account_id);
        let hold = hold.bind(i64::from(tries)).bind(until);
        let hold = hold.bind(&news.order_id).bind(news.version);
        hold.execute().await?;
        Ok(())
    }

    async fn let_go(&self, news: &News) -> Result<(), Error> {
        // Nearly all are told at once.
        if news.held.is_some() {
            let let_go = self.database.statement(&LET_GO).bind(&news.account_id);
            let_go.execute().await?;
        }
        Ok(())
    }
}

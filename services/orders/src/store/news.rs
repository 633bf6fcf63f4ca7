//! What accounts are still to be told.

use gantry_store::{Error, Statement};

use super::{DUE_MAX, Store, read_state};
use crate::domain::OrderState;

const UNTOLD: Statement = Statement::new(
    "orders.untold_changes",
    "SELECT order_changes.order_id, order_changes.version, order_changes.state, account_id
     FROM order_changes JOIN orders ON orders.order_id = order_changes.order_id
     WHERE untold = 1 ORDER BY changed_at LIMIT $1",
);
const TOLD: Statement = Statement::new(
    "orders.tell_change",
    "UPDATE order_changes SET untold = 0 WHERE order_id = $1 AND version = $2",
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
}

impl Store {
    /// Steps that accounts have not been told of, the oldest first, a bounded number.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn untold(&self) -> Result<Vec<News>, Error> {
        let untold = self.database.statement(&UNTOLD).bind(DUE_MAX);
        let rows = untold.fetch_all().await?;
        rows.iter()
            .map(|row| {
                Ok(News {
                    order_id: row.text("order_id")?,
                    version: row.integer("version")?,
                    state: read_state(row)?,
                    account_id: row.text("account_id")?,
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
        Ok(())
    }
}

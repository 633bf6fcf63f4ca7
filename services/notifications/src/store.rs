//! Notifications in SQL.
//!
//! Those of an account are counted by a row of the account's own, which whoever adds one holds until
//! it is visible: one with a higher position never shows before one with a lower, so whoever has
//! seen a position has seen all before it.

use gantry_store::{Database, Error, Migration, Row, Statement, Timestamp, Transaction};

use crate::domain::{Event, Kind, Notification};

/// The shape of the database.
pub const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "notifications",
    sql: include_str!("../migrations/0001_notifications.sql"),
}];

const COUNT: Statement = Statement::new(
    "notifications.count_inbox",
    "INSERT INTO inboxes (account_id, position) VALUES ($1, 1)
     ON CONFLICT (account_id) DO UPDATE SET position = inboxes.position + 1 RETURNING position",
);
const INSERT: Statement = Statement::new(
    "notifications.insert_notification",
    "INSERT INTO notifications
         (notification_id, account_id, position, kind, order_id, created_at)
     VALUES ($1, $2, $3, $4, $5, $6)",
);
const LIST: Statement = Statement::new(
    "notifications.list_notifications",
    "SELECT notification_id, account_id, position, kind, order_id, created_at
     FROM notifications WHERE account_id = $1 AND position < $2 ORDER BY position DESC LIMIT $3",
);
const AFTER: Statement = Statement::new(
    "notifications.later_notifications",
    "SELECT notification_id, account_id, position, kind, order_id, created_at
     FROM notifications WHERE account_id = $1 AND position > $2 ORDER BY position LIMIT $3",
);
const FORGET: Statement = Statement::new(
    "notifications.forget_notifications",
    "DELETE FROM notifications WHERE notification_id IN
         (SELECT notification_id FROM notifications WHERE created_at < $1 LIMIT $2)",
);

/// Notifications a watch reads at once.
const AFTER_MAX: i64 = 100;
/// Notifications one sweep forgets.
const FORGET_MAX: i64 = 1_000;

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

    /// Notifications of `account_id` before `position`, the newest first, so many.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn list(
        &self,
        account_id: &str,
        position: i64,
        count: i64,
    ) -> Result<Vec<Notification>, Error> {
        let list = self.database.statement(&LIST).bind(account_id);
        let rows = list.bind(position).bind(count).fetch_all().await?;
        rows.iter().map(read).collect()
    }

    /// Notifications of `account_id` after `position`, the oldest first, a few at a time.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn after(&self, account_id: &str, position: i64) -> Result<Vec<Notification>, Error> {
        let after = self.database.statement(&AFTER).bind(account_id);
        let rows = after.bind(position).bind(AFTER_MAX).fetch_all().await?;
        rows.iter().map(read).collect()
    }

    /// Forgets notifications from before `until`, a bounded number.
    ///
    /// # Errors
    ///
    /// If the database fails; trying again is safe.
    pub async fn forget(&self, until: Timestamp) -> Result<u64, Error> {
        let forget = self.database.statement(&FORGET);
        forget.bind(until).bind(FORGET_MAX).execute().await
    }
}

/// Keeps `event`, with `transaction` or not at all; it was not kept before.
///
/// # Errors
///
/// If the database fails.
pub async fn record(transaction: &mut Transaction, event: &Event) -> Result<(), Error> {
    let count = transaction.statement(&COUNT).bind(&event.account_id);
    let position = count.fetch_one().await?.integer("position")?;
    let insert = transaction.statement(&INSERT).bind(&event.id);
    let insert = insert.bind(&event.account_id).bind(position);
    let insert = insert.bind(code(event.kind)).bind(&event.order_id);
    insert.bind(Timestamp::now()).execute().await?;
    Ok(())
}

fn read(row: &Row) -> Result<Notification, Error> {
    Ok(Notification {
        event: Event {
            id: row.text("notification_id")?,
            account_id: row.text("account_id")?,
            kind: match row.integer("kind")? {
                1 => Kind::OrderConfirmed,
                2 => Kind::OrderCancelled,
                _ => return Err(row.unreadable()),
            },
            order_id: row.text("order_id")?,
        },
        position: row.integer("position")?,
        created_at: row.time("created_at")?,
    })
}

fn code(kind: Kind) -> i64 {
    match kind {
        Kind::OrderConfirmed => 1,
        Kind::OrderCancelled => 2,
    }
}

//! SQL for services: pools, transactions, migrations, checks and telemetry around named statements.
//!
//! A service writes its queries as [`Statement`]s, each with a name, and runs them on a
//! [`Database`] or in a [`Transaction`]. SQLite is built in and needs no installation; PostgreSQL is
//! there for whoever has it. Which of them it is, is a [`Url`] in the configuration, and statements
//! are the same on both: placeholders are `$1`, column types `TEXT`, `BIGINT` and `BYTEA` or `BLOB`,
//! and nothing else is assumed. Texts are compared and sorted as the database does, which need not be
//! as Rust does, and hold no zero byte. sqlx's `Any` driver does not show in this interface.
//!
//! ```text
//! Database ──statement──▶ Query ──bind, fetch──▶ Row
//!    │                      ▲
//!    └──begin──▶ Transaction┘
//!    └──▶ Pool, swapped whole when its size changes
//! ```
//!
//! Values are bound, never logged; errors and spans carry the statement's name alone.

mod attach;
mod config;
mod connection;
mod database;
mod engine;
mod error;
mod migrate;
mod open;
mod page;
mod pool;
mod query;
#[cfg_attr(
    not(any(test, feature = "testing")),
    expect(unreachable_pub, reason = "only tests have a name for it")
)]
mod step;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod time;
mod transaction;
mod turn;
mod url;
mod value;

pub use config::Config;
pub use database::Database;
pub use error::{Error, Kind};
pub use migrate::{MigrateError, Migration};
pub use open::OpenError;
pub use page::{Page, PageTokenError};
pub use query::{Query, Statement};
pub use time::Timestamp;
pub use transaction::Transaction;
pub use url::{Url, UrlError};
pub use value::{Row, Value};

//! A bank that is somebody else's: an HTTP API with idempotency keys, a ledger, and bad days that
//! can be switched on.
//!
//! It stands for what the platform does not control. It speaks no gRPC, is found by its URL, and
//! knows nothing of the shop.
//!
//! ```text
//! POST /charges   Idempotency-Key, {"amount_minor_units", "currency_code", "reference"}
//! POST /refunds   Idempotency-Key, {"charge"}: the key of the charge
//! GET  /ledger    ?after=KEY
//! GET  /health
//! PUT  /control   {"latency_ms", "error_percent", "outage"}
//! ```

mod api;
pub mod config;
mod control;
pub mod store;

use gantry::{BoxError, app::App};
use gantry_store::Database;

pub use config::Config;

use crate::{api::Bank, control::Control, store::Store};

/// Builds the service.
///
/// # Errors
///
/// If its database cannot be opened.
pub async fn start(app: &mut App<Config>) -> Result<(), BoxError> {
    let config = app.config();
    let database = config.map(|config| &config.database);
    let database = Database::attach(app, database, store::MIGRATIONS).await?;
    let bank = Bank {
        store: Store::new(database),
        control: Control::default(),
        charges: config.map(|config| &config.charges),
        tasks: app.tasks(),
    };
    app.serve_http(api::router(bank));
    Ok(())
}

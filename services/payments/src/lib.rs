//! Charges and refunds, through a bank.

pub mod bank;
pub mod config;
pub mod domain;
pub mod handler;
pub mod store;

use gantry::{BoxError, app::App, health::Check};
use gantry_store::Database;
use shop_proto::payments::v1::payments_service_server::PaymentsServiceServer;

pub use config::Config;

use crate::{bank::Bank, handler::Payments, store::Store};

/// Builds the service.
///
/// # Errors
///
/// If its database cannot be opened, or the bank's address is none.
pub async fn start(app: &mut App<Config>) -> Result<(), BoxError> {
    let config = app.config();
    let database = config.map(|config| &config.database);
    let database = Database::attach(app, database, store::MIGRATIONS).await?;
    let bank = config.map(|config| &config.bank);
    let breaker = app.breaker("bank", bank.map(|bank| &bank.breaker));
    let bank = Bank::new(bank, app.tasks(), breaker)?;
    let latency_max = config.read(|config| config.bank.latency_max);
    app.check(Check::http("bank", &bank.health_url(), latency_max)?);
    app.serve(PaymentsServiceServer::new(Payments::new(
        Store::new(database),
        bank,
    )));
    Ok(())
}

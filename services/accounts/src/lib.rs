//! Who a person is: registration, login, and the signed tokens other services trust.

pub mod config;
pub mod domain;
pub mod handler;
pub mod keys;
pub mod metrics;
pub mod password;
pub mod signing;
pub mod store;

use gantry::{BoxError, app::App};
use gantry_store::Database;
use shop_proto::accounts::v1::accounts_service_server::AccountsServiceServer;

pub use config::Config;

use crate::{handler::Accounts, keys::Keys, metrics::Metrics, password::Passwords, store::Store};

/// Builds the service.
///
/// # Errors
///
/// If its database cannot be opened, or holds a key that cannot be read.
pub async fn start(app: &mut App<Config>) -> Result<(), BoxError> {
    let live = app.config();
    let config = live.load();
    let database = live.map(|config| &config.database);
    let database = Database::attach(app, database, store::MIGRATIONS).await?;
    let store = Store::new(database);

    let keys = Keys::open(store.clone(), config.tokens.key_lifetime).await?;
    let stopping = app.tasks().stopping();
    let fresh = keys.clone().keep_fresh();
    app.spawn("signing keys", async move {
        stopping.run_until_cancelled(fresh).await;
    });

    let passwords = Passwords::new(config.passwords.running_max, config.passwords.line_max)?;
    let tokens = live.map(|config| &config.tokens);
    let accounts = Accounts::new(store, passwords, keys, tokens, Metrics::register());
    app.serve(AccountsServiceServer::new(accounts));
    Ok(())
}

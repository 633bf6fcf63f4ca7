//! Products, their stock, and reservations of it.

pub mod config;
mod convert;
pub mod domain;
pub mod handler;
pub mod import;
pub mod sales;
pub mod store;

use gantry::{BoxError, app::App, config::Live, status};
use gantry_events::Events;
use gantry_store::{Database, Timestamp};
use shop_proto::{
    catalog::v1::catalog_service_server::CatalogServiceServer,
    orders::v1::{OrderCancelled, OrderConfirmed, OrderPaid, OrderPlaced},
};
use tokio::time;

pub use config::Config;

use crate::{
    config::Reservations,
    handler::Catalog,
    sales::{Sales, Stock},
    store::Store,
};

/// Builds the service.
///
/// # Errors
///
/// If its database cannot be opened.
pub async fn start(app: &mut App<Config>) -> Result<(), BoxError> {
    let config = app.config();
    let database = config.map(|config| &config.database);
    let database = Database::attach(app, database, store::MIGRATIONS).await?;
    let broker = config.map(|config| &config.broker);
    let settings = config.map(|config| &config.events);
    let events = Events::attach(app, &database, &broker, settings).await?;
    let stock = events.consumer("stock").on::<OrderConfirmed>(Stock);
    stock.on::<OrderCancelled>(Stock).start();
    let sales = events.consumer("sales").on::<OrderPlaced>(Sales);
    let sales = sales.on::<OrderPaid>(Sales);
    sales.on::<OrderCancelled>(Sales).start();
    let store = Store::new(database);

    let rules = config.derive(|config| config.tokens.rules());
    let keys = shop_keys::keys_of(app.client("accounts"));
    app.verify_tokens(keys, rules);

    let reservations = config.map(|config| &config.reservations);

    let sweeper = sweep(store.clone(), reservations.clone());
    let stopping = app.tasks().stopping();
    app.spawn("reservation sweeper", async move {
        stopping.run_until_cancelled(sweeper).await;
    });

    let catalog = Catalog::new(store, reservations, app.draining());
    app.serve(CatalogServiceServer::new(catalog));
    Ok(())
}

/// Releases what has expired, now and then. Replicas may sweep at the same time: a reservation
/// moves once.
async fn sweep(store: Store, reservations: Live<Reservations>) {
    loop {
        time::sleep(reservations.load().sweep_interval).await;
        match store.sweep(Timestamp::now()).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "expired reservations were released"),
            Err(error) => {
                tracing::warn!(error = %status::chain(&error), "reservations were not swept");
            }
        }
    }
}

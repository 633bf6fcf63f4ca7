//! Orders: placed, confirmed, watched and cancelled.

pub mod catalog;
pub mod changes;
pub mod config;
mod convert;
pub mod domain;
pub mod handler;
pub mod payments;
pub mod placing;
pub mod store;
pub mod watch;

use gantry::{BoxError, app::App, config::Live, status};
use gantry_events::Events;
use gantry_store::{Database, Timestamp};
use shop_proto::orders::v1::orders_service_server::OrdersServiceServer;
use tokio::time;

pub use config::Config;

use crate::{
    catalog::Catalog,
    changes::Changes,
    handler::Orders,
    payments::Payments,
    placing::{Others, Placing},
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
    let store = Store::new(database, events.outbox());
    let stopping = app.tasks().stopping();

    let rules = config.derive(|config| config.tokens.rules());
    let keys = shop_keys::keys_of(app.client("accounts"));
    app.verify_tokens(keys, rules);

    let changes = Changes::default();
    let catalog = Catalog::new(app.client("catalog"));
    let config = config.map(|config| &config.orders);
    let payments = Payments::new(app.client("payments"));
    let others = Others { catalog, payments };
    let placing = Placing::new(store.clone(), others, changes.clone(), config.clone());
    let sweeper = sweep(placing.clone(), config.clone());
    app.spawn("order sweeper", async move {
        stopping.run_until_cancelled(sweeper).await;
    });

    app.serve(OrdersServiceServer::new(Orders {
        store,
        placing,
        changes,
        config,
        draining: app.draining(),
    }));
    Ok(())
}

/// Takes orders their next step, now and then. Each kind of step goes at its own pace: while another
/// service hangs, orders are still completed.
async fn sweep(placing: Placing, config: Live<config::Orders>) {
    tokio::join!(
        now_and_then(&config, |now| placing.complete_due(now)),
        now_and_then(&config, |now| placing.take_up_due(now)),
    );
}

async fn now_and_then<F>(config: &Live<config::Orders>, step: impl Fn(Timestamp) -> F)
where
    F: Future<Output = Result<(), gantry_store::Error>>,
{
    loop {
        time::sleep(config.load().sweep_interval).await;
        if let Err(error) = step(Timestamp::now()).await {
            tracing::warn!(error = %status::chain(&error), "orders were not swept");
        }
    }
}

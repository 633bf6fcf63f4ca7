//! What people are told: kept, listed and streamed.

pub mod config;
pub mod domain;
pub mod handler;
pub mod notices;
pub mod store;
pub mod watch;

use std::sync::Arc;

use gantry::{BoxError, app::App, config::Live, status};
use gantry_events::Events;
use gantry_store::{Database, Timestamp};
use shop_proto::{
    notifications::v1::notifications_service_server::NotificationsServiceServer,
    orders::v1::{OrderCancelled, OrderConfirmed},
};
use tokio::{sync::Semaphore, time};

pub use config::Config;

use crate::{handler::Notifications, notices::Notices, store::Store, watch::News};

/// Builds the service.
///
/// # Errors
///
/// If its database cannot be opened.
pub async fn start(app: &mut App<Config>) -> Result<(), BoxError> {
    let config = app.config();
    let database = config.map(|config| &config.database);
    let database = Database::attach(app, database, store::MIGRATIONS).await?;
    let news = News::default();
    let notices = Notices { news: news.clone() };
    let broker = config.map(|config| &config.broker);
    let settings = config.map(|config| &config.events);
    let events = Events::attach(app, &database, &broker, settings).await?;
    let consumer = events.consumer("notices");
    let consumer = consumer.on::<OrderConfirmed>(notices.clone());
    consumer.on::<OrderCancelled>(notices).start();
    let store = Store::new(database);
    let stopping = app.tasks().stopping();

    let rules = config.derive(|config| config.tokens.rules());
    let keys = shop_keys::keys_of(app.client("accounts"));
    app.verify_tokens(keys, rules);

    let config = config.map(|config| &config.notifications);
    let sweeper = sweep(store.clone(), config.clone());
    app.spawn("notification sweeper", async move {
        stopping.run_until_cancelled(sweeper).await;
    });

    let watchers_max = config.load().watchers_max;
    app.serve(NotificationsServiceServer::new(Notifications {
        store,
        news,
        config,
        draining: app.draining(),
        places: Arc::new(Semaphore::new(watchers_max)),
    }));
    Ok(())
}

/// Forgets what was kept long enough, now and then.
async fn sweep(store: Store, config: Live<config::Notifications>) {
    loop {
        time::sleep(config.load().sweep_interval).await;
        let until = Timestamp::now().before(config.load().retention);
        if let Err(error) = store.forget(until).await {
            tracing::warn!(error = %status::chain(&error), "notifications were not swept");
        }
    }
}

//! The service under test: writes changes down with their events, and applies those that come.

use std::{path::PathBuf, sync::Arc, time::Duration};

use gantry::{
    BoxError,
    app::App,
    config,
    contract::tonic::{Request, Response, Status, async_trait},
};
use gantry_events::{Events, Outbox};
use gantry_store::{Config as DatabaseConfig, Database};

use crate::{
    contract::{
        PostRequest, PostResponse,
        ledger_service_server::{LedgerService, LedgerServiceServer},
    },
    door::{Door, Tricks},
    ledger::{self, Apply, MIGRATIONS, Posted},
    log::{Line, Log},
};

/// Its name; its consumers' groups begin with it.
pub const NAME: &str = "ledger";

config::section! {
    /// Settings of the service under test.
    pub struct Config {
        /// Where it keeps its rows, those of the platform included.
        pub database: section DatabaseConfig = DatabaseConfig::of(NAME);
        /// Which broker.
        pub broker: section gantry_events::broker::Config;
        /// How events are published and consumed.
        pub events: section gantry_events::Config;
        /// What it does.
        pub ledger: section Ledger;
    }
}

config::section! {
    /// What the service under test does.
    pub struct Ledger {
        /// Folder of the logs of what passes the door to the broker.
        pub logs: PathBuf = PathBuf::from("logs"), restart;
        /// What this start of it is called there.
        pub process: String = NAME.to_owned(), restart;
        /// Whether it takes requests, and publishes their events.
        pub publishes: bool = true, restart;
        /// Whether it applies events.
        pub consumes: bool = true, restart;
        /// The name of its consumer.
        pub consumer: String = "effects".to_owned(), restart;
        /// How long the handler waits before it does anything, as for another service.
        pub wait: Duration = Duration::ZERO, restart;
        /// How many deliveries come twice, in percent.
        pub double_percent: u8 = 0, in 0..=100, restart;
        /// How many deliveries come behind the next of another key, in percent.
        pub swap_percent: u8 = 0, in 0..=100, restart;
        /// What decides which.
        pub seed: u64 = 0, restart;
    }
}

/// Builds the service.
///
/// # Errors
///
/// If its database or its log cannot be opened.
pub async fn start(app: &mut App<Config>) -> Result<(), BoxError> {
    let config = app.config();
    let settings = config.load().ledger.clone();
    let database = config.map(|config| &config.database);
    let database = Database::attach(app, database, MIGRATIONS).await?;
    let log = Arc::new(Log::open(&settings.logs, &settings.process)?);
    let tricks = Tricks {
        double: settings.double_percent,
        swap: settings.swap_percent,
        seed: settings.seed,
    };
    let broker = config.map(|config| &config.broker);
    let events = config.map(|config| &config.events);
    let broker = gantry_events::broker::connect(&broker, &app.tasks(), &app.journal());
    let door = Door::of(broker, Arc::clone(&log), tricks);
    let events = Events::attach_to(app, &database, Arc::new(door), events).await?;
    if settings.consumes {
        let apply = Apply {
            log: Arc::clone(&log),
            wait: settings.wait,
        };
        // One of them for as long as the process.
        let name = settings.consumer.leak();
        let consumer = events.consumer(name);
        consumer
            .on::<crate::contract::Credited>(apply.clone())
            .on::<crate::contract::Debited>(apply)
            .start();
    }
    if settings.publishes {
        let outbox = events.outbox();
        app.serve(LedgerServiceServer::new(Service {
            database,
            outbox,
            log,
        }));
    }
    Ok(())
}

#[derive(Debug)]
struct Service {
    database: Database,
    outbox: Outbox,
    log: Arc<Log>,
}

#[async_trait]
impl LedgerService for Service {
    async fn post(&self, request: Request<PostRequest>) -> Result<Response<PostResponse>, Status> {
        let posted = ledger::post(&self.database, &self.outbox, request.into_inner()).await?;
        match posted {
            Posted::New => {
                // It is committed, and nothing was waited for since.
                self.log.add(&Line::Added);
                Ok(Response::new(PostResponse { known: false }))
            }
            Posted::Known => Ok(Response::new(PostResponse { known: true })),
            Posted::Refused => Err(Status::failed_precondition("refused, as was asked for")),
        }
    }
}

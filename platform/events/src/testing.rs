//! Events of a service without an application around it, for tests that have many in one process.

use std::sync::Arc;

use gantry::{
    config::Live,
    health::{self, Health},
    journal::Journal,
    shutdown::Tasks,
};
use gantry_store::{Database, OpenError};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Events, Outbox, attach, broker::Broker, consumer, consumer::Process, outbox::tables,
};

/// One process of a service, as far as its events go. It is always ready.
#[derive(Debug)]
pub struct Alone {
    /// Its service.
    pub service: &'static str,
    /// Its name among all of them.
    pub instance: String,
    /// What it spawns; stopped, whatever it does ends where it is, as by a crash.
    pub tasks: Tasks,
    /// Cancelled, it begins nothing more, and its consumers end when nothing is in flight.
    pub draining: CancellationToken,
}

impl Alone {
    /// Brings the tables of outbox and consumers into `database`.
    ///
    /// # Errors
    ///
    /// If they are there in another shape, or the database fails.
    pub async fn prepare(database: &Database) -> Result<(), OpenError> {
        database.extend(tables::LIBRARY, tables::MIGRATIONS).await?;
        database.extend(attach::LIBRARY, consumer::MIGRATIONS).await
    }

    /// The events of this process, in a database that has been prepared. Nothing publishes what is in its
    /// outbox but the [relays](crate::Relay) that a test runs.
    #[must_use]
    pub fn attach(
        self,
        database: &Database,
        broker: Arc<dyn Broker>,
        config: Live<Config>,
    ) -> Events {
        let journal = Journal::new();
        let health = Health::new(journal, health::Config::default());
        health.started();
        let outbox = Outbox::over(database, self.service);
        let process = Process {
            tasks: self.tasks,
            health,
            draining: self.draining,
        };
        Events::of(
            process,
            (self.service, self.instance),
            outbox,
            broker,
            config,
        )
    }
}

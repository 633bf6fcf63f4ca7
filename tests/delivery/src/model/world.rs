//! What runs stand on: a database that they have one after the other.

use std::{path::Path, sync::Arc, time::Duration};

use gantry_events::{
    broker::{Broker as _, memory::Memory},
    headers,
    testing::Alone,
};
use gantry_store::{
    Config, Database, Error, Statement,
    testing::{Step, Steps, Wait},
};
use tempfile::TempDir;
use tokio::time::{self, Instant};

use super::process::GROUP;
use crate::{evidence::Evidence, ledger::MIGRATIONS, rows};

/// Where files are in memory: nothing here is to survive the machine.
const IN_MEMORY: &str = "/dev/shm";

/// Connections of a database: more than ever are used at once, as none is made under way.
const CONNECTIONS: u32 = 24;

/// Longest time to come to rest, by the clock of the run.
const REST: Duration = Duration::from_mins(2);

/// How often it is looked whether all is at rest.
const LOOK: Duration = Duration::from_millis(200);

const PENDING: Statement = Statement::new(
    "model.pending",
    "SELECT COUNT(*) AS pending FROM event_outbox WHERE state = 0",
);
const CLEAR: [Statement; 11] = [
    Statement::new("model.clear", "DELETE FROM entries"),
    Statement::new("model.clear", "DELETE FROM effects"),
    Statement::new("model.clear", "DELETE FROM balances"),
    Statement::new("model.clear", "DELETE FROM event_outbox"),
    Statement::new("model.clear", "DELETE FROM event_aggregates"),
    Statement::new("model.clear", "DELETE FROM event_relays"),
    Statement::new("model.clear", "DELETE FROM event_inbox"),
    Statement::new("model.clear", "DELETE FROM event_held"),
    Statement::new("model.clear", "DELETE FROM event_lanes"),
    Statement::new("model.clear", "DELETE FROM event_members"),
    Statement::new("model.clear", "DELETE FROM event_partitions"),
];

/// A database, which one run has after the other.
#[derive(Debug)]
pub(super) struct World {
    /// As those have it who only look.
    pub(super) database: Database,
    _folder: TempDir,
}

/// Steps that take no time.
#[derive(Debug)]
struct AtOnce;

impl Steps for AtOnce {
    fn before(&self, _: Step) -> Wait<'_> {
        Box::pin(async {})
    }

    fn after(&self, _: Step) -> Wait<'_> {
        Box::pin(async {})
    }
}

impl World {
    /// A new one, by a real clock.
    pub(super) async fn make() -> Self {
        let memory = Path::new(IN_MEMORY);
        let folder = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        let folder = folder.expect("room for a database");
        let config = Config {
            pool_max: CONNECTIONS,
            ..Config::file(folder.path().join("model.db"))
        };
        let database = Database::open(&config, MIGRATIONS).await;
        let database = database.expect("a new database");
        Alone::prepare(&database).await.expect("tables of events");
        database.fill().await.expect("connections");
        Self {
            database: database.in_steps(Arc::new(AtOnce)),
            _folder: folder,
        }
    }

    /// Forgets the run before.
    pub(super) async fn clear(&self) -> Result<(), Error> {
        let mut transaction = self.database.begin("model.clear").await?;
        for statement in &CLEAR {
            transaction.statement(statement).execute().await?;
        }
        transaction.commit().await
    }

    /// Waits until all is `answered` and nothing is on its way, or until it has had its time.
    pub(super) async fn rest(
        &self,
        broker: &Memory,
        answered: impl Fn() -> bool,
    ) -> Result<(), Error> {
        let until = Instant::now() + REST;
        while Instant::now() < until && !(answered() && self.is_quiet(broker).await?) {
            time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn is_quiet(&self, broker: &Memory) -> Result<bool, Error> {
        let Ok(fill) = broker.fill(GROUP).await else {
            return Ok(false);
        };
        if fill.ready.iter().sum::<u64>() + fill.unsettled + fill.delayed > 0 {
            return Ok(false);
        }
        let row = self.database.statement(&PENDING).fetch_one().await?;
        Ok(row.integer("pending")? == 0)
    }

    /// What the tables and the broker say.
    pub(super) async fn look(&self, broker: &Memory, evidence: &mut Evidence) -> Result<(), Error> {
        rows::read(&self.database, evidence).await?;
        let fill = broker.fill(GROUP).await.unwrap_or_default();
        evidence.left.ready = fill.ready.iter().sum();
        evidence.left.unsettled = fill.unsettled;
        evidence.left.delayed = fill.delayed;
        let letters = broker.dead_letters(GROUP, 0, u16::MAX).await;
        let letters = letters.unwrap_or_default();
        let ids = letters
            .iter()
            .map(|it| it.message.headers.get(headers::ID).cloned());
        evidence.dead = ids.map(Option::unwrap_or_default).collect();
        Ok(())
    }
}

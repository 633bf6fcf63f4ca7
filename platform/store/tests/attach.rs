//! The database of a service that starts.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]

#[path = "database/files.rs"]
#[allow(dead_code)] // The other tests use the rest.
mod files;

use std::time::Duration;

use files::{COUNTERS, Files, LABELS, read};
use gantry::{
    app::{self, App, testing::Service},
    health::{CheckReport, Health},
};
use gantry_store::{Config, Database, Migration, OpenError};
use sqlx::{AnyConnection, Connection as _, Executor as _};
use tokio::{sync::oneshot, time};

/// Longest wait for what should come at once, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

gantry::config::section! {
    /// Settings of the service under test.
    struct Settings {
        /// Its database.
        database: section Config = Config::default();
    }
}

/// Starts a service with the database of `files`; tells its health before it opens it, and the
/// database once it is attached.
async fn start(
    files: &Files,
    migrations: &[Migration],
    told: oneshot::Sender<Health>,
    attached: oneshot::Sender<Database>,
) -> Result<Service, app::BoxError> {
    let toml = format!(
        "[database]\nurl = '{}'\nbusy_timeout = '0s'\n[health]\ninterval = '1ms'\n",
        files.place.url()
    );
    let start = async |app: &mut App<Settings>| -> Result<(), app::BoxError> {
        drop(told.send(app.health()));
        let config = app.config().map(|settings| &settings.database);
        drop(attached.send(Database::attach(app, config, migrations).await?));
        Ok(())
    };
    Service::start(app::identity!(), &toml, start).await
}

/// Waits until what `health` says of the database is as wanted.
async fn database_is(health: &Health, wanted: impl Fn(&CheckReport) -> bool) {
    let found = async {
        loop {
            let checks = health.report().checks;
            if checks.iter().any(|it| it.name == "database" && wanted(it)) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let found = time::timeout(SOON, found).await;
    assert!(found.is_ok(), "{:?}", health.report());
}

gantry_harness::on_both!(
    () another_history_ends_the_start,
    a_new_database_is_ready_at_once
);

/// Goal: a database that is held by somebody else at start shows in health, and is opened once it
/// is free; the start neither fails nor serves before.
/// Method: hold the one writer's place while the service starts, see the failing gate, let go.
#[tokio::test]
async fn a_held_database_is_waited_for() {
    let files = Files::new();
    files.open().await.close().await;
    let url = format!("sqlite://{}", files.path().display());
    let mut holder = AnyConnection::connect(&url).await.unwrap();
    holder.execute("BEGIN IMMEDIATE").await.unwrap();

    let (told, health) = oneshot::channel();
    let (attached, mut database) = oneshot::channel();
    let release = async {
        let health = health.await.unwrap();
        database_is(&health, |check| check.reason.contains("locked")).await;
        assert!(!health.is_started(), "nothing is served yet");
        assert!(database.try_recv().is_err(), "it is not open");
        holder.execute("COMMIT").await.unwrap();
    };
    let started = start(&files, &[COUNTERS, LABELS], told, attached);
    let (service, ()) = time::timeout(SOON, async { tokio::join!(started, release) })
        .await
        .unwrap();

    let service = service.unwrap();
    let health = service.health();
    let mut changes = health.changes();
    let ready = changes.wait_for(|_| health.is_ready());
    time::timeout(SOON, ready).await.unwrap().unwrap();
    assert_eq!(0, read(&database.await.unwrap()).await);
}

/// Goal: a database of another history ends the start at once: waiting cannot help.
/// Method: attach to one that went through other steps.
async fn another_history_ends_the_start(files: Files) {
    files.open().await.close().await;
    let (told, _health) = oneshot::channel();
    let (attached, _database) = oneshot::channel();
    let started = start(&files, &[COUNTERS], told, attached);
    let error = time::timeout(SOON, started).await.unwrap().unwrap_err();
    let source = error.source().expect("why the service does not start");
    let error: &OpenError = source.downcast_ref().expect("what the service said");
    assert!(matches!(error, OpenError::Migrate { .. }), "{error}");
}

/// Goal: a database that opens at once does not hold readiness back.
/// Method: start on none yet; the check's first result is a pass.
async fn a_new_database_is_ready_at_once(files: Files) {
    let (told, health) = oneshot::channel();
    let (attached, _database) = oneshot::channel();
    let service = start(&files, &[COUNTERS], told, attached).await.unwrap();
    let health = health.await.unwrap();
    let mut changes = health.changes();
    let ready = changes.wait_for(|_| health.is_ready());
    time::timeout(SOON, ready).await.unwrap().unwrap();
    database_is(&health, |check| check.failures == 0).await;
    drop(service);
}

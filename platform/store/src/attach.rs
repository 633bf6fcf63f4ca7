//! The database of a service that starts: waited for, checked, followed and closed.

use std::time::Duration;

use gantry::{
    BoxError,
    app::App,
    backoff::{self, Backoff},
    config::{Live, Section},
    health::Check,
    status::chain,
};
use tokio::{sync::watch, time};

use crate::{Config, Database, Migration, OpenError};

/// Pauses between two tries to open a database that is not there.
const PAUSES: backoff::Config = backoff::Config {
    min: Duration::from_millis(100),
    max: Duration::from_secs(5),
    multiplier: 1.6,
    jitter: 0.2,
};

/// How far the opening is, for the check.
#[derive(Debug, Clone)]
enum Progress {
    /// The first try has not ended.
    Begun,
    /// Every try so far failed; why the last one did.
    Failed(String),
    Open(Database),
}

impl Database {
    /// Opens the database of a service that starts, and ties it to the process: a check gates
    /// health on it, its pool follows `config`, and it is closed at the end.
    ///
    /// A database that is locked, full, unwritable or away is waited for: it is tried again until
    /// it opens, and meanwhile the check says why it does not. A process that is told to stop
    /// drops the wait.
    ///
    /// # Errors
    ///
    /// If waiting cannot help: the address is none, or the database has another history than
    /// `migrations`.
    pub async fn attach<C: Section>(
        app: &mut App<C>,
        config: Live<Config>,
        migrations: &[Migration],
    ) -> Result<Self, OpenError> {
        let progress = watch::Sender::new(Progress::Begun);
        let seen = progress.subscribe();
        app.check(Check::database("database", move || ask(seen.clone())));
        let database = opened(&config, migrations, &progress).await?;
        progress.send_replace(Progress::Open(database.clone()));

        let follow = database.clone().follow(config);
        let stopping = app.tasks().stopping();
        app.spawn("database pool", async move {
            stopping.run_until_cancelled(follow).await;
        });
        let closed = database.clone();
        app.on_close("database", async move { closed.close().await });
        Ok(database)
    }
}

impl Database {
    /// As [`Database::extend`], for a service that starts: a database that is locked, full, unwritable
    /// or away is waited for.
    ///
    /// # Errors
    ///
    /// If waiting cannot help: the database has another history than `migrations`.
    pub async fn extend_patiently(
        &self,
        library: &str,
        migrations: &[Migration],
    ) -> Result<(), OpenError> {
        let mut pauses = pauses();
        loop {
            let error = match self.extend(library, migrations).await {
                Err(error) if error.may_pass() => error,
                outcome => return outcome,
            };
            tracing::warn!(
                error = chain(&error),
                library,
                "database not in shape yet, trying again"
            );
            time::sleep(pauses.next_pause()).await;
        }
    }
}

fn pauses() -> Backoff {
    Backoff::new(PAUSES).expect("the pauses are above zero and grow")
}

/// Tries until the database is open.
async fn opened(
    config: &Live<Config>,
    migrations: &[Migration],
    progress: &watch::Sender<Progress>,
) -> Result<Database, OpenError> {
    let mut pauses = pauses();
    loop {
        let error = match Database::open(&config.load(), migrations).await {
            Err(error) if error.may_pass() => error,
            outcome => return outcome,
        };
        let reason = chain(&error);
        tracing::warn!(error = reason, "database not open yet, trying again");
        progress.send_replace(Progress::Failed(reason));
        time::sleep(pauses.next_pause()).await;
    }
}

/// Answers once the database does, or says why it is not open.
async fn ask(mut progress: watch::Receiver<Progress>) -> Result<(), BoxError> {
    // The first result of a check decides alone: a failure here would keep a process that opens
    // its database at once out of service until the check has passed several times.
    let known = progress.wait_for(|progress| !matches!(progress, Progress::Begun));
    let known = known.await.map(|progress| progress.clone());
    match known {
        Ok(Progress::Open(database)) => Ok(database.ping().await?),
        Ok(Progress::Failed(reason)) => Err(reason.into()),
        Ok(Progress::Begun) | Err(_) => Err("the start-up was given up".into()),
    }
}

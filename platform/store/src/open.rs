//! Opens a database and brings it to its shape.

mod file;
mod server;

use std::time::Duration;

use sqlx::any::AnyConnectOptions;
use tokio::time;

use crate::{
    Config, MigrateError, Migration, UrlError, engine, migrate::History, pool, url::Place,
};

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address is none.
    #[error("read the database's address")]
    Url(#[from] UrlError),
    /// The file or its folder cannot be made.
    #[error("make {path}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Nobody has made it, and whoever opens it does not either.
    #[error("open {url}: there is no such database")]
    Missing {
        /// The database.
        url: String,
    },
    /// It cannot be opened.
    #[error("open {url}")]
    Connect {
        /// The database.
        url: String,
        /// What it said.
        source: sqlx::Error,
    },
    /// It cannot be brought to its shape.
    #[error("migrate {url}")]
    Migrate {
        /// The database.
        url: String,
        /// Which step, and why.
        source: MigrateError,
    },
    /// Another process held it all the time, or it did not answer.
    #[error("open {url}: not done after {timeout:?}")]
    TimedOut {
        /// The database.
        url: String,
        /// How long it was tried.
        timeout: Duration,
    },
}

impl OpenError {
    /// Whether the same may succeed later: nothing of it is the program's or the configuration's
    /// mistake.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::File { .. }
            | Self::Missing { .. }
            | Self::Connect { .. }
            | Self::TimedOut { .. } => true,
            Self::Migrate { source, .. } => match source {
                MigrateError::Step { .. } | MigrateError::Bookkeeping(_) => true,
                MigrateError::OutOfOrder { .. }
                | MigrateError::Edited { .. }
                | MigrateError::Newer { .. } => false,
            },
            Self::Url(_) => false,
        }
    }
}

/// Makes the database of `config` where it is missing, and runs the `migrations` it has not seen;
/// answers how to connect to it.
pub(crate) async fn prepare(
    config: &Config,
    migrations: &[Migration],
) -> Result<AnyConnectOptions, OpenError> {
    if let Place::File(path) = config.url.place() {
        file::make(path).await.map_err(|source| OpenError::File {
            path: path.display().to_string(),
            source,
        })?;
    }
    let options = options(config)?;
    extend(&options, config, History::of_service(migrations)).await?;
    Ok(options)
}

/// Runs the steps of `history` that a database has not seen.
pub(crate) async fn extend(
    options: &AnyConnectOptions,
    config: &Config,
    history: History<'_>,
) -> Result<(), OpenError> {
    let shaped = async {
        match config.url.place() {
            Place::File(_) => file::shape(options, config, history).await,
            Place::Server(server) => server::shape(options, server, config, history).await,
        }
    };
    in_time(config, shaped).await
}

/// Finds the database of `config`, which somebody else has made; answers how to connect to it.
pub(crate) async fn find(config: &Config) -> Result<AnyConnectOptions, OpenError> {
    let options = options(config)?;
    let found = async {
        match config.url.place() {
            Place::File(path) => Ok(path.is_file()),
            Place::Server(server) => server::is_there(&options, server).await,
        }
    };
    if in_time(config, found).await? {
        return Ok(options);
    }
    let url = config.url.to_string();
    Err(OpenError::Missing { url })
}

fn options(config: &Config) -> Result<AnyConnectOptions, OpenError> {
    sqlx::any::install_default_drivers();
    let url = config.url.to_string();
    let for_driver =
        engine::for_driver(&config.url, &config.password).map_err(|source| OpenError::File {
            path: url.clone(),
            source,
        })?;
    pool::options(&for_driver).map_err(|source| OpenError::Connect { url, source })
}

async fn in_time<T>(
    config: &Config,
    opening: impl Future<Output = Result<T, Unshaped>>,
) -> Result<T, OpenError> {
    let url = config.url.to_string();
    match time::timeout(config.open_timeout, opening).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(Unshaped::Connect(source))) => Err(OpenError::Connect { url, source }),
        Ok(Err(Unshaped::Migrate(source))) => Err(OpenError::Migrate { url, source }),
        Err(_) => Err(OpenError::TimedOut {
            url,
            timeout: config.open_timeout,
        }),
    }
}

/// Why a database is not in its shape.
enum Unshaped {
    Connect(sqlx::Error),
    Migrate(MigrateError),
}

impl From<sqlx::Error> for Unshaped {
    fn from(error: sqlx::Error) -> Self {
        Self::Connect(error)
    }
}

impl From<MigrateError> for Unshaped {
    fn from(error: MigrateError) -> Self {
        Self::Migrate(error)
    }
}

//! What differs between the engines, beside how they are opened.

use std::time::Duration;

use gantry::config::Secret;

use crate::{
    Config,
    url::{self, Place, Server, Url},
};

/// How long a transaction on a server may stand still before it is ended there: a process that
/// was stopped or cut off in the middle of one keeps others from its rows no longer than that.
const STANDSTILL_MAX: Duration = Duration::from_secs(30);

/// Which database a pool is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    /// A file with one writer at a time.
    Sqlite,
    /// A server.
    Postgres,
}

impl Engine {
    pub(crate) fn of(url: &Url) -> Self {
        match url.place() {
            Place::File(_) => Self::Sqlite,
            Place::Server(_) => Self::Postgres,
        }
    }

    /// Begins a transaction that may write.
    pub(crate) fn begin(self) -> &'static str {
        match self {
            // Takes the one writer's place at once; later it could fail for having read before.
            Self::Sqlite => "BEGIN IMMEDIATE",
            // The stores rely on no more, and a stricter one fails transactions that disturb nobody.
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
        }
    }

    /// What every connection is told first.
    pub(crate) fn prepare(config: &Config) -> String {
        match config.url.place() {
            // Foreign keys and full synchronisation are the driver's and the engine's defaults; they
            // are spelled here because the stores rely on them: an order that was answered survives
            // a power cut.
            Place::File(_) => format!(
                "PRAGMA busy_timeout = {}; PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL",
                config.busy_timeout.as_millis()
            ),
            Place::Server(server) => session(
                server,
                config.statement_timeout,
                // No wait at all is spelled as the shortest; none is as long as it takes.
                config.busy_timeout.max(Duration::from_millis(1)),
            ),
        }
    }
}

/// What a connection to a server is told first. The server ends what takes too long by itself: the
/// statement of a process that is gone would go on otherwise.
pub(crate) fn session(server: &Server, statement: Duration, lock: Duration) -> String {
    format!(
        "SET search_path TO \"{}\"; SET statement_timeout TO {}; SET lock_timeout TO {}; \
         SET idle_in_transaction_session_timeout TO {}; \
         SELECT set_config('synchronous_commit', 'on', false) \
         WHERE current_setting('synchronous_commit') = 'off'",
        server.schema(),
        statement.as_millis(),
        lock.as_millis(),
        STANDSTILL_MAX.as_millis(),
    )
}

/// The address as the driver reads it.
pub(crate) fn for_driver(url: &Url, password: &Secret) -> std::io::Result<String> {
    match url.place() {
        Place::File(path) => url::file_for_driver(path),
        Place::Server(server) => Ok(server.for_driver(password)),
    }
}

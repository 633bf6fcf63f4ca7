//! The `[database]` section.

use std::{path::PathBuf, time::Duration};

use gantry::config::{self, Secret};

use crate::Url;

config::section! {
    /// Where a service keeps its rows, and how patiently it reaches for them.
    pub struct Config {
        /// The database: `sqlite:PATH`, a file, or a schema of a PostgreSQL database,
        /// `postgres://USER@HOST/DATABASE?schema=NAME`; either is made where it is missing.
        pub url: Url = Url::sqlite(".gantry/data/service.db"), restart;
        /// The user's password, where it is not in the URL.
        pub password: Secret = Secret::default(), restart;
        /// Connections open at once. A change swaps the pool; statements that run are not touched.
        pub pool_max: u32 = 4, in 1..=256, live;
        /// Longest wait for a free connection, or for a server to take a new one; after it a call
        /// fails as UNAVAILABLE. For SQLite likewise before that, for the writers of this process.
        pub acquire_timeout: Duration = Duration::from_secs(2), in Duration::from_millis(1)..=Duration::from_mins(1), live;
        /// Longest wait for one statement that has its turn and its connection. SQLite may finish one
        /// that was given up, and its connection is taken until then; PostgreSQL ends it.
        pub statement_timeout: Duration = Duration::from_secs(5), in Duration::from_millis(1)..=Duration::from_mins(10), live;
        /// Longest wait of one statement for another writer: of another process for SQLite, of the
        /// same row for PostgreSQL.
        pub busy_timeout: Duration = Duration::from_secs(2), in Duration::ZERO..=Duration::from_mins(1), live;
        /// Longest wait for the database at start, migrations included.
        pub open_timeout: Duration = Duration::from_secs(10), in Duration::from_millis(1)..=Duration::from_mins(10), restart;
    }
}

impl Config {
    /// The defaults for `service`: a SQLite file of its name in the state folder.
    #[must_use]
    pub fn of(service: &str) -> Self {
        Self::file(PathBuf::from(".gantry/data").join(format!("{service}.db")))
    }

    /// The defaults, with the SQLite file at `path`.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            url: Url::sqlite(path),
            ..Self::default()
        }
    }
}

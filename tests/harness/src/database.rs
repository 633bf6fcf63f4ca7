//! Databases for tests that hold on every engine.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use tempfile::TempDir;

use crate::postgres::{self, Postgres};

/// Room for the databases of one test, which nobody else has; gone with its handle.
#[derive(Debug)]
pub struct Place {
    folder: TempDir,
    /// A server, and what the names of schemas in it begin with.
    server: Option<(&'static Postgres, u32)>,
}

impl Place {
    /// Room for SQLite files, in a folder that is not there yet.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn file() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            server: None,
        }
    }

    /// Room for schemas on the server that all tests of the program share; none where PostgreSQL
    /// cannot be had.
    ///
    /// # Panics
    ///
    /// If the server does not come to answer.
    pub async fn server() -> Option<Self> {
        Some(Self::on(postgres::shared().await?))
    }

    fn on(server: &'static Postgres) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            server: Some((server, number)),
            ..Self::file()
        }
    }

    /// Further room of the same kind.
    #[must_use]
    pub fn another(&self) -> Self {
        match self.server {
            Some((server, _)) => Self::on(server),
            None => Self::file(),
        }
    }

    /// What a service is told of its one database.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("test")
    }

    /// What is told of the database `name`, one of several.
    #[must_use]
    pub fn url_of(&self, name: &str) -> String {
        match self.server {
            Some((server, number)) => format!("{}?schema=place_{number}_{name}", server.url()),
            None => format!("sqlite:{}", self.path_of(name).display()),
        }
    }

    /// Whether its databases are SQLite files.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.server.is_none()
    }

    /// The one file, where it is one.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.path_of("test")
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.folder
            .path()
            .join("deep/er")
            .join(format!("{name}.db"))
    }
}

/// Makes two tests of each function that takes a [`Place`](crate::database::Place) or what is made
/// from one: `sqlite` and `postgres`, in a module of the function's name.
#[macro_export]
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        $crate::on_both!((flavor = "multi_thread", worker_threads = 4) $($name),+);
    };
    // Of another runtime than one of four threads.
    ($runtime:tt $($name:ident),+ $(,)?) => {$(
        mod $name {
            #[tokio::test $runtime]
            async fn sqlite() {
                super::$name($crate::database::Place::file().into()).await;
            }

            #[tokio::test $runtime]
            async fn postgres() {
                if let Some(place) = $crate::database::Place::server().await {
                    super::$name(place.into()).await;
                }
            }
        }
    )+};
}

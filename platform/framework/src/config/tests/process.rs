//! A process with a configuration, and a way to change it.

use std::{fs, path::PathBuf};

use tokio::{sync::watch, time};

use super::*;
use crate::{
    config::notice::Notices,
    journal::{Journal, Kind},
    shutdown::Tasks,
};

/// A process whose configuration is one file in a folder of its own.
pub(super) struct Process {
    pub(super) folder: tempfile::TempDir,
    pub(super) live: Live<Root>,
    pub(super) handle: Handle,
    pub(super) notices: watch::Sender<Notices>,
    pub(super) journal: Journal,
    pub(super) tasks: Tasks,
}

impl Process {
    /// Starts; nobody watches the files.
    pub(super) fn start(toml: &str) -> Self {
        Self::begin(toml, |loaded, tasks, journal| {
            let (watcher, live, handle) = loaded.watcher(journal);
            tasks.spawn("config", watcher.run(tasks.stopping()));
            (live, handle)
        })
    }

    /// Starts as a service does.
    pub(super) fn start_watching(toml: &str) -> Self {
        Self::begin(toml, Loaded::start)
    }

    fn begin(
        toml: &str,
        start: impl FnOnce(Loaded<Root>, &Tasks, Journal) -> (Live<Root>, Handle),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("orders.toml"), toml).unwrap();
        let sources = Sources::new().folder(folder.path(), "orders");
        let loaded = load::<Root>(sources).expect("valid");
        let journal = Journal::new();
        let tasks = Tasks::new(journal.clone());
        let (live, handle) = start(loaded, &tasks, journal.clone());
        Self {
            folder,
            live,
            notices: handle.notices(),
            handle,
            journal,
            tasks,
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("orders.toml")
    }

    pub(super) fn write(&self, toml: &str) {
        fs::write(self.path(), toml).unwrap();
    }

    /// Writes, and has it read.
    pub(super) async fn change(&self, toml: &str) -> Status {
        self.write(toml);
        self.handle.reload().await
    }

    pub(super) fn sign(&self, writing: bool) {
        self.notices.send_modify(|notices| notices.sign(writing));
    }

    /// Waits until `condition` holds; the bound is far beyond what is promised.
    pub(super) async fn until(&self, condition: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.handle.status();
        let waited = time::timeout(Duration::from_mins(1), status.wait_for(condition)).await;
        waited.expect("in time").expect("running").clone()
    }

    /// What the journal says of the configuration.
    pub(super) fn entries(&self, kind: Kind) -> Vec<String> {
        let (past, _) = self.journal.watch();
        let entries = past.into_iter().filter(|entry| entry.kind == kind);
        entries.map(|entry| entry.detail).collect()
    }

    pub(super) fn listening_at(&self) -> String {
        self.live.load().listen.address.to_string()
    }
}

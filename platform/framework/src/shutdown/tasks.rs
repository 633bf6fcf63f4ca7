//! Tasks with a name and an owner.

use std::{
    collections::BTreeMap,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{sync::watch, task::AbortHandle, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::journal::{Journal, Kind};

/// Starts, tells to stop, and joins the tasks of one owner; clones share them.
#[derive(Debug, Clone)]
pub struct Tasks {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    tracker: TaskTracker,
    stop: CancellationToken,
    journal: Journal,
    running: Mutex<Running>,
    failed: watch::Sender<Option<Failed>>,
}

#[derive(Debug, Default)]
struct Running {
    last: u64,
    // The handle comes a moment after the name: it exists only once the task does.
    tasks: BTreeMap<u64, (&'static str, Option<AbortHandle>)>,
}

/// An essential task that panicked: the process can no longer do all of its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The name the task was started under.
    pub task: &'static str,
}

impl Tasks {
    /// No tasks yet. What goes wrong in one is written to `journal`.
    #[must_use]
    pub fn new(journal: Journal) -> Self {
        Self {
            shared: Arc::new(Shared {
                tracker: TaskTracker::new(),
                stop: CancellationToken::new(),
                journal,
                running: Mutex::default(),
                failed: watch::Sender::new(None),
            }),
        }
    }

    /// Where what goes wrong is written.
    pub(crate) fn journal(&self) -> Journal {
        self.shared.journal.clone()
    }

    /// Starts a task that ends on its own, or when told through [`Tasks::stopping`].
    ///
    /// A panic ends the task alone; it is logged and written to the journal under `name`.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.start(name, task, false);
    }

    /// As [`Tasks::spawn`], for a task the process is useless without: its panic also shows in
    /// [`Tasks::failed`], upon which the application drains and its supervisor starts it afresh.
    pub fn spawn_essential<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.start(name, task, true);
    }

    fn start<F>(&self, name: &'static str, task: F, essential: bool)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let entry = self.enter(name);
        let id = entry.id;
        let watched = self.shared.tracker.track_future(async move {
            let outcome = AssertUnwindSafe(task).catch_unwind().await;
            if outcome.is_err() {
                tracing::error!(task = name, essential, "background task panicked");
                let shared = &entry.shared;
                shared.journal.record(Kind::TaskEnded, name, "panicked");
                if essential {
                    shared.failed.send_replace(Some(Failed { task: name }));
                }
            }
        });
        // The one place that spawns what outlives a call. Not under the lock: where the runtime
        // is gone, `spawn` drops the future, and with it the entry, right here.
        #[allow(clippy::disallowed_methods)]
        let handle = tokio::spawn(watched).abort_handle();
        if let Some((_, place)) = self.shared.running().tasks.get_mut(&id) {
            *place = Some(handle);
        }
    }

    fn enter(&self, name: &'static str) -> Entry {
        let mut running = self.shared.running();
        running.last += 1;
        let id = running.last;
        running.tasks.insert(id, (name, None));
        Entry {
            shared: Arc::clone(&self.shared),
            id,
        }
    }

    /// Cancelled when the owner stops; long-lived tasks watch it.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.shared.stop.clone()
    }

    /// Becomes `Some` when an essential task has panicked.
    #[must_use]
    pub fn failed(&self) -> watch::Receiver<Option<Failed>> {
        self.shared.failed.subscribe()
    }

    /// Tells every task to stop and waits until all have ended. Bound it with a timeout, or use
    /// [`Tasks::stop_within`].
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        self.shared.tracker.close();
        self.shared.tracker.wait().await;
    }

    /// As [`Tasks::stop`], but aborts what has not ended after `bound` and returns its names.
    ///
    /// An aborted task ends at its next await; one that never awaits is left behind.
    pub async fn stop_within(&self, bound: Duration) -> Vec<&'static str> {
        if time::timeout(bound, self.stop()).await.is_ok() {
            return Vec::new();
        }
        // Collected first: aborting drops a task that is not being polled, and its entry with it.
        let left: Vec<_> = self.shared.running().tasks.values().cloned().collect();
        for (name, handle) in &left {
            tracing::warn!(task = name, "background task aborted");
            self.shared
                .journal
                .record(Kind::TaskEnded, *name, "aborted");
            if let Some(handle) = handle {
                handle.abort();
            }
        }
        left.into_iter().map(|(name, _)| name).collect()
    }

    /// Tasks that have not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        self.shared.tracker.len()
    }
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task's place among the running; leaves with the task, however it ends.
struct Entry {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shared.running().tasks.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: stopping tells every task, and waits for each.
    /// Method: a task that needs a second after being told, on the paused clock.
    #[tokio::test(start_paused = true)]
    async fn stopping_waits_for_tasks_that_finish_in_time() {
        let tasks = Tasks::new(Journal::new());
        let stopping = tasks.stopping();
        tasks.spawn("slow", async move {
            stopping.cancelled().await;
            time::sleep(Duration::from_secs(1)).await;
        });

        let begun = time::Instant::now();
        let aborted = tasks.stop_within(Duration::from_secs(5)).await;

        assert!(aborted.is_empty(), "{aborted:?}");
        assert_eq!(Duration::from_secs(1), begun.elapsed());
        assert_eq!(0, tasks.running());
    }

    /// Goal: a task that ignores being told costs the bound, no more, and is named.
    /// Method: one deaf task beside a good one.
    #[tokio::test(start_paused = true)]
    async fn a_task_that_hangs_is_aborted_and_named() {
        let journal = Journal::new();
        let tasks = Tasks::new(journal.clone());
        tasks.spawn("deaf", std::future::pending());
        let stopping = tasks.stopping();
        tasks.spawn("good", async move { stopping.cancelled().await });

        let begun = time::Instant::now();
        let aborted = tasks.stop_within(Duration::from_secs(2)).await;

        assert_eq!(vec!["deaf"], aborted);
        assert_eq!(Duration::from_secs(2), begun.elapsed());
        tasks.stop().await;
        assert_eq!(0, tasks.running());
        let (past, _) = journal.watch();
        assert_eq!("aborted", past.last().unwrap().detail);
    }

    /// Goal: a panic ends one task, and only an essential one fails the process.
    /// Method: one of each kind; the second is awaited through `failed`.
    #[tokio::test]
    async fn only_an_essential_tasks_panic_is_a_failure() {
        let journal = Journal::new();
        let tasks = Tasks::new(journal.clone());
        let mut failed = tasks.failed();

        tasks.spawn("helper", async { panic!("on purpose") });
        tokio::task::yield_now().await;
        assert_eq!(None, *failed.borrow_and_update());

        tasks.spawn_essential("relay", async { panic!("on purpose") });
        failed.changed().await.unwrap();
        assert_eq!(Some(Failed { task: "relay" }), *failed.borrow());

        tasks.stop().await;
        let (past, _) = journal.watch();
        let subjects: Vec<_> = past.iter().map(|e| e.subject.as_str()).collect();
        assert_eq!(vec!["helper", "relay"], subjects);
    }
}

//! Signals, tracked tasks, and the end of a process in bounded phases.
//!
//! Nothing runs untracked: every long-lived task is started through [`Tasks`], which names it,
//! notices its panic, tells it when to stop and joins it.

use std::{future::Future, sync::Arc};

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
            }),
        }
    }

    /// Starts a task that ends on its own, or when told through [`Tasks::stopping`].
    ///
    /// A panic ends the task alone; it is logged and written to the journal under `name`.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let journal = self.shared.journal.clone();
        let watched = self.shared.tracker.track_future(async move {
            use futures_util::FutureExt as _;
            let outcome = std::panic::AssertUnwindSafe(task).catch_unwind().await;
            if outcome.is_err() {
                tracing::error!(task = name, "background task panicked");
                journal.record(Kind::TaskEnded, name, "panicked");
            }
        });
        // The one place that spawns what outlives a call.
        #[allow(clippy::disallowed_methods)]
        drop(tokio::spawn(watched));
    }

    /// Cancelled when the owner stops; long-lived tasks watch it.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.shared.stop.clone()
    }

    /// Tells every task to stop and waits until all have ended. Bound it with a timeout.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        self.shared.tracker.close();
        self.shared.tracker.wait().await;
    }

    /// Tasks that have not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        self.shared.tracker.len()
    }
}

//! What has come of it all.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use gantry::{config::Live, status};
use tokio::time;
use tonic::Status;

use crate::config::Shopping;

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Orders that the shop took.
    pub(crate) placed: AtomicU64,
    /// Orders whose confirmation people were told of.
    pub(crate) confirmed: AtomicU64,
    /// Orders whose cancellation people were told of.
    pub(crate) cancelled: AtomicU64,
    /// Orders that were watched to their completion.
    pub(crate) completed: AtomicU64,
    /// Calls that failed.
    failed: AtomicU64,
    /// How the last of them did.
    failure: Mutex<Option<Status>>,
}

impl Tally {
    pub(crate) fn count(count: &AtomicU64) {
        count.fetch_add(1, Relaxed);
    }

    pub(crate) fn fail(&self, status: Status) {
        Self::count(&self.failed);
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
    }

    /// Says now and then how it goes, until it is dropped. The last failure is told of once.
    pub(crate) async fn tell(&self, config: Live<Shopping>) {
        loop {
            time::sleep(config.load().summary_interval).await;
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            let failure = failure.take();
            let code = failure.as_ref().map(|it| status::code_name(it.code()));
            tracing::info!(
                placed = self.placed.load(Relaxed),
                confirmed = self.confirmed.load(Relaxed),
                cancelled = self.cancelled.load(Relaxed),
                completed = self.completed.load(Relaxed),
                failed = self.failed.load(Relaxed),
                code,
                cause = failure.as_ref().map(Status::message),
                "people shop"
            );
        }
    }
}

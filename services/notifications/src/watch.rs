//! An account's notifications as they come, as a stream.
//!
//! What this process records is told to its watches at once; what another replica records they look
//! for now and then. Either is a hint: they read the truth from the database.

use std::collections::VecDeque;

use futures_util::{Stream, stream};
use gantry::{config::Live, status};
use gantry_store::Error;
use tokio::{
    sync::{OwnedSemaphorePermit, broadcast},
    time,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{config::Notifications, domain::Notification, store::Store};

/// Hints a watch may be behind; one that is further behind looks at once.
const HINTS: usize = 256;

/// Where what was recorded is told; clones are the same place.
#[derive(Debug, Clone)]
pub struct News {
    accounts: broadcast::Sender<String>,
}

impl Default for News {
    fn default() -> Self {
        Self {
            accounts: broadcast::Sender::new(HINTS),
        }
    }
}

impl News {
    /// Tells that there is something new for an account.
    pub fn tell(&self, account_id: &str) {
        // Nobody may listen.
        drop(self.accounts.send(account_id.to_owned()));
    }
}

/// One watch, between two messages.
pub struct Watch {
    /// Whose.
    pub account_id: String,
    /// What is known.
    pub position: i64,
    /// The rows.
    pub store: Store,
    /// Settings as they are.
    pub config: Live<Notifications>,
    /// Cancelled when streams should end.
    pub draining: CancellationToken,
    /// Its place among the watches that may be open.
    pub place: OwnedSemaphorePermit,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl Watch {
    /// Sends what there is after the known position, then each notification as it comes. When the
    /// process drains the stream ends with UNAVAILABLE: another replica goes on.
    pub fn stream(self, news: &News) -> impl Stream<Item = Result<Notification, Status>> + use<> {
        // Listens before it looks: what comes in between is heard.
        let hints = news.accounts.subscribe();
        let state = (self, hints, VecDeque::new());
        stream::try_unfold(state, |(mut watch, mut hints, mut ahead)| async move {
            loop {
                if let Some(next) = ahead.pop_front() {
                    return Ok(Some((next, (watch, hints, ahead))));
                }
                ahead.extend(watch.look().await?);
                if ahead.is_empty() {
                    watch.wait(&mut hints).await?;
                }
            }
        })
    }

    async fn look(&mut self) -> Result<Vec<Notification>, Error> {
        let found = self.store.after(&self.account_id, self.position).await?;
        if let Some(last) = found.last() {
            self.position = last.position;
        }
        Ok(found)
    }

    /// Waits until it is worth looking.
    async fn wait(&self, hints: &mut broadcast::Receiver<String>) -> Result<(), Status> {
        let hinted = async {
            loop {
                match hints.recv().await {
                    Ok(account) if account != self.account_id => {}
                    // Missed some, or the last one that tells is gone, with the service.
                    Ok(_) | Err(_) => return,
                }
            }
        };
        let interval = self.config.load().watch_interval;
        // Cancel-safe: all only wait.
        tokio::select! {
            () = hinted => Ok(()),
            () = time::sleep(interval) => Ok(()),
            () = self.draining.cancelled() => Err(status::draining()),
        }
    }
}

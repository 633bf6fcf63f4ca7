//! Tells watchers in this process which order has just changed.
//!
//! A hint that saves waiting, not the truth: watchers read the truth from the database, and look
//! there on their own for changes that another replica made.

use tokio::sync::broadcast;

/// Hints a slow watcher may fall behind before it is told to look by itself.
const HINTS_MAX: usize = 256;

/// Where changes are told; clones are the same place.
#[derive(Debug, Clone)]
pub struct Changes {
    sender: broadcast::Sender<String>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            sender: broadcast::Sender::new(HINTS_MAX),
        }
    }
}

impl Changes {
    /// Tells that the state of `order_id` has changed.
    pub fn tell(&self, order_id: &str) {
        // Nobody may be watching.
        drop(self.sender.send(order_id.to_owned()));
    }

    /// What is told from now on.
    #[must_use]
    pub fn listen(&self) -> Listener {
        Listener {
            receiver: self.sender.subscribe(),
        }
    }
}

/// Hears of changes from when it was made.
#[derive(Debug)]
pub struct Listener {
    receiver: broadcast::Receiver<String>,
}

impl Listener {
    /// Completes when `order_id` may have changed. Cancel-safe.
    pub async fn hear(&mut self, order_id: &str) {
        loop {
            match self.receiver.recv().await {
                Ok(changed) if changed != order_id => {}
                // Hints were lost: perhaps one of them was for us.
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                // The sender is in the handler that made this listener.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

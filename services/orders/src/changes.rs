//! Tells watchers in this process that an order has changed.
//!
//! What this process changes is told at once. What another replica changes is looked for in the
//! database, now and then, by one watcher of each order for all of them. Either is a hint: watchers
//! read the truth from the database.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    time,
};

/// Where changes are told; clones are the same place.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    registry: Arc<Mutex<Registry>>,
}

/// Who listens.
#[derive(Debug, Default)]
struct Registry {
    orders: HashMap<String, Watched>,
    /// Of all orders.
    listeners: usize,
}

/// An order somebody listens for.
#[derive(Debug)]
struct Watched {
    order: Arc<Shared>,
    listeners: usize,
}

/// What the listeners of one order share.
#[derive(Debug)]
struct Shared {
    news: watch::Sender<()>,
    /// Held by the one that looks for all.
    turn: Semaphore,
    /// As of the last look.
    version: AtomicI64,
}

/// Hears of the changes of one order from when it was made, until it is dropped.
#[derive(Debug)]
pub struct Listener {
    changes: Changes,
    order_id: String,
    order: Arc<Shared>,
    news: watch::Receiver<()>,
}

impl Changes {
    /// Tells that the state of `order_id` has changed.
    pub fn tell(&self, order_id: &str) {
        if let Some(watched) = self.registry().orders.get(order_id) {
            watched.order.news.send_replace(());
        }
    }

    /// What is told of `order_id` from now on; nothing where `listeners_max` listen already, for
    /// whichever orders.
    #[must_use]
    pub fn listen(&self, order_id: &str, listeners_max: usize) -> Option<Listener> {
        let mut registry = self.registry();
        if registry.listeners >= listeners_max {
            return None;
        }
        registry.listeners += 1;
        let watched = registry.orders.entry(order_id.to_owned());
        let watched = watched.or_insert_with(|| Watched {
            order: Arc::new(Shared {
                news: watch::Sender::new(()),
                turn: Semaphore::new(1),
                version: AtomicI64::new(0),
            }),
            listeners: 0,
        });
        watched.listeners += 1;
        Some(Listener {
            changes: self.clone(),
            order_id: order_id.to_owned(),
            news: watched.order.news.subscribe(),
            order: Arc::clone(&watched.order),
        })
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // Nothing that panics runs while it is held.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// Completes when the order may have changed. Meanwhile one listener of the order asks for its
    /// `version` after each `interval`, for all of them; one that leaves is followed by another.
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// If it was this one's turn, and `version` failed.
    pub async fn hear<F, E>(
        &mut self,
        interval: impl Fn() -> Duration,
        version: impl Fn() -> F,
    ) -> Result<(), E>
    where
        F: Future<Output = Result<i64, E>>,
    {
        // Cancel-safe: both only wait and read.
        tokio::select! {
            // Its sender is in this listener.
            _ = self.news.changed() => Ok(()),
            looked = self.order.look(interval, version) => {
                self.news.mark_unchanged();
                looked
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut registry = self.changes.registry();
        registry.listeners -= 1;
        if let Some(watched) = registry.orders.get_mut(&self.order_id) {
            watched.listeners -= 1;
            if watched.listeners == 0 {
                registry.orders.remove(&self.order_id);
            }
        }
    }
}

impl Shared {
    /// Waits for its turn, then looks until there is something to tell.
    async fn look<F, E>(
        &self,
        interval: impl Fn() -> Duration,
        version: impl Fn() -> F,
    ) -> Result<(), E>
    where
        F: Future<Output = Result<i64, E>>,
    {
        let _turn = self.turn.acquire().await;
        loop {
            time::sleep(interval()).await;
            let version = version().await?;
            // The first look tells as well: nobody knows what was before it.
            if self.version.swap(version, Ordering::Relaxed) != version {
                self.news.send_replace(());
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests;

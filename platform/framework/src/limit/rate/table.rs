//! What is counted per client: one moment each, for a bounded number of clients.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use governor::{
    nanos::Nanos,
    state::{StateStore, keyed::ShrinkableKeyedStateStore},
};
use tokio::time::Instant;

use crate::limit::client::Key;

/// Time between two searches for clients whose quota is whole again.
const SWEEP_PAUSE: Duration = Duration::from_secs(30);
/// The same where there is no room left.
const SWEEP_PAUSE_FULL: Duration = Duration::from_secs(1);

/// The counts, as the moments when each quota is whole again. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Table {
    clients_max: usize,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug)]
struct Counts {
    by_client: HashMap<Key, Nanos>,
    /// The count of all those there is no room for.
    others: Option<Nanos>,
    swept: Instant,
}

impl Table {
    pub(super) fn new(clients_max: usize) -> Self {
        let counts = Counts {
            by_client: HashMap::new(),
            others: None,
            swept: Instant::now(),
        };
        Self {
            clients_max,
            counts: Arc::new(Mutex::new(counts)),
        }
    }

    /// Whether it is time to let go of clients whose quota is whole; asked again, it is not.
    pub(super) fn wants_sweep(&self, now: Instant) -> bool {
        let mut counts = self.counts();
        let pause = if counts.by_client.len() < self.clients_max {
            SWEEP_PAUSE
        } else {
            SWEEP_PAUSE_FULL
        };
        let due = now.duration_since(counts.swept) >= pause;
        if due {
            counts.swept = now;
        }
        due
    }

    /// Whether this client has a count of its own, or can have one.
    pub(super) fn has_room_for(&self, key: &Key) -> bool {
        let counts = self.counts();
        counts.by_client.len() < self.clients_max || counts.by_client.contains_key(key)
    }

    /// How many clients are counted, and the bytes that they take.
    pub(super) fn held(&self) -> (usize, usize) {
        // A byte beside each entry tells whether it is taken.
        const ENTRY: usize = size_of::<(Key, Nanos)>() + 1;
        let counts = self.counts();
        let clients = &counts.by_client;
        (clients.len(), clients.capacity() * ENTRY)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for Table {
    type Key = Key;

    fn measure_and_replace<T, F, E>(&self, key: &Key, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut counts = self.counts();
        if let Some(count) = counts.by_client.get_mut(key) {
            let (outcome, next) = measure(Some(*count))?;
            *count = next;
            return Ok(outcome);
        }
        if counts.by_client.len() < self.clients_max {
            let (outcome, next) = measure(None)?;
            counts.by_client.insert(*key, next);
            return Ok(outcome);
        }
        let (outcome, next) = measure(counts.others)?;
        counts.others = Some(next);
        Ok(outcome)
    }
}

impl ShrinkableKeyedStateStore<Key> for Table {
    fn retain_recent(&self, drop_below: Nanos) {
        let mut counts = self.counts();
        let clients = &mut counts.by_client;
        clients.retain(|_, count| *count > drop_below);
        if clients.len() < clients.capacity() / 4 {
            clients.shrink_to_fit();
        }
    }

    fn len(&self) -> usize {
        self.counts().by_client.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

//! Keeps the signing keys fresh: made, shared with the other replicas, and forgotten in time.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use gantry::{
    backoff::{self, Backoff},
    status,
};
use gantry_store::{Error, Kind, Timestamp};
use tokio::time;

use crate::{
    signing::{self, KeyError, KeyRing},
    store::Store,
};

/// How often a replica looks for keys of others and for the age of the newest.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// How long a new key is published before it signs, where there is an older one: longer than a
/// replica takes to see it, and than those who check tokens wait between two looks.
const PUBLISH_AHEAD: Duration = Duration::from_mins(2);

/// Longest a token lives, by configuration; a key is published that much longer than it signs.
const TOKEN_LIFETIME_MAX: Duration = Duration::from_hours(1);

/// Pauses between two tries to read the first keys.
const PAUSES: backoff::Config = backoff::Config {
    min: Duration::from_millis(100),
    max: Duration::from_secs(5),
    multiplier: 1.6,
    jitter: 0.2,
};

/// The keys in use; clones share them.
#[derive(Debug, Clone)]
pub struct Keys {
    store: Store,
    lifetime: Duration,
    ring: Arc<ArcSwap<KeyRing>>,
}

/// Why the keys are not fresh.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The database failed.
    #[error("look for signing keys")]
    Store(#[from] Error),
    /// It holds a key that is none.
    #[error("read the signing keys")]
    Key(#[from] KeyError),
}

impl RefreshError {
    /// Whether the same may succeed later: nothing of it is the program's mistake.
    fn may_pass(&self) -> bool {
        match self {
            Self::Store(error) => match error.kind() {
                Kind::Busy | Kind::TimedOut | Kind::Unavailable | Kind::Full => true,
                Kind::Conflict | Kind::Broken => false,
            },
            Self::Key(_) => false,
        }
    }
}

impl Keys {
    /// Reads the keys, making the first where there is none. A database that is busy, full or away
    /// is waited for, as it is when it is opened.
    ///
    /// # Errors
    ///
    /// If waiting cannot help: the database refuses, or holds a key that cannot be read.
    pub async fn open(store: Store, lifetime: Duration) -> Result<Self, RefreshError> {
        let keys = Self {
            store,
            lifetime,
            ring: Arc::default(),
        };
        keys.first().await?;
        Ok(keys)
    }

    /// Refreshes until it has succeeded once, or cannot.
    async fn first(&self) -> Result<(), RefreshError> {
        let mut pauses = Backoff::new(PAUSES).expect("the pauses are above zero and grow");
        loop {
            let error = match self.refresh(Timestamp::now()).await {
                Err(error) if error.may_pass() => error,
                outcome => return outcome,
            };
            tracing::warn!(error = %status::chain(&error), "no signing keys yet, trying again");
            time::sleep(pauses.next_pause()).await;
        }
    }

    /// The keys now.
    #[must_use]
    pub fn ring(&self) -> Arc<KeyRing> {
        self.ring.load_full()
    }

    /// Since when a key must have been published to sign at `now`.
    #[must_use]
    pub fn published(now: Timestamp) -> Timestamp {
        now.before(PUBLISH_AHEAD)
    }

    /// Makes the next key where it is time, then reads all.
    ///
    /// # Errors
    ///
    /// If the database fails or holds a key that cannot be read; the keys so far stay in use.
    pub async fn refresh(&self, now: Timestamp) -> Result<(), RefreshError> {
        let since = now.before(self.lifetime);
        let mut stored = self.store.keys().await?;
        if stored
            .first()
            .is_none_or(|newest| newest.created_at < since)
        {
            // The last key before this one may sign a little longer, and its tokens live on.
            let until = since
                .before(self.lifetime)
                .before(PUBLISH_AHEAD)
                .before(TOKEN_LIFETIME_MAX);
            let make = || signing::generate(now);
            if self.store.rotate_keys(since, until, make).await? {
                tracing::info!("a new signing key was made");
            }
            stored = self.store.keys().await?;
        }
        self.ring.store(Arc::new(KeyRing::read(&stored)?));
        Ok(())
    }

    /// Refreshes now and then; runs until it is dropped.
    pub async fn keep_fresh(self) {
        loop {
            time::sleep(REFRESH_INTERVAL).await;
            if let Err(error) = self.refresh(Timestamp::now()).await {
                tracing::warn!(error = %status::chain(&error), "signing keys were not refreshed");
            }
        }
    }
}

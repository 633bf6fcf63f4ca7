//! The issuer's public keys: read now and then, and kept while it is away.
//!
//! A token whose key is unknown causes a read, at most one a minute however many such tokens come;
//! a read that failed may be tried again sooner. While the issuer cannot be reached the keys stay, for
//! a day.

use std::{collections::HashMap, future::Future, pin::Pin, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use jsonwebtoken::DecodingKey;
use tokio::{
    sync::Mutex,
    time::{self, Instant},
};

use super::FetchError;
use crate::status;

/// Least time between two reads that unknown keys cause.
const UNKNOWN_PAUSE: Duration = Duration::from_mins(1);
/// Least time after a read that failed.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// Time between two reads when nothing is wrong: the issuer publishes a key for longer than this
/// before it signs with it.
const REFRESH_INTERVAL: Duration = Duration::from_mins(1);
/// Longest wait for the issuer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long keys are good for without being read anew: an issuer that is away for longer may have
/// taken them back.
const KEPT_MAX: Duration = Duration::from_hours(24);
/// Keys that are kept; an issuer has a few.
const KEYS_MAX: usize = 64;
/// Bytes of an Ed25519 public key in base64url.
const KEY_TEXT_BYTES: usize = 43;

/// A key as its issuer publishes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// Its name.
    pub kid: String,
    /// The Ed25519 key, base64url without padding.
    pub x: String,
}

/// A key that signatures are checked by; equal where it is the same one, under whatever name.
pub(super) struct Key {
    pub(super) decoding: DecodingKey,
    /// As its issuer spelled it.
    x: String,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.x == other.x
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("x", &self.x)
            .finish_non_exhaustive()
    }
}

type Fetching = Pin<Box<dyn Future<Output = Result<Vec<PublicKey>, FetchError>> + Send>>;

/// Reads the keys from their issuer.
pub trait Fetch: Send + Sync + 'static {
    /// All keys now.
    fn fetch(&self) -> Fetching;
}

impl<F, Fut> Fetch for F
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Vec<PublicKey>, FetchError>> + Send + 'static,
{
    fn fetch(&self) -> Fetching {
        Box::pin(self())
    }
}

/// The keys, by name.
pub struct Keys {
    fetch: Box<dyn Fetch>,
    // Nothing until the first read that succeeds.
    known: ArcSwapOption<Known>,
    // Held during a read, so that there is one at a time; what it guards is when the last one
    // was, and whether it succeeded.
    last: Mutex<Option<(Instant, bool)>>,
}

/// What was read.
struct Known {
    by_name: HashMap<String, Arc<Key>>,
    at: Instant,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self
            .known
            .load()
            .as_ref()
            .map_or(0, |known| known.by_name.len());
        f.debug_struct("Keys")
            .field("known", &count)
            .finish_non_exhaustive()
    }
}

/// What is known of a key's name.
#[derive(Debug)]
pub(super) enum Lookup {
    /// The key.
    Found(Arc<Key>),
    /// The issuer has no such key.
    Unknown,
    /// The issuer was never reached, or not for too long.
    NoKeys,
}

impl Keys {
    pub(super) fn new(fetch: impl Fetch) -> Self {
        Self {
            fetch: Box::new(fetch),
            known: ArcSwapOption::empty(),
            last: Mutex::new(None),
        }
    }

    /// The key of this name, asking the issuer if it is unknown and has not been asked lately.
    pub(super) async fn get(&self, kid: &str) -> Lookup {
        if let found @ Lookup::Found(_) = self.look_up(kid) {
            return found;
        }
        let mut last = self.last.lock().await;
        // Somebody may have asked while this call waited for its turn.
        if let found @ Lookup::Found(_) = self.look_up(kid) {
            return found;
        }
        let may_ask = last.is_none_or(|(at, succeeded)| {
            let pause = if succeeded {
                UNKNOWN_PAUSE
            } else {
                FAILED_PAUSE
            };
            at.elapsed() >= pause
        });
        if may_ask {
            self.read(&mut last).await;
        }
        drop(last);
        self.look_up(kid)
    }

    /// Reads the keys now and again; runs until it is dropped.
    pub(super) async fn keep_fresh(&self) {
        loop {
            let succeeded = self.read(&mut *self.last.lock().await).await;
            let pause = if succeeded {
                REFRESH_INTERVAL
            } else {
                FAILED_PAUSE
            };
            time::sleep(pause).await;
        }
    }

    fn look_up(&self, kid: &str) -> Lookup {
        match &*self.known.load() {
            Some(known) if known.at.elapsed() < KEPT_MAX => match known.by_name.get(kid) {
                Some(key) => Lookup::Found(Arc::clone(key)),
                None => Lookup::Unknown,
            },
            _ => Lookup::NoKeys,
        }
    }

    /// Asks the issuer once, and notes when that was.
    ///
    /// A caller that leaves in the middle leaves the note of an attempt that failed: the next one
    /// asks again after a moment, not at once.
    async fn read(&self, last: &mut Option<(Instant, bool)>) -> bool {
        let failing = last.is_some_and(|(_, succeeded)| !succeeded);
        *last = Some((Instant::now(), false));
        let reason = match time::timeout(FETCH_TIMEOUT, self.fetch.fetch()).await {
            Ok(Ok(keys)) => {
                let by_name = usable(keys);
                if !by_name.is_empty() {
                    let at = Instant::now();
                    self.known.store(Some(Arc::new(Known { by_name, at })));
                    *last = Some((at, true));
                    return true;
                }
                "the issuer has no usable key".to_owned()
            }
            Ok(Err(error)) => status::chain(&*error),
            Err(_) => "the issuer did not answer in time".to_owned(),
        };
        // Once per outage is enough to be told.
        if failing {
            tracing::debug!(reason, "public keys were not read");
        } else {
            tracing::warn!(reason, "public keys were not read; those so far are kept");
        }
        false
    }
}

fn usable(keys: Vec<PublicKey>) -> HashMap<String, Arc<Key>> {
    keys.into_iter()
        .filter(|key| key.x.len() == KEY_TEXT_BYTES)
        .filter_map(|key| {
            let decoding = DecodingKey::from_ed_components(&key.x).ok()?;
            Some((key.kid, Arc::new(Key { decoding, x: key.x })))
        })
        .take(KEYS_MAX)
        .collect()
}

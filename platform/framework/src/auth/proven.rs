//! Tokens that have been judged good: a client shows the same one with each of its calls, and a
//! signature costs more than all else about a call.
//!
//! What was found is kept with all that it was found by, the key, the rules and the time, and holds
//! for as long as those do. What is not good is judged each time, so nobody fills this with it.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{keys::Key, token::Identity, token::Rules};

/// Tokens of a generation. There are two: what is asked for in the younger's time stays.
const GENERATION: usize = 2_048;
/// Longest token that is kept; with the above it bounds the memory: a few MiB, and twice that where each
/// token has as many roles as it may.
const TOKEN_KEPT_MAX: usize = 1_024;

/// A token that is good.
#[derive(Debug)]
pub(super) struct Proof {
    /// The name of the key that signed it.
    pub(super) kid: String,
    pub(super) key: Arc<Key>,
    pub(super) rules: Arc<Rules>,
    /// From when to when, in seconds since 1970: the time it was judged at, and the last at which it
    /// has not expired. Between them, time changes nothing about it.
    pub(super) from: u64,
    pub(super) until: u64,
    pub(super) identity: Identity,
}

impl Proof {
    /// Whether it is one still: its key is `key`, what is asked for is what `rules` asks for, and it
    /// is not over.
    pub(super) fn holds(&self, key: &Key, rules: &Rules, now: u64) -> bool {
        (self.from..=self.until).contains(&now) && *self.key == *key && *self.rules == *rules
    }
}

type Generation = HashMap<Box<str>, Arc<Proof>>;

/// Tokens by their text.
#[derive(Default)]
pub(super) struct Proven {
    generations: Mutex<[Generation; 2]>,
}

impl std::fmt::Debug for Proven {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proven").finish_non_exhaustive()
    }
}

impl Proven {
    /// What was found of `token`, which may not hold any more.
    pub(super) fn find(&self, token: &str) -> Option<Arc<Proof>> {
        let mut generations = self.lock();
        let [young, old] = &mut *generations;
        if let Some(proof) = young.get(token) {
            return Some(Arc::clone(proof));
        }
        let (token, proof) = old.remove_entry(token)?;
        let over = insert(&mut generations, token, Arc::clone(&proof));
        // Much to free, and all calls take the lock.
        drop(generations);
        drop(over);
        Some(proof)
    }

    /// Keeps what was found of `token`.
    pub(super) fn keep(&self, token: String, proof: Proof) {
        if token.len() > TOKEN_KEPT_MAX {
            return;
        }
        let mut generations = self.lock();
        let over = insert(&mut generations, token.into(), Arc::new(proof));
        drop(generations);
        drop(over);
    }

    fn lock(&self) -> MutexGuard<'_, [Generation; 2]> {
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().iter().map(HashMap::len).sum()
    }
}

/// Adds to the younger; answers the older where that is over.
fn insert(
    [young, old]: &mut [Generation; 2],
    token: Box<str>,
    proof: Arc<Proof>,
) -> Option<Generation> {
    let full = young.len() >= GENERATION;
    let over = full.then(|| mem::replace(old, mem::take(young)));
    young.insert(token, proof);
    over
}

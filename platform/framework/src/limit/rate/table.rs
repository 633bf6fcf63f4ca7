//! What is counted per key: one moment each, for a bounded number of keys.
//!
//! A key is kept as a number that is made of it with a secret: of one size whatever callers send,
//! and nothing can be read out of it. Two that meet in one count are not to be expected, nor can
//! they be looked for.

use std::{
    collections::HashMap,
    hash::RandomState,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use governor::nanos::Nanos;
use tokio::time::Instant;

/// Parts of a table, each under a lock of its own: callers that are counted apart seldom meet.
const SHARDS: usize = 16;
/// Time between two searches of calls, each in its own part, for keys that need no count any more,
/// where there is no room left.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// The counts, as the moments when each quota is whole again.
#[derive(Debug)]
pub(super) struct Table {
    keys_max: usize,
    held: AtomicUsize,
    shards: Vec<Mutex<Shard>>,
    /// The count of all those there is no room for.
    others: Mutex<Nanos>,
    secret: RandomState,
}

#[derive(Debug)]
struct Shard {
    by_key: HashMap<u64, Nanos, foldhash::fast::RandomState>,
    swept: Instant,
}

impl Shard {
    /// Lets go of the keys that are whole at `now`; says how many.
    fn sweep(&mut self, now: Nanos) -> usize {
        let before = self.by_key.len();
        self.by_key.retain(|_, count| *count > now);
        if self.by_key.len() <= self.by_key.capacity() / 4 {
            self.by_key.shrink_to_fit();
        }
        before - self.by_key.len()
    }
}

impl Table {
    /// Counts up to `keys_max` keys one by one; with 0, all together.
    pub(super) fn new(keys_max: usize) -> Self {
        let shard = || {
            Mutex::new(Shard {
                by_key: HashMap::default(),
                swept: Instant::now(),
            })
        };
        let shards = if keys_max == 0 { 0 } else { SHARDS };
        Self {
            keys_max,
            held: AtomicUsize::new(0),
            shards: std::iter::repeat_with(shard).take(shards).collect(),
            others: Mutex::default(),
            secret: RandomState::new(),
        }
    }

    /// What makes keys.
    pub(super) fn secret(&self) -> &RandomState {
        &self.secret
    }

    /// The count of `key` at `now`, locked.
    pub(super) fn place(&self, key: u64, now: Nanos) -> Place<'_> {
        if self.shards.is_empty() {
            return Place::together(self.others());
        }
        let mut shard = self.shard(key);
        if let Some(count) = shard.by_key.get(&key).copied() {
            let room = None;
            let kept = Kept::Own { shard, key, room };
            return Place { count, kept };
        }
        let room = self.room().or_else(|| {
            let at = Instant::now();
            if at.duration_since(shard.swept) < SWEEP_PAUSE {
                return None;
            }
            shard.swept = at;
            self.held.fetch_sub(shard.sweep(now), Ordering::Relaxed);
            self.room()
        });
        if room.is_none() {
            drop(shard);
            return Place::together(self.others());
        }
        Place {
            count: Nanos::default(),
            kept: Kept::Own { shard, key, room },
        }
    }

    /// Takes back what `key` was counted for a call, `each`.
    pub(super) fn give_back(&self, key: u64, each: Nanos) {
        if !self.shards.is_empty() {
            if let Some(count) = self.shard(key).by_key.get_mut(&key) {
                *count = count.saturating_sub(each);
                return;
            }
            if self.held() < self.keys_max {
                return;
            }
        }
        let mut others = self.others();
        *others = others.saturating_sub(each);
    }

    /// Lets go of every key that needs no count at `now`.
    pub(super) fn sweep(&self, now: Nanos) {
        for shard in &self.shards {
            let gone = lock(shard).sweep(now);
            self.held.fetch_sub(gone, Ordering::Relaxed);
        }
    }

    /// When the quota of all that share a count is whole again.
    pub(super) fn shared(&self) -> Nanos {
        *self.others()
    }

    /// How many keys are counted.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// How many keys may be.
    pub(super) fn keys_max(&self) -> usize {
        self.keys_max
    }

    /// The bytes that the keys take.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        // A byte beside each entry tells whether it is taken.
        const ENTRY: usize = size_of::<(u64, Nanos)>() + 1;
        let each = self.shards.iter();
        each.map(|shard| lock(shard).by_key.capacity() * ENTRY)
            .sum()
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, Shard> {
        // Of the upper bits, as the map within goes by the lower ones.
        let index = usize::try_from(key >> 32).unwrap_or_default() % self.shards.len();
        lock(&self.shards[index])
    }

    fn others(&self) -> MutexGuard<'_, Nanos> {
        lock(&self.others)
    }

    /// Room for one more key, where there is some.
    fn room(&self) -> Option<Room<'_>> {
        let one_more = |held| (held < self.keys_max).then_some(held + 1);
        // Relaxed: the number guards no other memory.
        let counted = self
            .held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        // Not made in vain: it gives back what it is dropped with.
        counted.is_ok().then(|| Room(&self.held))
    }
}

/// Room for a key, given back unless it is taken.
struct Room<'a>(&'a AtomicUsize);

impl Room<'_> {
    fn take(self) {
        std::mem::forget(self);
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One count while a call is judged by it. Nobody else changes it meanwhile.
pub(super) struct Place<'a> {
    count: Nanos,
    kept: Kept<'a>,
}

enum Kept<'a> {
    Own {
        shard: MutexGuard<'a, Shard>,
        key: u64,
        /// Where it is new.
        room: Option<Room<'a>>,
    },
    Together(MutexGuard<'a, Nanos>),
}

impl<'a> Place<'a> {
    fn together(others: MutexGuard<'a, Nanos>) -> Self {
        Self {
            count: *others,
            kept: Kept::Together(others),
        }
    }

    /// When its quota is whole again; long ago for one that is new.
    pub(super) fn count(&self) -> Nanos {
        self.count
    }

    /// Whether it is counted together with others.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.kept, Kept::Together(_))
    }

    /// Counts.
    pub(super) fn set(self, count: Nanos) {
        match self.kept {
            Kept::Own {
                mut shard,
                key,
                room,
            } => {
                shard.by_key.insert(key, count);
                if let Some(room) = room {
                    room.take();
                }
            }
            Kept::Together(mut others) => *others = count,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Faults that an operator switches on in a running process.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::Config;
use crate::{
    contract::{Pattern, Patterns},
    journal::{Journal, Kind},
};

/// Longest time that a fault is switched on for: nobody looks for one that was forgotten.
pub const LONGEST: Duration = Duration::from_hours(24);

/// Patterns that have a fault at once.
const PATTERNS_MAX: usize = 1_000;

/// What operators switched on, each for a time; clones share it.
///
/// While nothing is on, a call pays one atomic load.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// None while nothing is on.
    now: ArcSwapOption<Patterns<Met>>,
    /// What `now` is made of.
    state: Mutex<State>,
    /// Wakes whoever follows, as another one may end first.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    all: BTreeMap<String, On>,
    /// Those whose time is over, until somebody tells of them.
    expired: Vec<Standing>,
}

#[derive(Debug)]
struct On {
    standing: Standing,
    met: Met,
}

/// What calls of one pattern meet, for as long as it is on.
#[derive(Debug, Clone)]
pub struct Met {
    /// What it does.
    pub config: Config,
    until: Instant,
    off: CancellationToken,
}

impl Met {
    /// Completes when it is on no more: its time is over, or it was switched off or replaced.
    pub async fn over(&self) {
        // Cancel-safe: both only wait.
        tokio::select! {
            () = self.off.cancelled() => {}
            () = sleep_until(self.until) => {}
        }
    }
}

/// A fault that is on.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// For which calls.
    pub pattern: Pattern,
    /// What it does.
    pub config: Config,
    /// Until when.
    pub until: Instant,
}

/// More faults than can be on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no more than {PATTERNS_MAX} patterns can have a fault at once")]
pub struct TooMany;

impl Faults {
    /// Switches a fault on, in place of one of the same pattern: calls that wait because of that one go
    /// on.
    ///
    /// # Errors
    ///
    /// If too many are on already.
    pub fn switch_on(&self, standing: Standing) -> Result<(), TooMany> {
        let name = standing.pattern.to_string();
        self.change(|all| {
            if all.len() >= PATTERNS_MAX && !all.contains_key(&name) {
                return Err(TooMany);
            }
            let met = Met {
                config: standing.config.clone(),
                until: standing.until,
                off: CancellationToken::new(),
            };
            all.insert(name, On { standing, met });
            self.shared.changed.notify_one();
            Ok(())
        })
    }

    /// Switches off the fault of a pattern, or all; says which there were. Calls that wait because of it
    /// go on.
    #[must_use]
    pub fn switch_off(&self, pattern: Option<&Pattern>) -> Vec<Standing> {
        self.change(|all| {
            let off: Vec<_> = match pattern {
                Some(pattern) => all.remove(&pattern.to_string()).into_iter().collect(),
                None => mem::take(all).into_values().collect(),
            };
            off.iter().map(|on| on.standing.clone()).collect()
        })
    }

    /// What is on, by the names of the patterns.
    #[must_use]
    pub fn all(&self) -> Vec<Standing> {
        self.change(|all| all.values().map(|on| on.standing.clone()).collect())
    }

    /// What is on for `method`, `package.Service/Method`; the most specific alone.
    #[must_use]
    pub fn find(&self, method: &str) -> Option<Met> {
        let patterns = self.shared.now.load();
        let patterns = patterns.as_ref()?;
        let now = Instant::now();
        patterns.find_where(method, |met| now < met.until).cloned()
    }

    /// Tells of those whose time is over, until told to stop.
    pub async fn follow(self, journal: Journal, stopping: CancellationToken) {
        let _ = stopping.run_until_cancelled(self.tell(&journal)).await;
    }

    async fn tell(&self, journal: &Journal) {
        let shared = &self.shared;
        loop {
            let (expired, due) = self.expired();
            for standing in expired {
                let pattern = standing.pattern.to_string();
                tracing::info!(pattern, "a fault is over: its time has passed");
                journal.record(Kind::Fault, pattern, "over");
            }
            let due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            // Cancel-safe: both only wait, and a permit is kept for a change between two rounds.
            tokio::select! {
                () = due => {}
                () = shared.changed.notified() => {}
            }
        }
    }

    /// Those whose time is over, each told once, and when the next one's is.
    fn expired(&self) -> (Vec<Standing>, Option<Instant>) {
        let due = self.change(|all| all.values().map(|on| on.met.until).min());
        (mem::take(&mut self.lock().expired), due)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    fn change<R>(&self, change: impl FnOnce(&mut BTreeMap<String, On>) -> R) -> R {
        let mut state = self.lock();
        let State { all, expired } = &mut *state;
        let now = Instant::now();
        let before = all.len();
        let ended = all.extract_if(.., |_, on| on.met.until <= now);
        expired.extend(ended.map(|(_, on)| on.standing.clone()));
        // Where nobody asks for them, the oldest are forgotten.
        expired.drain(..expired.len().saturating_sub(PATTERNS_MAX));
        if all.len() < before {
            self.shared.changed.notify_one();
        }
        let done = change(all);
        let mut patterns = Patterns::default();
        for on in all.values() {
            patterns.insert(on.standing.pattern.clone(), on.met.clone());
        }
        let patterns = (!all.is_empty()).then(|| Arc::new(patterns));
        self.shared.now.store(patterns);
        done
    }
}

/// Whoever waits because of it goes on.
impl Drop for On {
    fn drop(&mut self) {
        self.met.off.cancel();
    }
}

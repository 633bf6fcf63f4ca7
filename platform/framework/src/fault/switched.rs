//! Faults that an operator switches on in a running process.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

use super::Config;
use crate::contract::{Pattern, Patterns};

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
    now: ArcSwapOption<Patterns<Standing>>,
    /// What `now` is made of.
    all: Mutex<BTreeMap<String, Standing>>,
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
    /// Switches a fault on, in place of one of the same pattern.
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
            all.insert(name, standing);
            Ok(())
        })
    }

    /// Switches off the fault of a pattern, or all; says which there were.
    #[must_use]
    pub fn switch_off(&self, pattern: Option<&Pattern>) -> Vec<Standing> {
        self.change(|all| match pattern {
            Some(pattern) => all.remove(&pattern.to_string()).into_iter().collect(),
            None => std::mem::take(all).into_values().collect(),
        })
    }

    /// What is on, by the names of the patterns.
    #[must_use]
    pub fn all(&self) -> Vec<Standing> {
        self.change(|all| all.values().cloned().collect())
    }

    /// What is on for `method`, `package.Service/Method`; the most specific alone.
    #[must_use]
    pub fn find(&self, method: &str) -> Option<Config> {
        let patterns = self.shared.now.load();
        let patterns = patterns.as_ref()?;
        let now = Instant::now();
        let standing = patterns.find_where(method, |standing| now < standing.until);
        standing.map(|standing| standing.config.clone())
    }

    fn change<R>(&self, change: impl FnOnce(&mut BTreeMap<String, Standing>) -> R) -> R {
        let all = self.shared.all.lock();
        let mut all = all.unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        all.retain(|_, standing| now < standing.until);
        let done = change(&mut all);
        let mut patterns = Patterns::default();
        for standing in all.values() {
            patterns.insert(standing.pattern.clone(), standing.clone());
        }
        let patterns = (!all.is_empty()).then(|| Arc::new(patterns));
        self.shared.now.store(patterns);
        done
    }
}

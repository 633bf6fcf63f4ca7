//! How many calls may be made in a time: quotas of a pattern of methods, each counted per caller or for
//! all together.
//!
//! A quota is spent call by call and comes back evenly (GCRA, by governor): whoever made as many
//! calls as it allows waits for the next, and not for the end of a minute. Callers are told apart by
//! address (an IPv6 client by its /64, which one household has), by whom a verified token speaks for, or by
//! metadata. Who lacks what a quota is counted by is counted by address for it, never not at all.
//!
//! A pattern may have several quotas. A call is let in by all of them, or is counted for none, and is told
//! to come back when the last of those that refuse it would let it in.
//!
//! What is held is bounded: past [`Config::keys_max`] callers, those that are new share one count.
//! An attacker with many addresses thereby limits newcomers, and nobody who was there before.

mod count;
mod settings;
mod table;

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Extensions, HeaderMap};
use tokio::time::{self, Instant};
use tonic::Status;

use crate::{
    config::Live,
    contract::{Pattern, Patterns},
    limit::{
        board::{Board, Fill, Filled},
        client,
    },
    status::Refusal,
    telemetry::platform::Limits,
};

pub use count::Caller;
pub use settings::{Config, NoQuota, Per, Quota, Quotas, Rules};

use count::{Counts, Late, Stage};

/// Time between two searches for keys that need no count any more.
const SWEEP_PAUSE: Duration = Duration::from_secs(30);

/// The counts of one pattern, which methods that inherit from it have as well.
#[derive(Debug, Clone)]
struct Shared(Arc<Counts>);

/// Other counts are others, whatever is in them.
impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What is counted by `rules`; what has not changed keeps its counts.
fn book(rules: &Rules, before: &Patterns<Shared>) -> Patterns<Shared> {
    let keys_max = rules.config.keys_max;
    let own = |pattern: &Pattern, quotas: &Quotas| {
        let kept = before
            .get(pattern)
            .filter(|Shared(counts)| counts.pattern == *pattern)
            .filter(|Shared(counts)| counts.is_for(quotas) && counts.keys_max == keys_max);
        kept.cloned()
            .unwrap_or_else(|| Shared(Arc::new(Counts::new(pattern.clone(), quotas, keys_max))))
    };
    let mut book = Patterns::default();
    let (inherited, said): (Vec<_>, Vec<_>) = rules
        .quotas
        .iter()
        .partition(|(_, quotas)| quotas.owner().is_some());
    for (pattern, quotas) in said {
        let shared = own(&pattern, quotas);
        book.insert(pattern, shared);
    }
    for (pattern, quotas) in inherited {
        let owner = quotas.owner().and_then(|owner| book.get(owner)).cloned();
        let shared = owner.unwrap_or_else(|| own(&pattern, quotas));
        book.insert(pattern, shared);
    }
    book
}

/// Counts calls; clones share the counts.
#[derive(Debug, Clone)]
pub struct Limiter {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    rules: Live<Rules>,
    book: Live<Patterns<Shared>>,
    /// Whether there is any quota: where there is none, a call costs this much.
    counts: Arc<AtomicBool>,
    refused: Limits,
}

impl Default for Limiter {
    /// Without quotas.
    fn default() -> Self {
        Self::new(Live::fixed(Rules::default()))
    }
}

impl Limiter {
    /// Holds callers to the quotas of `rules`, as they are when a call comes.
    #[must_use]
    pub fn new(rules: Live<Rules>) -> Self {
        let counts = Arc::new(AtomicBool::new(false));
        let (any, before) = (Arc::clone(&counts), Mutex::new(Patterns::default()));
        let book = rules.derive(move |rules| {
            let mut before = before.lock().unwrap_or_else(PoisonError::into_inner);
            *before = book(rules, &before);
            // One that is too early finds nothing to count by, and one too late has been let in.
            let is_any = rules.quotas.values().any(|quotas| !quotas.is_empty());
            any.store(is_any, Ordering::Relaxed);
            before.clone()
        });
        Self {
            inner: Arc::new(Inner {
                rules,
                book,
                counts,
                refused: Limits::register(),
            }),
        }
    }

    /// Where a call with these `extensions` and `headers` comes from, behind the proxies that are
    /// trusted.
    #[must_use]
    pub fn client(&self, extensions: &Extensions, headers: &HeaderMap) -> IpAddr {
        let rules = &self.inner.rules;
        rules.read(|rules| client::client_of(extensions, headers, &rules.config.proxies))
    }

    /// The quotas of one method, `package.Service/Method`, followed.
    #[must_use]
    pub fn follow(&self, method: &'static str) -> Counted {
        Counted {
            limiter: self.clone(),
            counts: self.inner.book.derive(|book| book.find(method).cloned()),
        }
    }

    /// Begins to count a call of `method` by a caller of whom it is not known yet who it is, for the
    /// quotas that need no identity. A method that was made up counts as what its pattern matches, and
    /// nothing is kept of its name.
    ///
    /// # Errors
    ///
    /// `RESOURCE_EXHAUSTED` if nothing is left of one of them, with when there will be.
    pub fn begin(&self, method: &str, caller: &Caller<'_>) -> Result<Begun, Status> {
        let counts = self.find(method);
        if let Some(Shared(counts)) = &counts {
            let taken = counts.take(caller, Stage::Before);
            taken.map_err(|late| self.refuse(&late))?;
        }
        let counts = counts.filter(|Shared(counts)| counts.has(Stage::Identified));
        Ok(Begun {
            counts: counts.map(|counts| (counts, self.clone())),
        })
    }

    /// Is seen on `board` from now on: each quota with the callers that are counted for it one by one, or,
    /// where all are counted together, with the calls that are spent.
    pub fn show(&self, board: &Board) {
        board.show(&self.inner);
    }

    /// Lets go of callers whose quota is whole.
    pub fn sweep(&self) {
        let book = self.inner.book.load();
        book.values().for_each(|Shared(counts)| counts.sweep());
    }

    /// Does so now and then; runs until it is dropped.
    pub async fn keep_swept(self) {
        loop {
            time::sleep(SWEEP_PAUSE).await;
            self.sweep();
        }
    }

    fn is_idle(&self) -> bool {
        !self.inner.counts.load(Ordering::Relaxed)
    }

    fn find(&self, method: &str) -> Option<Shared> {
        if self.is_idle() {
            return None;
        }
        self.inner.book.read(|book| book.find(method).cloned())
    }

    fn refuse(&self, late: &Late<'_>) -> Status {
        self.inner.refused.refuse(late.why);
        Refusal::RateLimit.status_with_pause(late.text(), late.pause)
    }
}

impl Filled for Inner {
    fn fills(&self, _now: Instant) -> Vec<Fill> {
        let book = self.book.load();
        // What is inherited is seen once, where it is said.
        let own = book
            .iter()
            .filter(|(pattern, Shared(counts))| counts.pattern == *pattern);
        own.flat_map(|(_, Shared(counts))| counts.fills()).collect()
    }
}

/// The quotas of one method; clones share the counts.
#[derive(Debug, Clone)]
pub struct Counted {
    limiter: Limiter,
    counts: Live<Option<Shared>>,
}

impl Counted {
    /// Counts a call, where there is a quota for it.
    ///
    /// # Errors
    ///
    /// `RESOURCE_EXHAUSTED` if nothing is left of one of the quotas, with when there will be in all of
    /// them. It is counted for none then.
    pub fn admit<'a>(&self, caller: impl FnOnce(&Limiter) -> Caller<'a>) -> Result<(), Status> {
        if self.limiter.is_idle() {
            return Ok(());
        }
        self.counts.read(|counts| {
            let Some(Shared(counts)) = counts else {
                return Ok(());
            };
            let caller = caller(&self.limiter);
            let taken = counts.take(&caller, Stage::Whole);
            taken.map_err(|late| self.limiter.refuse(&late))
        })
    }
}

/// A call that is counted as far as it is known who makes it.
#[derive(Debug)]
pub struct Begun {
    /// Where there are quotas that want to know.
    counts: Option<(Shared, Limiter)>,
}

impl Begun {
    /// Counts the call for the quotas that are per identity, now that `caller`, who it began with,
    /// has one or is known to have none.
    ///
    /// # Errors
    ///
    /// `RESOURCE_EXHAUSTED` if nothing is left of one of them. What it was counted for before is given back.
    pub fn identified(self, caller: &Caller<'_>) -> Result<(), Status> {
        let Some((Shared(counts), limiter)) = &self.counts else {
            return Ok(());
        };
        counts.take(caller, Stage::Identified).map_err(|late| {
            counts.give_back(caller, Stage::Before);
            limiter.refuse(&late)
        })
    }
}

#[cfg(test)]
mod tests;

//! How many calls a client may make in a time: a quota per method, counted per address.
//!
//! A quota is spent call by call and comes back evenly (GCRA, by governor): whoever made as many
//! calls as it allows waits for the next, and not for the end of a minute. IPv6 clients are counted
//! by their /64, which one household has.
//!
//! What is held is bounded: past [`Config::clients_max`] addresses, those that are new share one
//! count. An attacker with many addresses thereby limits newcomers, and nobody who was there before.

mod settings;
mod table;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use governor::{RateLimiter, clock::Clock, middleware::NoOpMiddleware};
use tokio::time::Instant;
use tonic::Status;

use crate::{
    config::Live,
    contract::Patterns,
    limit::client::Key,
    status::Refusal,
    telemetry::platform::{Limits, RefusedByLimit},
};

pub use settings::{Config, NoQuota, Quota};

use table::Table;

/// Time as tokio has it, so that tests can pause it.
#[derive(Debug, Clone, Copy)]
struct Time(Instant);

impl Clock for Time {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The counts of one quota.
struct Rule {
    quota: Quota,
    clients_max: usize,
    table: Table,
    limiter: RateLimiter<Key, Table, Time, NoOpMiddleware<Duration>>,
}

impl Rule {
    fn new(quota: &Quota, clients_max: usize) -> Self {
        let table = Table::new(clients_max);
        let time = Time(Instant::now());
        Self {
            limiter: RateLimiter::new(quota.rate(), table.clone(), time),
            table,
            quota: quota.clone(),
            clients_max,
        }
    }

    /// Counts a call, or says how long to wait and why.
    fn admit(&self, client: IpAddr) -> Result<(), (Duration, RefusedByLimit)> {
        let key = Key::of(client);
        let table = &self.table;
        if table.wants_sweep(Instant::now()) {
            self.limiter.retain_recent();
        }
        let why = if table.has_room_for(&key) {
            RefusedByLimit::Quota
        } else {
            RefusedByLimit::Clients
        };
        self.limiter.check_key(&key).map_err(|until| {
            let pause = until.wait_time_from(self.limiter.clock().now());
            (pause, why)
        })
    }
}

/// The quotas in force.
#[derive(Default)]
struct Rules {
    version: u64,
    by_pattern: Patterns<Arc<Rule>>,
}

impl Rules {
    /// Those of `config`; what has not changed keeps its counts.
    fn new(version: u64, config: &Config, before: &Self) -> Self {
        let mut by_pattern = Patterns::default();
        for quota in &config.quotas {
            let kept = before
                .by_pattern
                .get(&quota.pattern)
                .filter(|rule| rule.quota == *quota && rule.clients_max == config.clients_max);
            let rule = kept.map_or_else(
                || Arc::new(Rule::new(quota, config.clients_max)),
                Arc::clone,
            );
            by_pattern.insert(quota.pattern.clone(), rule);
        }
        Self {
            version,
            by_pattern,
        }
    }
}

/// Counts calls; clones share the counts.
#[derive(Clone)]
pub struct Limiter {
    config: Live<Config>,
    rules: Arc<ArcSwap<Rules>>,
    changing: Arc<Mutex<()>>,
    refused: Limits,
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Limiter {
    /// Holds callers to the quotas of `config`, as they are when a call comes.
    #[must_use]
    pub fn new(config: Live<Config>) -> Self {
        let rules = Rules::new(config.version(), &config.load(), &Rules::default());
        Self {
            config,
            rules: Arc::new(ArcSwap::from_pointee(rules)),
            changing: Arc::default(),
            refused: Limits::register(),
        }
    }

    /// Counts a call of `method`, `package.Service/Method`, by `client`. One that was made up counts
    /// as what its pattern matches, and nothing is kept of its name.
    ///
    /// # Errors
    ///
    /// `RESOURCE_EXHAUSTED` if the client has nothing left of its quota, with when it will.
    pub fn admit(&self, method: &str, client: IpAddr) -> Result<(), Status> {
        self.follow();
        let rules = self.rules.load();
        let Some(rule) = rules.by_pattern.find(method) else {
            return Ok(());
        };
        rule.admit(client).map_err(|(pause, why)| {
            self.refused.refuse(why);
            let text = format!("more than {} calls from one address", rule.quota.amount());
            Refusal::RateLimit.status_with_pause(text, pause)
        })
    }

    /// Takes up what has changed in the configuration.
    fn follow(&self) {
        let version = self.config.version();
        if self.rules.load().version == version {
            return;
        }
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.rules.load();
        if before.version != version {
            let rules = Rules::new(version, &self.config.load(), &before);
            self.rules.store(Arc::new(rules));
        }
    }

    /// How many addresses are counted, and the bytes that they take.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        let rules = self.rules.load();
        let each = rules.by_pattern.values().map(|rule| rule.table.held());
        each.fold((0, 0), |(keys, bytes), (more_keys, more_bytes)| {
            (keys + more_keys, bytes + more_bytes)
        })
    }
}

#[cfg(test)]
mod tests;

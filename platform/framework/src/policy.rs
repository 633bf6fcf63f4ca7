//! What holds for the calls of each method: the table behind `[policies]`.
//!
//! ```toml
//! [policies."*"]
//! timeout = "10s"
//!
//! [policies."shop.payments.v1.PaymentsService/Charge"]
//! timeout = "4s"
//! ```
//!
//! A pattern names a method, all methods of a service or all there are. What the most specific one
//! does not say, the next says: `package.Service/Method`, `package.Service/*`, `*`, and at last the
//! defaults. Both ends of a call use the same table: a method that a process serves and one that it
//! calls are told apart by their names alone.
//!
//! The table is replaced as a whole when the configuration changes. Whoever makes a call reads it once,
//! when the call begins; each layer that serves one reads its own part, once.

mod explain;
mod fit;
mod unknown;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    breaker,
    caller::Criticality,
    config::{self, LONGEST, Live},
    contract::{Pattern, Patterns},
    fault,
    limit::{concurrency, rate::Quotas, shed},
    retry,
    telemetry::Level,
};

pub use explain::{Explained, Value, explain};
pub use fit::{Called, misfits};
pub use unknown::{Unmatched, meant, unmatched};

config::section! {
    /// What holds for the calls of the methods of one pattern.
    pub struct Policy {
        /// Longest time of a call. Its client sends no longer deadline, or this one where the caller
        /// sets none, in place of `timeout_default`; its server ends it then, in place of
        /// `limits.unary_deadline_max`. Streams are bounded as well then. 0s is none.
        pub timeout: Duration = Duration::ZERO, in Duration::ZERO..=LONGEST, live;
        /// How much calls matter of which nobody says so, and how much they may claim to matter, made
        /// from here or served. Calls made for another one never matter more than that.
        pub criticality: Option<Criticality> = None, live;
        /// How many calls may be made where the method is served or handed on: quotas, all of which a call
        /// must be within, as in `"100/1min per address"`, `per identity`, `per metadata:x-tenant`, or
        /// `"5000/1min"` for all callers together. All methods that have them from one pattern are counted together.
        pub rate: Quotas = Quotas::default(), live;
        /// What happens to calls made from here that fail.
        pub retry: section retry::Config;
        /// Calls made from here that are sent to several instances.
        pub hedge: section retry::Hedge;
        /// What calls made from here mean for the breakers of the endpoints they are made to.
        pub breaker: section breaker::Policy;
        /// Which log lines are written while calls are served here, in place of the general level of
        /// `telemetry.log_level`; modules that are named there keep theirs.
        pub log_level: Option<Level> = None, live;
        /// Whether calls that are served here are refused while the process is overloaded.
        pub shed: section shed::Policy;
        /// What is done to calls that are served here, on purpose.
        pub fault: section fault::Config;
        /// How many calls are in flight where the method is served.
        pub concurrency: section concurrency::Policy;
        /// Answers that whoever hands calls on, as a gateway does, gives once more while it gets no others.
        pub stale_cache: section StaleCache;
    }
    validate = Policy::check;
    member = Policy::inherited;
}

/// Longest that an answer may be given once more.
const AGE_MAX: Duration = Duration::from_hours(24);

config::section! {
    /// Answers that are given once more where a backend is at fault, overloaded or away, marked as
    /// stale. Only those of methods whose contract says that they have no side effects
    /// (`idempotency_level`), with one message either way, are.
    pub struct StaleCache {
        /// How old such an answer may be; 0s is off, and none is kept.
        pub age_max: Duration = Duration::ZERO, in Duration::ZERO..=AGE_MAX, live;
    }
}

impl Policy {
    /// Longest time of a call, where there is one.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        Some(self.timeout).filter(|timeout| !timeout.is_zero())
    }

    /// What a pattern begins with: all that less specific ones say. In the order of names each of
    /// those comes before it.
    fn inherited(name: &str, before: &BTreeMap<String, Self>) -> Result<Self, String> {
        let pattern: Pattern = name.parse().map_err(|error| format!("{error}"))?;
        let mut parents = pattern.lineage().skip(1);
        let parent = parents.find_map(|parent| Some((before.get(&parent.to_string())?, parent)));
        let inherited = parent.map(|(policy, parent)| Self {
            rate: policy.rate.clone().inherited_from(&parent),
            ..policy.clone()
        });
        Ok(inherited.unwrap_or_default())
    }
}

/// The quotas that `configured` holds by pattern.
#[must_use]
pub fn quotas(configured: &BTreeMap<String, Policy>) -> Patterns<Quotas> {
    let mut quotas = Patterns::default();
    for (name, policy) in configured {
        if let Ok(pattern) = name.parse() {
            quotas.insert(pattern, policy.rate.clone());
        }
    }
    quotas
}

/// The policies of one version of the configuration.
#[derive(Debug, Clone, PartialEq, Default)]
struct Table {
    by_pattern: Patterns<Arc<Policy>>,
    default: Arc<Policy>,
}

impl Table {
    fn new(configured: &BTreeMap<String, Policy>) -> Self {
        let mut by_pattern = Patterns::default();
        for (name, policy) in configured {
            // A configuration with a name that is no pattern was refused.
            if let Ok(pattern) = name.parse() {
                by_pattern.insert(pattern, Arc::new(policy.clone()));
            }
        }
        Self {
            by_pattern,
            default: Arc::default(),
        }
    }

    fn find(&self, method: &str) -> &Arc<Policy> {
        self.by_pattern.find(method).unwrap_or(&self.default)
    }
}

/// The policies of a process, as they are now; clones see the same changes.
#[derive(Debug, Clone)]
pub struct Policies {
    table: Live<Table>,
}

impl Default for Policies {
    /// The defaults, for every method and always.
    fn default() -> Self {
        Self {
            table: Live::fixed(Table::default()),
        }
    }
}

impl Policies {
    /// Those that `configured` holds by pattern, followed.
    #[must_use]
    pub fn new(configured: &Live<BTreeMap<String, Policy>>) -> Self {
        Self {
            table: configured.derive(Table::new),
        }
    }

    /// The policy of one method, `package.Service/Method`, followed: for methods that are known
    /// when a process starts. Reading it costs one atomic pointer.
    #[must_use]
    pub fn follow(&self, method: &'static str) -> Live<Policy> {
        self.table
            .derive(move |table| Policy::clone(table.find(method)))
    }

    /// What `derive` makes of the policies of all patterns that are configured, made anew with each change
    /// of them: for programs that hand calls on, and learn of methods as these are called.
    #[must_use]
    pub fn derive<S>(
        &self,
        derive: impl Fn(&Patterns<Arc<Policy>>) -> S + Send + Sync + 'static,
    ) -> Live<S>
    where
        S: PartialEq + Send + Sync + 'static,
    {
        self.table.derive(move |table| derive(&table.by_pattern))
    }

    /// The policy of a method now: for those that are known only once they are called.
    #[must_use]
    pub fn find(&self, method: &str) -> Arc<Policy> {
        self.table.read(|table| Arc::clone(table.find(method)))
    }
}

#[cfg(test)]
mod tests;

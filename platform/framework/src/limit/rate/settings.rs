//! Quotas as people write them.

use std::{borrow::Cow, collections::BTreeSet, fmt, num::NonZeroU32, str::FromStr, time::Duration};

use crate::{
    config::{self, Given, Mismatch, Setting},
    contract::Pattern,
    limit::client::Network,
};

/// Quotas that are held to.
const QUOTAS_MAX: usize = 1_000;
/// Longest time of a quota.
const TIME_MAX: Duration = Duration::from_hours(24);

config::section! {
    /// How many calls clients may make, by their addresses.
    pub struct Config {
        /// Quotas of each client, as `pkg.v1.Service/Method 100/1min`, `pkg.v1.Service/* 1000/1min`
        /// for all methods of a service together, or `* 5000/1min` for all calls together. The most
        /// specific one counts, alone.
        pub quotas: Vec<Quota> = Vec::new(), live;
        /// Proxies in front of this process, whose `x-forwarded-for` is believed; nobody else's is.
        pub proxies: Vec<Network> = Vec::new(), live;
        /// Clients that are counted one by one for each quota, some 50 bytes each; those that
        /// come when there is no room left share one count.
        pub clients_max: usize = 65_536, in 1..=10_000_000, live;
    }
    validate = Config::check;
}

impl Config {
    fn check(&self, check: &mut config::Check<'_, '_>) {
        if self.quotas.len() > QUOTAS_MAX {
            check.refuse("quotas", format!("expected at most {QUOTAS_MAX} quotas"));
        }
        let mut seen = BTreeSet::new();
        for quota in &self.quotas {
            if !seen.insert(quota.pattern.to_string()) {
                let text = format!("expected one quota for {}, found two", quota.pattern);
                check.refuse("quotas", text);
            }
        }
    }
}

/// So many calls in a time, of those that a pattern is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Which calls.
    pub pattern: Pattern,
    /// How many, at once and in each `time`.
    pub calls: NonZeroU32,
    /// In which time they come back.
    pub time: Duration,
}

impl Quota {
    /// The quota as governor has it.
    pub(super) fn rate(&self) -> governor::Quota {
        // Times are bounded, and no shorter than a nanosecond for each call.
        let each = self.time / self.calls.get();
        governor::Quota::with_period(each.max(Duration::from_nanos(1)))
            .expect("the time of a call is not zero")
            .allow_burst(self.calls)
    }

    /// How many in which time, in words.
    #[must_use]
    pub fn amount(&self) -> String {
        format!(
            "{} in {}",
            self.calls,
            humantime::format_duration(self.time)
        )
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = humantime::format_duration(self.time);
        write!(f, "{} {}/{time}", self.pattern, self.calls)
    }
}

/// A text that is no quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoQuota {
    /// Its form.
    #[error("it is not of the form PATTERN CALLS/TIME")]
    Form,
    /// Its pattern.
    #[error("its pattern is not package.Service/Method, package.Service/* or *")]
    Pattern,
    /// Its number.
    #[error("its number of calls is not a whole one from 1 to 4294967295")]
    Calls,
    /// Its time.
    #[error("its time is not a duration from 1ms to 24h")]
    Time,
}

impl FromStr for Quota {
    type Err = NoQuota;

    fn from_str(text: &str) -> Result<Self, NoQuota> {
        let (pattern, amount) = text.trim().split_once(' ').ok_or(NoQuota::Form)?;
        let (calls, time) = amount.split_once('/').ok_or(NoQuota::Form)?;
        let calls = calls.trim().parse().map_err(|_| NoQuota::Calls)?;
        let time = humantime::parse_duration(time.trim()).map_err(|_| NoQuota::Time)?;
        if !(Duration::from_millis(1)..=TIME_MAX).contains(&time) {
            return Err(NoQuota::Time);
        }
        Ok(Self {
            pattern: pattern.parse().map_err(|_| NoQuota::Pattern)?,
            calls,
            time,
        })
    }
}

impl Setting for Quota {
    fn kind() -> Cow<'static, str> {
        "quota".into()
    }

    fn expected() -> Cow<'static, str> {
        "a quota such as \"pkg.v1.Service/Method 100/1min\"".into()
    }

    fn read(given: Given<'_>) -> Result<Self, Mismatch> {
        let text = given.text().ok_or_else(Mismatch::default)?;
        text.parse()
            .map_err(|error: NoQuota| Mismatch::because(error.to_string()))
    }

    fn show(&self) -> Option<String> {
        Some(format!("\"{self}\""))
    }
}

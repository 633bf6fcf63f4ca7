//! Quotas as people write them.

use std::{borrow::Cow, fmt, num::NonZeroU32, str::FromStr, time::Duration};

use http::HeaderName;

use crate::{
    config::{self, Given, Mismatch, Setting},
    contract::{Pattern, Patterns},
    limit::client::Network,
};

/// Quotas of one pattern.
const QUOTAS_MAX: usize = 8;
/// Longest time of a quota.
const TIME_MAX: Duration = Duration::from_hours(24);

config::section! {
    /// Who is counted for the quotas of policies, whichever they are.
    pub struct Config {
        /// Proxies in front of this process, whose `x-forwarded-for` is believed; nobody else's is.
        pub proxies: Vec<Network> = Vec::new(), live;
        /// Addresses, identities or values of metadata that are counted one by one for each quota, some
        /// 30 bytes each; those that come when there is no room left share one count.
        pub keys_max: usize = 65_536, in 1..=10_000_000, live;
    }
}

/// All that is held to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rules {
    /// What the policies say.
    pub quotas: Patterns<Quotas>,
    /// Who is counted.
    pub config: Config,
}

/// The quotas of one pattern; a call is let in by all of them, or counts for none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Quotas {
    list: Vec<Quota>,
    /// The pattern that says so, where it is a less specific one: what is inherited is counted there.
    of: Option<Pattern>,
}

impl Quotas {
    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Quota> {
        self.list.iter()
    }

    /// What a more specific pattern than `pattern`, which has these, inherits.
    #[must_use]
    pub fn inherited_from(mut self, pattern: &Pattern) -> Self {
        self.of.get_or_insert_with(|| pattern.clone());
        self
    }

    /// The pattern whose calls are counted together.
    pub(super) fn owner(&self) -> Option<&Pattern> {
        self.of.as_ref()
    }

    /// Whether nothing is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn new(list: Vec<Quota>) -> Result<Self, String> {
        if list.len() > QUOTAS_MAX {
            return Err(format!("there are more than {QUOTAS_MAX}"));
        }
        for (index, one) in list.iter().enumerate() {
            let mut others = list.iter().enumerate();
            let tighter = others.find(|(at, other)| *at != index && one.is_never_met(other));
            if let Some((_, other)) = tighter {
                return Err(format!(
                    "{one} is never reached beside {other}; leave one out"
                ));
            }
        }
        Ok(Self { list, of: None })
    }
}

impl<'a> IntoIterator for &'a Quotas {
    type Item = &'a Quota;
    type IntoIter = std::slice::Iter<'a, Quota>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Setting for Quotas {
    fn kind() -> Cow<'static, str> {
        Vec::<Quota>::kind()
    }

    fn expected() -> Cow<'static, str> {
        Vec::<Quota>::expected()
    }

    fn read(given: Given<'_>) -> Result<Self, Mismatch> {
        Self::new(Vec::read(given)?).map_err(Mismatch::because)
    }

    fn show(&self) -> Option<String> {
        self.list.show()
    }
}

/// So many calls in a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// How many, at once and in each `time`.
    pub calls: NonZeroU32,
    /// In which time they come back.
    pub time: Duration,
    /// Whose calls are counted together.
    pub per: Per,
}

/// Whose calls are counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Per {
    /// Everybody's.
    All,
    /// Those from one address, or one /64 of IPv6.
    Address,
    /// Those of whom a verified token speaks for.
    Identity,
    /// Those with the same values of this metadata.
    Metadata(HeaderName),
}

impl Quota {
    /// The time in which one call comes back.
    pub(super) fn each(&self) -> Duration {
        // Times are bounded, and no shorter than a nanosecond for each call.
        (self.time / self.calls.get()).max(Duration::from_nanos(1))
    }

    /// The quota as governor has it.
    pub(super) fn rate(&self) -> governor::Quota {
        governor::Quota::with_period(self.each())
            .expect("the time of a call is not zero")
            .allow_burst(self.calls)
    }

    /// What a call beyond it is told.
    pub(super) fn refusal(&self) -> String {
        let time = humantime::format_duration(self.time);
        let whose = match &self.per {
            Per::All => String::new(),
            Per::Address => " from one address".to_owned(),
            Per::Identity => " of one identity".to_owned(),
            Per::Metadata(name) => format!(" with one {name}"),
        };
        format!("more than {} calls in {time}{whose}", self.calls)
    }

    /// Whether `other` refuses whatever this one does, or is the same.
    fn is_never_met(&self, other: &Self) -> bool {
        self.per == other.per && self.calls >= other.calls && self.each() <= other.each()
    }
}

impl fmt::Display for Per {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Address => f.write_str("address"),
            Self::Identity => f.write_str("identity"),
            Self::Metadata(name) => write!(f, "metadata:{name}"),
        }
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = humantime::format_duration(self.time);
        write!(f, "{}/{time}", self.calls)?;
        match &self.per {
            Per::All => Ok(()),
            per => write!(f, " per {per}"),
        }
    }
}

/// A text that is no quota.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoQuota {
    /// Its form.
    #[error("it is not of the form CALLS/TIME or CALLS/TIME per KEY")]
    Form,
    /// Its number.
    #[error("its number of calls is not a whole one from 1 to 4294967295")]
    Calls,
    /// Its time.
    #[error("its time is not a duration from 1ms to 24h")]
    Time,
    /// What it is counted by.
    #[error("{0}")]
    Per(String),
}

impl FromStr for Quota {
    type Err = NoQuota;

    fn from_str(text: &str) -> Result<Self, NoQuota> {
        let (amount, per) = match text.trim().split_once(" per ") {
            Some((amount, per)) => (amount, Some(per.trim())),
            None => (text.trim(), None),
        };
        let (calls, time) = amount.split_once('/').ok_or(NoQuota::Form)?;
        let calls = calls.trim();
        if calls.contains(' ') {
            return Err(NoQuota::Form);
        }
        let calls = calls.parse().map_err(|_| NoQuota::Calls)?;
        let time = humantime::parse_duration(time.trim()).map_err(|_| NoQuota::Time)?;
        if !(Duration::from_millis(1)..=TIME_MAX).contains(&time) {
            return Err(NoQuota::Time);
        }
        let per = per.map_or(Ok(Per::All), str::parse);
        Ok(Self {
            calls,
            time,
            per: per.map_err(NoQuota::Per)?,
        })
    }
}

impl FromStr for Per {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("metadata", name)) => metadata(name.trim()),
            Some((other, _)) => Err(unknown(other)),
            None if text == "address" => Ok(Self::Address),
            None if text == "identity" => Ok(Self::Identity),
            None if text == "metadata" => {
                Err("metadata wants a name, as in metadata:x-tenant".to_owned())
            }
            None => Err(unknown(text)),
        }
    }
}

fn metadata(name: &str) -> Result<Per, String> {
    let name: HeaderName = name
        .parse()
        .map_err(|_| format!("{name:?} is no name of metadata such as x-tenant"))?;
    if name == http::header::AUTHORIZATION {
        return Err("whom a token speaks for is counted per identity".to_owned());
    }
    if name.as_str().starts_with("grpc-") {
        return Err(format!("{name} is not the caller's to choose, but gRPC's"));
    }
    Ok(Per::Metadata(name))
}

fn unknown(word: &str) -> String {
    let known = ["address", "identity", "metadata"];
    let meant = match config::nearest(word, known.into_iter()) {
        Some("metadata") => "; did you mean metadata:NAME?".to_owned(),
        Some(meant) => format!("; did you mean {meant}?"),
        None => ": it is address, identity or metadata:NAME".to_owned(),
    };
    format!("there is no key {word}{meant}")
}

impl Setting for Quota {
    fn kind() -> Cow<'static, str> {
        "quota".into()
    }

    fn expected() -> Cow<'static, str> {
        "a quota such as \"100/1min per address\" or \"5000/1min\"".into()
    }

    fn read(given: Given<'_>) -> Result<Self, Mismatch> {
        let text = given.text().ok_or_else(Mismatch::default)?;
        text.parse()
            .map_err(|error: NoQuota| Mismatch::because(format!("{text:?}: {error}")))
    }

    fn show(&self) -> Option<String> {
        Some(format!("\"{self}\""))
    }
}

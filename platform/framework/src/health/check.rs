//! What is checked, how often, and what follows from it.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use crate::{BoxError, config};

/// What a failing check changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// gRPC health and `/readyz`: without it no call can succeed here.
    Gates,
    /// Nothing: it is shown to people.
    Reports,
}

/// What kind of thing is checked; a closed set, so that it can be a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The service's own store.
    Database,
    /// Another service this one calls.
    Dependency,
    /// An address outside the platform, over HTTP.
    Http,
    /// Something the service's author thought of.
    Custom,
    /// The platform itself: start-up, drain, a mark set by a handler.
    Platform,
}

impl Kind {
    /// The word for this kind in interfaces.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Dependency => "dependency",
            Self::Http => "http",
            Self::Custom => "custom",
            Self::Platform => "platform",
        }
    }
}

config::section! {
    /// How often checks run, how long they may take, and how many results change a verdict. A
    /// check in code may say otherwise for itself.
    #[derive(Copy, Eq)]
    pub struct Config {
        /// Pause between the end of one run and the begin of the next.
        pub interval: Duration = Duration::from_secs(5), in RUN_MIN..=RUN_MAX, restart;
        /// Longest run; a longer one is dropped and counts as a failure.
        pub timeout: Duration = Duration::from_secs(2), in RUN_MIN..=RUN_MAX, restart;
        /// Failures in a row that turn a passing check into a failing one.
        pub fall: u32 = 3, in 1..=100, restart;
        /// Successes in a row that turn a failing check into a passing one.
        pub rise: u32 = 2, in 1..=100, restart;
    }
}

const RUN_MIN: Duration = Duration::from_millis(1);
const RUN_MAX: Duration = Duration::from_hours(1);

type Probe = Box<dyn FnMut() -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>> + Send>;

/// A named question asked again and again.
///
/// The probe is polled on a task of its own, never twice at once, and dropped when its time is up.
/// A panic in it is a failure of the check, not of the process.
pub struct Check {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) effect: Effect,
    /// What differs from `[health]`.
    pub(super) overrides: Overrides,
    pub(super) probe: Probe,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Overrides {
    interval: Option<Duration>,
    timeout: Option<Duration>,
    fall: Option<u32>,
    rise: Option<u32>,
}

impl Overrides {
    pub(super) fn over(self, config: Config) -> Config {
        Config {
            interval: self.interval.unwrap_or(config.interval),
            timeout: self.timeout.unwrap_or(config.timeout),
            fall: self.fall.unwrap_or(config.fall),
            rise: self.rise.unwrap_or(config.rise),
        }
    }
}

impl Check {
    /// A check without which no call can succeed here.
    pub fn gate<F, Fut>(name: impl Into<String>, probe: F) -> Self
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        Self::of(name, Kind::Custom, Effect::Gates, probe)
    }

    /// A check that is shown to people and changes nothing.
    pub fn report<F, Fut>(name: impl Into<String>, probe: F) -> Self
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        Self::of(name, Kind::Custom, Effect::Reports, probe)
    }

    /// The service's own store; gates.
    pub fn database<F, Fut>(name: impl Into<String>, probe: F) -> Self
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        Self::of(name, Kind::Database, Effect::Gates, probe)
    }

    /// Another service this one calls; reports.
    pub fn dependency<F, Fut>(name: impl Into<String>, probe: F) -> Self
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        Self::of(name, Kind::Dependency, Effect::Reports, probe)
    }

    pub(super) fn of<F, Fut>(
        name: impl Into<String>,
        kind: Kind,
        effect: Effect,
        mut probe: F,
    ) -> Self
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        Self {
            name: name.into(),
            kind,
            effect,
            overrides: Overrides::default(),
            probe: Box::new(move || Box::pin(probe())),
        }
    }

    /// The same check with this effect.
    #[must_use]
    pub fn with_effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    /// The same check with this pause between two runs.
    ///
    /// # Panics
    ///
    /// If `interval` is zero, which would check without a pause.
    #[must_use]
    pub fn every(mut self, interval: Duration) -> Self {
        assert!(!interval.is_zero(), "{} has no pause", self.name);
        self.overrides.interval = Some(interval);
        self
    }

    /// The same check with this bound on a run.
    ///
    /// # Panics
    ///
    /// If `timeout` is zero, which no run can meet.
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        assert!(!timeout.is_zero(), "{} has no time", self.name);
        self.overrides.timeout = Some(timeout);
        self
    }

    /// The same check, failing after this many failures in a row.
    ///
    /// # Panics
    ///
    /// If it is zero: no result is not a result.
    #[must_use]
    pub fn fall(mut self, failures: u32) -> Self {
        assert!(failures > 0, "{} falls after nothing", self.name);
        self.overrides.fall = Some(failures);
        self
    }

    /// The same check, passing again after this many successes in a row.
    ///
    /// # Panics
    ///
    /// If it is zero: no result is not a result.
    #[must_use]
    pub fn rise(mut self, successes: u32) -> Self {
        assert!(successes > 0, "{} rises after nothing", self.name);
        self.overrides.rise = Some(successes);
        self
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("effect", &self.effect)
            .finish_non_exhaustive()
    }
}

//! Faults made on purpose: calls that are late, fail, break off or are never answered.
//!
//! A [`Config`] says what becomes of which share of the calls of a method. It comes from a policy, or
//! from an operator who switches it on in a running process for a time ([`Faults`]); the operator's
//! counts where both say something. Nothing is done unless one of them says so.
//!
//! A call waits no longer than its fault is on: once that ends, it goes to its handler.
//!
//! A fault takes the place of the handler, or comes before it: to all layers around it, and to those
//! who call, it looks as if the handler did it. What is for calls of some callers alone is told by
//! their metadata.

mod switched;

use std::time::Duration;

use http::HeaderMap;
use tonic::Code;

use crate::config::{self, Given, Mismatch, Setting};

pub use switched::{Faults, LONGEST, Met, Standing};

/// Longest delay.
const DELAY_MAX: Duration = Duration::from_hours(1);

config::section! {
    /// What is done to calls on purpose.
    pub struct Config {
        /// Percent of calls that wait for `delay` first.
        pub delay_percent: f64 = 0.0, in 0.0..=100.0, live;
        /// How long those wait, within their deadline.
        pub delay: Duration = Duration::ZERO, in Duration::ZERO..=DELAY_MAX, live;
        /// Percent of calls that end with `code` in their handler's place.
        pub fail_percent: f64 = 0.0, in 0.0..=100.0, live;
        /// How those end, as in `UNAVAILABLE`.
        pub code: Ending = Ending(Code::Unavailable), live;
        /// Percent of calls whose answer breaks off without a status.
        pub abort_percent: f64 = 0.0, in 0.0..=100.0, live;
        /// Percent of calls that are never answered: they end at their deadlines.
        pub drop_percent: f64 = 0.0, in 0.0..=100.0, live;
        /// Does it to calls with this metadata alone, as in `user-agent: grpcurl`: the value may go on.
        pub metadata: Option<Metadata> = None, live;
    }
    validate = Config::check;
}

impl Config {
    fn check(&self, check: &mut config::Check<'_, '_>) {
        if let Err((key, reason)) = self.judge() {
            check.refuse(key, reason);
        }
    }

    /// Whether it can be: the key that is at fault, and why, where not.
    ///
    /// # Errors
    ///
    /// If shares do not go together.
    pub fn judge(&self) -> Result<(), (&'static str, &'static str)> {
        for (key, percent) in [
            ("delay_percent", self.delay_percent),
            ("fail_percent", self.fail_percent),
            ("abort_percent", self.abort_percent),
            ("drop_percent", self.drop_percent),
        ] {
            if !(0.0..=100.0).contains(&percent) {
                return Err((key, "expected from 0.0 to 100.0"));
            }
        }
        if self.fail_percent + self.abort_percent + self.drop_percent > 100.0 {
            let reason = "expected no more than 100 percent together with abort_percent and \
                          drop_percent: a call ends in one way";
            return Err(("fail_percent", reason));
        }
        if self.delay > DELAY_MAX {
            return Err(("delay", "expected at most an hour"));
        }
        if self.delay_percent > 0.0 && self.delay.is_zero() {
            return Err((
                "delay",
                "expected more than 0s where delay_percent is not 0",
            ));
        }
        Ok(())
    }

    /// Whether it does anything.
    #[must_use]
    pub fn is_on(&self) -> bool {
        let ends = self.fail_percent + self.abort_percent + self.drop_percent;
        self.delay_percent > 0.0 || ends > 0.0
    }

    /// What becomes of one call with these `headers`. `random` gives numbers from 0 to below 1.
    pub fn draw(&self, headers: &HeaderMap, mut random: impl FnMut() -> f64) -> Drawn {
        if let Some(metadata) = &self.metadata
            && !metadata.is_in(headers)
        {
            return Drawn::default();
        }
        let delayed = random() * 100.0 < self.delay_percent;
        let mut at = random() * 100.0;
        let mut falls = |percent: f64| {
            let falls = at < percent;
            at -= percent;
            falls
        };
        let end = if falls(self.fail_percent) {
            Some(End::Fail(self.code.0))
        } else if falls(self.abort_percent) {
            Some(End::Abort)
        } else if falls(self.drop_percent) {
            Some(End::Drop)
        } else {
            None
        };
        Drawn {
            delay: delayed.then_some(self.delay),
            end,
        }
    }
}

/// What becomes of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drawn {
    /// How long it waits before all else.
    pub delay: Option<Duration>,
    /// How it ends; as its handler has it, where nothing is said.
    pub end: Option<End>,
}

impl Drawn {
    /// Whether nothing is done to it.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// How a call ends in its handler's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this code.
    Fail(Code),
    /// Without any.
    Abort,
    /// Not at all.
    Drop,
}

/// A code that calls are made to fail with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending(pub Code);

impl Setting for Ending {
    fn kind() -> std::borrow::Cow<'static, str> {
        "gRPC code".into()
    }

    fn expected() -> std::borrow::Cow<'static, str> {
        "a gRPC code other than OK, such as \"UNAVAILABLE\" or \"INTERNAL\"".into()
    }

    fn read(given: Given<'_>) -> Result<Self, Mismatch> {
        let code = given.text().and_then(crate::status::code_named);
        let code = code.filter(|code| *code != Code::Ok);
        code.map(Self).ok_or_else(Mismatch::default)
    }

    fn show(&self) -> Option<String> {
        Some(format!("\"{}\"", crate::status::code_name(self.0)))
    }
}

/// A header, and how its value begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    name: http::HeaderName,
    begin: String,
}

/// A text that is no metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected metadata as in \"name: value\"")]
pub struct NoMetadata;

impl Metadata {
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(&self.name).iter();
        values.any(|value| value.as_bytes().starts_with(self.begin.as_bytes()))
    }
}

impl std::fmt::Display for Metadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.begin)
    }
}

impl std::str::FromStr for Metadata {
    type Err = NoMetadata;

    fn from_str(text: &str) -> Result<Self, NoMetadata> {
        let (name, begin) = text.split_once(':').ok_or(NoMetadata)?;
        Ok(Self {
            name: name.trim().parse().map_err(|_| NoMetadata)?,
            begin: begin.trim().to_owned(),
        })
    }
}

impl Setting for Metadata {
    fn kind() -> std::borrow::Cow<'static, str> {
        "metadata".into()
    }

    fn expected() -> std::borrow::Cow<'static, str> {
        "metadata as in \"name: value\"".into()
    }

    fn read(given: Given<'_>) -> Result<Self, Mismatch> {
        let metadata = given.text().and_then(|text| text.parse().ok());
        metadata.ok_or_else(Mismatch::default)
    }

    fn show(&self) -> Option<String> {
        Some(toml::Value::String(self.to_string()).to_string())
    }
}

#[cfg(test)]
mod tests;

//! How calls are tried again, as people write it and as a call reads it.

use std::time::Duration;

use crate::{
    config::{self, Check, LONGEST},
    contract::Idempotency,
};

config::section! {
    /// How often and how patiently a failed call is tried again. Only methods whose contract says
    /// that a second try does no harm (`idempotency_level`) are.
    pub struct Config {
        /// Attempts in total, the first included; 1 switches retries off.
        pub attempts_max: u8 = 3, in 1..=5, live;
        /// Pause before the second attempt; spread by a fifth, as all are.
        pub backoff_min: Duration = Duration::from_millis(50), in Duration::ZERO..=LONGEST, live;
        /// Longest pause between attempts.
        pub backoff_max: Duration = Duration::from_secs(2), in Duration::ZERO..=LONGEST, live;
        /// Growth from one pause to the next.
        pub multiplier: f64 = 2.0, in 1.0..=10.0, live;
        /// Codes that are tried again. `RESOURCE_EXHAUSTED` is only where the server says when.
        pub codes: Vec<Code> = vec![Code::Unavailable], live;
        /// How long one attempt may wait for the beginning of its answer before the next one is
        /// made; 0s leaves each attempt all the time of the call, as does a request of more than 64 KiB,
        /// which is not sent again.
        pub attempt_timeout: Duration = Duration::ZERO, in Duration::ZERO..=LONGEST, live;
        /// Treat the methods as idempotent, although their contracts do not say so.
        pub idempotent: bool = false, live;
    }
    validate = Config::check;
}

const DELAY_MIN: Duration = Duration::from_millis(5);
const DELAY_MAX: Duration = Duration::from_mins(1);

config::section! {
    /// Calls that are sent to several instances in turn, without waiting for one to fail. Only
    /// methods whose contract says that they have no side effects are; those are not retried
    /// then.
    pub struct Hedge {
        /// Attempts in total, the first included; 1 switches hedging off.
        pub attempts_max: u8 = 1, in 1..=5, live;
        /// How long there is no answer before the next attempt is made; sensible is what all but
        /// the slowest calls take. Where `delay_from` says to measure that, it holds until a hundred
        /// calls are known.
        pub delay: Duration = Duration::from_millis(500),
            in DELAY_MIN..=DELAY_MAX, live;
        /// Where the delay is from: `fixed` is `delay`, and `p95` what 95 of 100 calls of the method to
        /// the target take no longer than, of the last 512.
        pub delay_from: DelayFrom = DelayFrom::Fixed, live;
        /// The least delay that is measured.
        pub delay_min: Duration = DELAY_MIN, in DELAY_MIN..=DELAY_MAX, live;
        /// Attempts made because there is no answer, in percent of the calls to the target in ten
        /// seconds; one a second is made beside those. Attempts after a failure are retries and spend
        /// those' share.
        pub budget_percent: u32 = 5, in 1..=100, live;
        /// Codes after which the other attempts go on and the next one is made at once; any other
        /// ends the call.
        pub codes_not_fatal: Vec<Code> = vec![Code::Unavailable], live;
    }
}

config::choice! {
    /// What says how long a call waits before it is hedged.
    pub enum DelayFrom {
        /// The setting.
        Fixed = "fixed",
        /// What calls took lately.
        P95 = "p95",
    }
}

config::choice! {
    /// A code that says that another try may do better.
    pub enum Code {
        /// The instance is not there, or has no time.
        Unavailable = "UNAVAILABLE",
        /// Another call was in the way.
        Aborted = "ABORTED",
        /// Something broke.
        Internal = "INTERNAL",
        /// Something broke, and nobody says what.
        Unknown = "UNKNOWN",
        /// The server ran out of time.
        DeadlineExceeded = "DEADLINE_EXCEEDED",
        /// A quota is spent.
        ResourceExhausted = "RESOURCE_EXHAUSTED",
    }
}

impl Code {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::Unavailable,
        Self::Aborted,
        Self::Internal,
        Self::Unknown,
        Self::DeadlineExceeded,
        Self::ResourceExhausted,
    ];

    fn grpc(self) -> tonic::Code {
        match self {
            Self::Unavailable => tonic::Code::Unavailable,
            Self::Aborted => tonic::Code::Aborted,
            Self::Internal => tonic::Code::Internal,
            Self::Unknown => tonic::Code::Unknown,
            Self::DeadlineExceeded => tonic::Code::DeadlineExceeded,
            Self::ResourceExhausted => tonic::Code::ResourceExhausted,
        }
    }
}

impl Config {
    fn check(&self, check: &mut Check<'_, '_>) {
        if self.backoff_min.is_zero() {
            check.refuse("backoff_min", "expected more than 0s");
        }
        if self.backoff_max < self.backoff_min {
            check.refuse("backoff_max", "expected no less than backoff_min");
        }
        if self.codes.is_empty() && self.attempts_max > 1 {
            let reason = "expected a code, as UNAVAILABLE; attempts_max = 1 switches retries off";
            check.refuse("codes", reason);
        }
    }

    /// What no retry could do in calls of `timeout`, as the key of this section and what to change.
    /// `whole` is what the setting of that time is called.
    #[must_use]
    pub fn does_not_fit(&self, timeout: Duration, whole: &str) -> Option<(&'static str, String)> {
        let shown = humantime::format_duration(timeout);
        if self.attempt_timeout > timeout {
            let reason = format!(
                "expected no more than {whole}, which is {shown}: no attempt outlasts its call"
            );
            return Some(("attempt_timeout", reason));
        }
        // What is not set does not stand against a short time: such retries are just not made.
        if *self == Self::default() || self.attempts_max == 1 {
            return None;
        }
        let policy = Policy::new(self, &Hedge::default());
        let again = self.attempt_timeout + policy.pause(0);
        if !self.attempt_timeout.is_zero() && again >= timeout {
            let again = humantime::format_duration(again);
            let reason = format!(
                "expected to leave time for a second attempt within {whole}, which is {shown}: that \
                 would begin after {again}; lower attempt_timeout or backoff_min, or raise {whole}"
            );
            return Some(("attempt_timeout", reason));
        }
        let pauses: Duration = (0..self.attempts_max - 1)
            .map(|number| policy.pause(number))
            .sum();
        (pauses >= timeout).then(|| {
            let pauses = humantime::format_duration(pauses);
            let reason = format!(
                "expected pauses that fit {whole}, which is {shown}: those between {} attempts \
                 take {pauses}; lower attempts_max, backoff_min or multiplier, or raise {whole}",
                self.attempts_max
            );
            ("attempts_max", reason)
        })
    }
}

impl Hedge {
    /// What no hedging could do in calls of `timeout`, see [`Config::does_not_fit`].
    #[must_use]
    pub fn does_not_fit(&self, timeout: Duration, whole: &str) -> Option<(&'static str, String)> {
        // What is measured may be as little as its least.
        let (key, delay) = match self.delay_from {
            DelayFrom::Fixed => ("delay", self.delay),
            DelayFrom::P95 => ("delay_min", self.delay_min),
        };
        let last = delay * u32::from(self.attempts_max - 1);
        (self.attempts_max > 1 && last >= timeout).then(|| {
            let (last, shown) = (
                humantime::format_duration(last),
                humantime::format_duration(timeout),
            );
            let reason = format!(
                "expected so little that all attempts begin within {whole}, which is {shown}: the last \
                 of {} begins after {last}; lower {key} or attempts_max, or raise {whole}",
                self.attempts_max
            );
            (key, reason)
        })
    }
}

/// A set of codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Codes(u32);

impl Codes {
    fn of(codes: &[Code]) -> Self {
        let bit = |code: &Code| 1 << (code.grpc() as u32);
        Self(codes.iter().map(bit).fold(0, |all, bit: u32| all | bit))
    }

    fn contain(self, code: tonic::Code) -> bool {
        self.0 & (1 << (code as u32)) != 0
    }
}

/// How often a call is sent, by what its contract and its policy say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Once.
    Once,
    /// Again after a failure.
    Retried,
    /// To several instances in turn.
    Hedged,
}

/// What holds for the calls of a method: settings, ready to be read by each call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    attempts_max: u8,
    hedges_max: u8,
    idempotent: bool,
    codes: Codes,
    not_fatal: Codes,
    backoff_min: Duration,
    backoff_max: Duration,
    multiplier: f64,
    attempt_timeout: Option<Duration>,
    hedge_delay: Duration,
    /// The least delay in microseconds where it is what calls take; 0 where it is not.
    hedge_micros_min: u32,
    hedge_percent: u8,
}

impl Policy {
    /// As these settings say.
    #[must_use]
    pub fn new(retry: &Config, hedge: &Hedge) -> Self {
        Self {
            attempts_max: retry.attempts_max,
            hedges_max: hedge.attempts_max,
            idempotent: retry.idempotent,
            codes: Codes::of(&retry.codes),
            not_fatal: Codes::of(&hedge.codes_not_fatal),
            backoff_min: retry.backoff_min,
            backoff_max: retry.backoff_max,
            multiplier: retry.multiplier,
            attempt_timeout: Some(retry.attempt_timeout).filter(|timeout| !timeout.is_zero()),
            hedge_delay: hedge.delay,
            hedge_micros_min: match hedge.delay_from {
                DelayFrom::Fixed => 0,
                DelayFrom::P95 => u32::try_from(hedge.delay_min.as_micros()).unwrap_or(u32::MAX),
            },
            hedge_percent: u8::try_from(hedge.budget_percent).unwrap_or(100),
        }
    }

    /// How often a call is sent whose contract says this of a second try.
    #[must_use]
    pub fn way(&self, idempotency: Idempotency) -> Way {
        match idempotency {
            Idempotency::NoSideEffects if self.hedges_max > 1 => Way::Hedged,
            Idempotency::NoSideEffects | Idempotency::Idempotent if self.attempts_max > 1 => {
                Way::Retried
            }
            Idempotency::Unknown if self.attempts_max > 1 && self.idempotent => Way::Retried,
            _ => Way::Once,
        }
    }

    /// How long one attempt of a retried call may take to the beginning of its answer.
    #[must_use]
    pub fn attempt_timeout(&self) -> Option<Duration> {
        self.attempt_timeout
    }

    pub(super) fn attempts_max(&self) -> u8 {
        self.attempts_max
    }

    pub(super) fn hedges_max(&self) -> u8 {
        self.hedges_max
    }

    /// Whether a hedged call asks how long others took.
    #[must_use]
    pub fn measures(&self) -> bool {
        self.hedge_micros_min > 0
    }

    /// The time to the next attempt, where calls take `p95`, as far as that is known.
    pub(super) fn hedge_delay(&self, p95: Option<Duration>) -> Duration {
        let least = Duration::from_micros(self.hedge_micros_min.into());
        p95.filter(|_| self.measures())
            .map_or(self.hedge_delay, |p95| p95.clamp(least, DELAY_MAX))
    }

    /// Hedges for each call to the target.
    pub(super) fn hedge_budget(&self) -> f64 {
        f64::from(self.hedge_percent) / 100.0
    }

    pub(super) fn retries(&self, code: tonic::Code) -> bool {
        self.codes.contain(code)
    }

    pub(super) fn is_fatal(&self, code: tonic::Code) -> bool {
        !self.not_fatal.contain(code)
    }

    /// The pause after so many retries, before it is spread.
    pub(super) fn pause(&self, retries: u8) -> Duration {
        let grown = self.backoff_min.as_secs_f64() * self.multiplier.powi(retries.into());
        Duration::try_from_secs_f64(grown)
            .unwrap_or(self.backoff_max)
            .min(self.backoff_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn five() -> Config {
        Config {
            attempts_max: 5,
            ..Config::default()
        }
    }

    /// Goal: settings that could do nothing are refused with what to change, and the defaults stand
    /// against no time.
    /// Method: what is said of each.
    #[test]
    fn settings_that_cannot_work_say_what_to_change() {
        let fits = |config: &Config, millis| config.does_not_fit(millis * MS, "timeout_default");
        assert_eq!(None, fits(&Config::default(), 1));
        let slow = Config {
            attempt_timeout: 200 * MS,
            ..Config::default()
        };
        // A second attempt begins after 250 ms.
        assert_eq!(None, fits(&slow, 251));
        for millis in [200, 250] {
            let (key, reason) = fits(&slow, millis).unwrap();
            assert_eq!("attempt_timeout", key);
            assert!(reason.contains("would begin after 250ms"), "{reason}");
        }
        let once = Config {
            attempts_max: 1,
            ..slow.clone()
        };
        assert_eq!(None, fits(&once, 200));
        let (key, reason) = fits(&slow, 199).unwrap();
        assert_eq!("attempt_timeout", key);
        assert!(
            reason.contains("timeout_default, which is 199ms"),
            "{reason}"
        );
        // 50 + 100 + 200 + 400.
        assert_eq!(None, fits(&five(), 751));
        let (key, reason) = fits(&five(), 750).unwrap();
        assert_eq!("attempts_max", key);
        assert!(reason.contains("take 750ms"), "{reason}");
        let hedge = Hedge {
            attempts_max: 3,
            delay: 100 * MS,
            ..Hedge::default()
        };
        let fits = |millis| hedge.does_not_fit(millis * MS, "timeout");
        assert_eq!(None, fits(201));
        let (key, reason) = fits(200).unwrap();
        assert_eq!("delay", key);
        assert!(
            reason.contains("the last of 3 begins after 200ms"),
            "{reason}"
        );
        let measured = Hedge {
            delay_from: DelayFrom::P95,
            ..hedge.clone()
        };
        assert_eq!(None, measured.does_not_fit(11 * MS, "timeout"));
        let (key, _) = measured.does_not_fit(10 * MS, "timeout").unwrap();
        assert_eq!("delay_min", key);
        assert_eq!(None, Hedge::default().does_not_fit(MS, "timeout"));

        let refused = |toml: &str| {
            let sources = crate::config::Sources::new().text("a.toml", toml);
            let faults = crate::config::load::<Config>(sources).expect_err("at fault");
            faults.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            vec!["a.toml:1: backoff_max = \"10ms\": expected no less than backoff_min"],
            refused("backoff_max = '10ms'")
        );
        let codes = refused("codes = ['NOT_FOUND']");
        assert!(codes[0].contains("UNAVAILABLE"), "{codes:?}");
        assert_eq!(2, refused("attempts_max = 6\nbackoff_min = '1'").len());
    }
}

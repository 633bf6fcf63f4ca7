//! What a check has come to, from its results one after the other.

use std::time::{Duration, SystemTime};

use super::{
    check::{Check, Config, Effect, Kind},
    runner::Finding,
};
use crate::{journal, telemetry::platform};

/// What a check has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Its first run has not ended.
    Pending,
    /// All is well.
    Passing,
    /// Something is not.
    Failing,
}

impl Verdict {
    /// The word for this verdict in interfaces.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Passing => "PASSING",
            Self::Failing => "FAILING",
        }
    }
}

/// One check as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Its name, unique in the process.
    pub name: String,
    /// What is checked.
    pub kind: Kind,
    /// What a failure changes.
    pub effect: Effect,
    /// What it has come to.
    pub verdict: Verdict,
    /// Why it fails, or why its latest run failed; empty where there is nothing to say.
    pub reason: String,
    /// How long its latest run took; none before the first.
    pub latency: Option<Duration>,
    /// When its latest run ended, for people; none before the first.
    pub checked: Option<SystemTime>,
    /// Failures in a row, up to the latest run.
    pub failures: u32,
}

/// A check and its latest results.
#[derive(Debug)]
pub(super) struct CheckState {
    pub(super) report: CheckReport,
    fall: u32,
    rise: u32,
    /// Results in a row that contradict the verdict.
    against: u32,
    metrics: platform::Check,
}

impl CheckState {
    pub(super) fn new(check: &Check, config: Config) -> Self {
        Self {
            report: CheckReport {
                name: check.name.clone(),
                kind: check.kind,
                effect: check.effect,
                verdict: Verdict::Pending,
                reason: "the first run has not ended".to_owned(),
                latency: None,
                checked: None,
                failures: 0,
            },
            fall: config.fall,
            rise: config.rise,
            against: 0,
            metrics: platform::Check::register(&check.name),
        }
    }

    /// Whether calls may come as far as this check goes.
    pub(super) fn lets_pass(&self) -> bool {
        self.report.effect == Effect::Reports || self.report.verdict == Verdict::Passing
    }

    /// Takes in one result; says whether the verdict turned. The first result decides alone.
    pub(super) fn note(&mut self, finding: Finding) -> bool {
        let latency = finding.latency;
        let turned = self.judge(finding);
        let passing = self.report.verdict == Verdict::Passing;
        self.metrics.ran(passing, latency);
        turned
    }

    fn judge(&mut self, finding: Finding) -> bool {
        let found = match finding.failure {
            None => Verdict::Passing,
            Some(_) => Verdict::Failing,
        };
        self.report.latency = Some(finding.latency);
        self.report.checked = Some(journal::now());
        self.report.failures = match found {
            Verdict::Failing => self.report.failures.saturating_add(1),
            Verdict::Passing | Verdict::Pending => 0,
        };
        self.report.reason = finding.failure.unwrap_or_default();
        if found == self.report.verdict {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let needed = match self.report.verdict {
            Verdict::Pending => 1,
            Verdict::Passing => self.fall,
            Verdict::Failing => self.rise,
        };
        if self.against < needed {
            return false;
        }
        self.report.verdict = found;
        self.against = 0;
        true
    }
}

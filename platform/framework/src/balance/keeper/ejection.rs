//! When endpoints are judged by what calls came to, and what follows.

use std::collections::HashSet;

use tokio::time::Instant;

use super::{Keeper, Member};
use crate::{
    balance::outlier::{self, Outlier, Reason, Sample},
    journal::Kind,
    names::metric::{EJECTIONS, ENDPOINTS_EJECTED},
    telemetry::metric::{Counter, Family, Gauge, Value, series},
};

/// The rhythm of the sweeps, and what is told of them.
pub(super) struct Sweeps {
    next: Instant,
    ejections: Family<Counter, Reason>,
    ejected: Gauge,
}

impl Sweeps {
    pub(super) fn new(name: Value, now: Instant) -> Self {
        let labels = [name];
        Self {
            next: now,
            ejections: Family::register(&EJECTIONS, &labels).visible(),
            ejected: series(&ENDPOINTS_EJECTED, &labels),
        }
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    pub(super) fn are_due(&self, now: Instant) -> bool {
        self.next <= now
    }

    /// Shows how many are ejected.
    pub(super) fn count(&self, members: &[Member]) {
        let ejected = members.iter().filter(|it| it.standing.ejected().is_some());
        let ejected = u32::try_from(ejected.count()).unwrap_or(u32::MAX);
        self.ejected.set(ejected.into());
    }
}

impl Keeper {
    /// Ejects whoever fails more than others.
    pub(super) fn sweep(&mut self, now: Instant) {
        let config = self.builder.config.load();
        self.sweeps.next = now + config.outlier.interval;
        let samples: Vec<_> = self.members.iter().map(Member::sample).collect();
        let outliers = outlier::judge(&config.outlier, &samples);
        let found: HashSet<_> = outliers.iter().map(|it| it.index).collect();
        for (index, member) in self.members.iter_mut().enumerate() {
            if !found.contains(&index) {
                member.standing.passed();
            }
        }
        for outlier in outliers {
            self.eject(&config.outlier, outlier, now);
        }
    }

    fn eject(&mut self, config: &outlier::Config, outlier: Outlier, now: Instant) {
        let Outlier {
            index,
            reason,
            failure_percent,
        } = outlier;
        let member = &mut self.members[index];
        let length = member.standing.eject(config, reason, now, fastrand::f64());
        let addr = member.endpoint.addr;
        self.sweeps.ejections.with(reason).increment();
        let seconds = length.as_secs();
        let reason = reason.as_str();
        let detail =
            format!("for {seconds} s: {failure_percent:.0} % of its calls failed ({reason})");
        self.record(Kind::Ejection, addr, detail);
    }

    /// Ends ejections whose time is over, and all where there are to be none, or nobody else is left to
    /// take the calls.
    pub(super) fn release(&mut self, now: Instant) {
        let takers = self.members.iter().filter(|it| !it.gate.is_forced());
        let none = |config: &crate::balance::Config| config.outlier.ejected_max_percent == 0;
        let all = self.builder.config.read(none) || takers.count() < 2;
        let mut released = Vec::new();
        for member in &mut self.members {
            if member.standing.release_at(now) || (all && member.standing.release()) {
                member.warm_from = Some(now);
                released.push(member.endpoint.addr);
            }
        }
        for addr in released {
            self.record(Kind::Ejection, addr, "over");
        }
    }
}

impl Member {
    fn sample(&self) -> Sample {
        Sample {
            counts: self.endpoint.record.tally.take(),
            ejected: self.standing.ejected().is_some(),
            shut: self.gate.is_shut(),
        }
    }
}

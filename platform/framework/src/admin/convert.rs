//! From what the platform knows to what the contract says.

use std::{fs, time::Duration};

use gantry_api::admin::v1::{
    ConfigKey, HealthCheck, Registration, config_key::Reload, health_check, registration,
};

use crate::{
    config::{Apply, Entry},
    discovery::{self, registration::State},
    health::{CheckReport, Effect, Verdict},
    journal,
};

/// `duration` as the contract carries it; none where it is longer than that can hold.
pub(crate) fn duration(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}

/// The wall-clock time `age` before now.
pub(crate) fn ago(age: Duration) -> Option<prost_types::Timestamp> {
    Some(journal::now().checked_sub(age)?.into())
}

pub(super) fn check(report: CheckReport) -> HealthCheck {
    let status = match report.verdict {
        Verdict::Pending => health_check::Status::Unspecified,
        Verdict::Passing => health_check::Status::Passing,
        Verdict::Failing => health_check::Status::Failing,
    };
    HealthCheck {
        name: report.name,
        gates: report.effect == Effect::Gates,
        status: status.into(),
        reason: report.reason,
        latency: report.latency.and_then(duration),
        check_time: report.checked.map(Into::into),
        failures: report.failures,
        kind: report.kind.as_str().to_owned(),
    }
}

/// One configuration key, its secret masked by the configuration itself.
pub(crate) fn key(entry: &Entry) -> ConfigKey {
    let reload = match entry.apply {
        Apply::Live => Reload::Live,
        Apply::Restart => Reload::Restart,
    };
    let doc: Vec<_> = entry.doc.iter().map(|line| line.trim()).collect();
    ConfigKey {
        key: entry.key.clone(),
        value: entry.value.clone().unwrap_or_default(),
        origin: entry.origin.to_string(),
        reload: reload.into(),
        description: doc.join(" "),
        pending_value: entry
            .pending
            .as_ref()
            .map(|pending| pending.value.clone().unwrap_or_default()),
    }
}

pub(super) fn registration(known: &discovery::Registration) -> Registration {
    let state = match known.state {
        State::Waiting => registration::State::Waiting,
        State::Registering => registration::State::Registering,
        State::Registered => registration::State::Registered,
        State::Paused => registration::State::Paused,
        State::Left => registration::State::Left,
    };
    Registration {
        state: state.into(),
        state_time: ago(known.since.elapsed()),
        keys: known.keys.to_vec(),
        lease_id: known.lease,
        ttl: duration(known.ttl),
        made: known.made,
        error: known.error.as_deref().unwrap_or_default().to_owned(),
    }
}

/// Memory the process has resident; none where the system does not say.
pub(super) fn resident_bytes() -> Option<u64> {
    let sizes = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = sizes.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

//! The registry: services, marks and verdicts, and the statuses that follow from them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::{
    check::{Check, Config, Effect, Kind},
    runner::{self, Finding},
    verdict::{CheckReport, CheckState, Verdict},
};
use crate::{journal, journal::Journal, shutdown::Tasks};

/// The name under which the whole process is asked for (`grpc.health.v1`).
const WHOLE: &str = "";

/// Whether a service should get calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Its handler cannot tell.
    Unknown,
    /// It should.
    Serving,
    /// It should not.
    NotServing,
}

impl Status {
    /// The word for this status in interfaces.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Serving => "SERVING",
            Self::NotServing => "NOT_SERVING",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The process's health; clones share it.
#[derive(Debug, Clone)]
pub struct Health {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    journal: Journal,
    config: Config,
    state: Mutex<State>,
    /// Changes whenever a status does; who waits compares for himself.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    started: bool,
    latched: bool,
    services: BTreeMap<String, Mark>,
    checks: Vec<CheckState>,
}

/// What a handler says of its own service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Mark {
    #[default]
    Healthy,
    Unhealthy(String),
    Unknown(String),
}

/// The whole process as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What `""` answers.
    pub status: Status,
    /// Every check, and what else stands against serving.
    pub checks: Vec<CheckReport>,
}

impl Health {
    /// Nothing is registered and nothing is SERVING yet. Changes are written to `journal`; checks
    /// follow `config` where they do not say otherwise.
    #[must_use]
    pub fn new(journal: Journal, config: Config) -> Self {
        Self {
            shared: Arc::new(Shared {
                journal,
                config,
                state: Mutex::default(),
                changed: watch::Sender::new(0),
            }),
        }
    }

    /// Makes `service` known, healthy until marked otherwise.
    pub fn register(&self, service: impl Into<String>) {
        let service = service.into();
        self.update(|state| {
            state.services.entry(service).or_default();
        });
    }

    /// What a handler of `service` says of it. Registers it where it is not known.
    #[must_use]
    pub fn service(&self, service: impl Into<String>) -> ServiceHealth {
        let service = service.into();
        self.register(service.clone());
        ServiceHealth {
            health: self.clone(),
            service,
        }
    }

    /// Begins to run `check` as a task of `tasks`. Until its first run has ended a gate holds
    /// everything back.
    ///
    /// # Panics
    ///
    /// If a check of this name exists.
    pub fn check(&self, check: Check, tasks: &Tasks) {
        let config = check.overrides.over(self.shared.config);
        let mut id = 0;
        self.update(|state| {
            let taken = state.checks.iter().any(|c| c.report.name == check.name);
            assert!(!taken, "two checks are named {}", check.name);
            id = state.checks.len();
            state.checks.push(CheckState::new(&check, config));
        });
        let task = runner::run(check, id, config, self.clone(), tasks.stopping());
        tasks.spawn("health check", task);
    }

    /// Start-up is done: from now on services are what their checks and marks say.
    pub fn started(&self) {
        self.update(|state| state.started = true);
    }

    /// Nothing is SERVING any more, whatever is said later.
    pub fn latch(&self) {
        self.update(|state| state.latched = true);
    }

    /// Whether `service` should get calls; none if it is not known. `""` is the whole process.
    #[must_use]
    pub fn status(&self, service: &str) -> Option<Status> {
        self.shared.state().status(service)
    }

    /// Whether the whole process should get calls.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.status(WHOLE) == Some(Status::Serving)
    }

    /// Every service by name, `""` first.
    #[must_use]
    pub fn statuses(&self) -> BTreeMap<String, Status> {
        self.shared.state().statuses()
    }

    /// Whether [`Health::started`] was called.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.shared.state().started
    }

    /// Whether [`Health::latch`] was called.
    #[must_use]
    pub fn is_latched(&self) -> bool {
        self.shared.state().latched
    }

    /// What keeps `service` from serving; none where it serves or is not known.
    #[must_use]
    pub fn reason(&self, service: &str) -> Option<String> {
        self.shared.state().reason(service)
    }

    /// Changes whenever a status does or a service becomes known.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Every check, and what else stands against serving.
    #[must_use]
    pub fn report(&self) -> Report {
        let state = self.shared.state();
        let mut checks: Vec<_> = state.checks.iter().map(|c| c.report.clone()).collect();
        checks.extend(state.platform_reports());
        Report {
            status: state.whole(),
            checks,
        }
    }

    /// Takes in what one run of check `id` found.
    pub(super) fn note(&self, id: usize, finding: Finding) {
        let mut turned = None;
        self.update(|state| {
            let check = &mut state.checks[id];
            if check.note(finding) {
                turned = Some(check.report.clone());
            }
        });
        let Some(check) = turned else { return };
        let (name, verdict, reason) = (&check.name, check.verdict.as_str(), &check.reason);
        if check.verdict == Verdict::Failing {
            tracing::warn!(check = %name, %reason, "health check fails");
        } else {
            tracing::info!(check = %name, "health check passes");
        }
        let detail = if reason.is_empty() {
            verdict.to_owned()
        } else {
            format!("{verdict}: {reason}")
        };
        self.shared
            .journal
            .record(journal::Kind::CheckChanged, name, detail);
    }

    /// Changes the state, and says what followed to the journal and to who waits.
    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.shared.state();
        let before = state.statuses();
        change(&mut state);
        let after = state.statuses();
        if before == after {
            return;
        }
        for (service, status) in &after {
            if before.get(service) != Some(status) {
                let subject = if service == WHOLE { "*" } else { service };
                self.shared
                    .journal
                    .record(journal::Kind::HealthChanged, subject, status.as_str());
                tracing::info!(name = subject, %status, "health changed");
            }
        }
        // Not under the lock: whoever waits may look at the state within a condition of the channel, which
        // is locked meanwhile. Who wakes reads what has changed in any case, or what came after it.
        drop(state);
        self.shared.changed.send_modify(|count| *count += 1);
    }
}

/// What a handler says of its own service; clones share it.
#[derive(Debug, Clone)]
pub struct ServiceHealth {
    health: Health,
    service: String,
}

impl ServiceHealth {
    /// The service is fine as far as its handler can tell; what gates still counts.
    pub fn healthy(&self) {
        self.mark(Mark::Healthy);
    }

    /// The service should get no calls, because of `reason`.
    pub fn unhealthy(&self, reason: impl Into<String>) {
        self.mark(Mark::Unhealthy(reason.into()));
    }

    /// The handler cannot tell, because of `reason`.
    pub fn unknown(&self, reason: impl Into<String>) {
        self.mark(Mark::Unknown(reason.into()));
    }

    fn mark(&self, mark: Mark) {
        self.health.update(|state| {
            state.services.insert(self.service.clone(), mark);
        });
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether anything holds every service back.
    fn open(&self) -> bool {
        self.started && !self.latched && self.checks.iter().all(CheckState::lets_pass)
    }

    fn status(&self, service: &str) -> Option<Status> {
        if service == WHOLE {
            return Some(self.whole());
        }
        let mark = self.services.get(service)?;
        Some(self.of(mark))
    }

    fn of(&self, mark: &Mark) -> Status {
        match mark {
            _ if !self.open() => Status::NotServing,
            Mark::Healthy => Status::Serving,
            Mark::Unhealthy(_) => Status::NotServing,
            Mark::Unknown(_) => Status::Unknown,
        }
    }

    /// The whole serves when every part does.
    fn whole(&self) -> Status {
        let all = self
            .services
            .values()
            .all(|mark| self.of(mark) == Status::Serving);
        if self.open() && all {
            Status::Serving
        } else {
            Status::NotServing
        }
    }

    fn statuses(&self) -> BTreeMap<String, Status> {
        let services = self
            .services
            .iter()
            .map(|(service, mark)| (service.clone(), self.of(mark)));
        services.chain([(WHOLE.to_owned(), self.whole())]).collect()
    }

    fn reason(&self, service: &str) -> Option<String> {
        if self.status(service)? == Status::Serving {
            return None;
        }
        if self.latched {
            return Some("the process drains".to_owned());
        }
        if !self.started {
            return Some("start-up is not done".to_owned());
        }
        if let Some(check) = self.checks.iter().find(|check| !check.lets_pass()) {
            return Some(format!("{}: {}", check.report.name, check.report.reason));
        }
        match self.services.get(service) {
            Some(Mark::Unhealthy(reason) | Mark::Unknown(reason)) => Some(reason.clone()),
            // The whole is not because one of its parts is not.
            _ => self.services.keys().find_map(|part| {
                let reason = self.reason(part)?;
                Some(format!("{part}: {reason}"))
            }),
        }
    }

    /// What stands against serving and is not a check.
    fn platform_reports(&self) -> Vec<CheckReport> {
        let mut found = Vec::new();
        if !self.started {
            found.push(platform_report("startup", "not done"));
        }
        if self.latched {
            found.push(platform_report("drain", "the process drains"));
        }
        for (service, mark) in &self.services {
            if let Mark::Unhealthy(reason) | Mark::Unknown(reason) = mark {
                found.push(platform_report(service, reason));
            }
        }
        found
    }
}

fn platform_report(name: &str, reason: &str) -> CheckReport {
    CheckReport {
        name: name.to_owned(),
        kind: Kind::Platform,
        effect: Effect::Gates,
        verdict: Verdict::Failing,
        reason: reason.to_owned(),
        latency: None,
        checked: None,
        failures: 0,
    }
}

#[cfg(test)]
mod tests;

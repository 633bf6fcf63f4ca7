//! Carries changes of the configuration and of files to the parts that follow them.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use tokio::time;
use tokio_util::sync::CancellationToken;

use super::{exports, process::Process, settings::Platform};
use crate::{
    client::Clients,
    config::{Both, Entry, Faults, Live, Section},
    journal::{Journal, Kind},
    policy::{self, Policy},
    status::chain,
    telemetry::level::ByPattern,
    transport::{server::Handle, tls::Files},
};

/// How often the files of a certificate are looked at.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts what follows changes, as tasks of the platform.
pub(super) fn start<C: Section>(process: &Process<C>, listener: &Handle) {
    let settings = &process.settings.live;
    let tasks = &process.platform;

    let limits = settings.map(|settings| &settings.first.limits);
    let (limited, descriptors) = (listener.clone(), process.descriptors);
    let limits = follow(limits, tasks.stopping(), move |limits| {
        limited.set_limits(descriptors.fit(limits));
    });
    tasks.spawn("limits", limits);

    let level = settings.map(|settings| &settings.first.telemetry.log_level);
    let (log_level, journal) = (process.log_level(), process.journal.clone());
    let level = follow(level, tasks.stopping(), move |level| {
        // At the begin another part may have changed, or nothing.
        if log_level.get() == level.to_string() {
            return;
        }
        log_level.replace(level);
        tracing::info!(filter = log_level.get(), "log level changed");
        journal.record(Kind::LogLevel, "configuration", log_level.get());
    });
    tasks.spawn("log level", level);

    let levels = settings.derive(|settings| levels_of(&settings.first.policies));
    let log_level = process.log_level();
    // Nobody has any, as a rule, and then nothing is to be looked at anew.
    if levels.read(|levels| levels.values().any(Option::is_some)) {
        levels.read(|levels| log_level.set_methods(levels));
    }
    let levels = follow_from(levels.version(), levels, tasks.stopping(), move |levels| {
        log_level.set_methods(levels);
    });
    tasks.spawn("log levels of methods", levels);

    let exported = exports::follow_configuration(process.settings.handle.clone(), tasks.stopping());
    tasks.spawn("configuration metrics", exported);

    if let Some(tls) = listener.tls() {
        let files = tls.files().clone();
        // Here and not in the task, which may begin to run long after the files were read.
        let seen = look(&files);
        let (listener, journal) = (listener.clone(), process.journal.clone());
        let renewal = renew(files, seen, listener, journal);
        let stopping = tasks.stopping();
        tasks.spawn("certificate", async move {
            stopping.run_until_cancelled(renewal).await;
        });
    }
}

/// The log levels of methods that policies say.
fn levels_of(policies: &BTreeMap<String, Policy>) -> ByPattern {
    let each = policies.iter();
    each.map(|(pattern, policy)| (pattern.clone(), policy.log_level))
        .collect()
}

/// Warns of policies for methods that the process neither serves nor calls, now and with each change
/// of them: they may be for a method that was renamed, or be misspelt.
pub(super) fn tell_of_unmatched_policies<C: Section>(
    process: &Process<C>,
    clients: &Clients,
    served: Vec<&'static str>,
) {
    let policies = process
        .settings
        .live
        .map(|settings| &settings.first.policies);
    let (clients, journal) = (clients.clone(), process.journal.clone());
    let tell = move |configured: &BTreeMap<String, Policy>| {
        let mut methods = clients.methods();
        methods.extend(&served);
        for policy::Unmatched { pattern, meant } in policy::unmatched(configured, &methods) {
            let text = "no method served or called here matches";
            let Some(meant) = meant else {
                // Files that several services read have policies for all of them.
                tracing::info!(pattern, "policy without effect: {text}");
                journal.record(Kind::Policy, pattern, text);
                continue;
            };
            let text = format!("{text}; did you mean {meant}?");
            tracing::warn!(pattern, "policy without effect: {text}");
            journal.record(Kind::Policy, pattern, text);
        }
    };
    tell(&policies.load());
    let tasks = &process.platform;
    let follow = follow_from(policies.version(), policies, tasks.stopping(), tell);
    tasks.spawn("policies", follow);
}

/// Refuses policies that ask of the calls of `clients` what cannot be: those in force, and each change
/// from now on.
///
/// # Errors
///
/// With what cannot be of those in force.
pub(super) fn judge_policies<C: Section>(
    process: &Process<C>,
    clients: &Clients,
) -> Result<(), Faults> {
    let clients = clients.clone();
    let judge = move |settings: &Both<Platform, C>, entries: &[Entry]| {
        let configs = &settings.first.clients;
        let calls = clients.calls().into_iter();
        let calls = calls.map(|(client, method)| {
            let config = configs.get(&client).cloned().unwrap_or_default();
            policy::Called {
                client,
                method,
                timeout_default: config.timeout_default,
                window: config.balance.breaker.window,
            }
        });
        let calls: Vec<_> = calls.collect();
        policy::misfits(&settings.first.policies, entries, &calls)
    };
    let settings = &process.settings;
    let entries = settings.handle.status().borrow().entries.clone();
    // First, so that no change comes in between.
    settings.handle.judge_by(judge.clone());
    let faults = settings.live.read(|settings| judge(settings, &entries));
    if faults.is_empty() {
        return Ok(());
    }
    Err(Faults::new(faults))
}

/// Calls `apply` with each change of `live`, until told to stop; at once where the process's
/// configuration has changed since it began, because its parts were read before.
async fn follow<T>(live: Live<T>, stopping: CancellationToken, apply: impl Fn(&T))
where
    T: Send + Sync + 'static,
{
    follow_from(1, live, stopping, apply).await;
}

/// The same for parts that were read at `version`.
async fn follow_from<T>(
    version: u64,
    live: Live<T>,
    stopping: CancellationToken,
    apply: impl Fn(&T),
) where
    T: Send + Sync + 'static,
{
    let mut changes = live.subscribe();
    if live.version() > version {
        changes.mark_changed();
    }
    while let Some(Ok(())) = stopping.run_until_cancelled(changes.changed()).await {
        let value = changes.borrow_and_update().clone();
        apply(&value);
    }
}

/// Reads a certificate again whenever one of its files has changed.
///
/// Looks at the files instead of being told: a certificate is often replaced by turning a link to
/// its folder (Kubernetes), which those who watch a file do not see.
async fn renew(files: Files, mut seen: Look, listener: Handle, journal: Journal) {
    loop {
        time::sleep(PAUSE).await;
        let now = look(&files);
        if now == seen {
            continue;
        }
        let file = files.certificate.display().to_string();
        match listener.reload_tls() {
            Ok(()) => {
                tracing::info!(file, "certificate loaded");
                journal.record(Kind::Certificate, file, "loaded");
            }
            Err(error) => {
                // Key and chain are seldom replaced in one step: the next look may be better.
                let reason = chain(&error);
                tracing::warn!(
                    file,
                    error = reason,
                    "certificate refused; the old one stays"
                );
                journal.record(Kind::Certificate, file, format!("refused: {reason}"));
            }
        }
        seen = now;
    }
}

/// What tells one content of the files from another without reading it: time and length of each.
type Look = Vec<Option<(SystemTime, u64)>>;

fn look(files: &Files) -> Look {
    let look = |path: &Path| {
        let file = fs::metadata(path).ok()?;
        Some((file.modified().ok()?, file.len()))
    };
    let mut all = vec![look(&files.certificate), look(&files.key)];
    all.extend(files.client_ca.as_deref().map(look));
    all
}

#[cfg(test)]
mod tests;

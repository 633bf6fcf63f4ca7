//! `gantry wait`: until a service serves, within bounds, for scripts.

use std::{collections::BTreeSet, time::Duration};

use tokio::time;

use crate::{
    Outcome,
    args::Wait,
    failure::{Exit, Failure, nearest},
    here,
    supervisor::{Report, State, control},
};

/// How often the running `up` is asked.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) async fn run(args: Wait) -> Outcome {
    let (project, state) = here()?;
    let mut last = "no `gantry up` runs here".to_owned();
    let waiting = async {
        let mut seen = false;
        loop {
            match control::instances(&state).await? {
                None if seen => return Err(failed("`gantry up` has ended")),
                // It may be about to start.
                None => {
                    let known = project.services.keys().map(String::as_str);
                    if !project.services.keys().any(|name| of(&args.name, name)) {
                        return Err(unknown(&args.name, known));
                    }
                }
                Some(reports) => {
                    seen = true;
                    if let Some(exit) = look(&args.name, &reports, &mut last)? {
                        return Ok(exit);
                    }
                }
            }
            time::sleep(LOOK).await;
        }
    };
    let outcome = time::timeout(args.timeout, waiting).await;
    outcome.unwrap_or_else(|_| {
        let timeout = humantime::format_duration(args.timeout);
        Err(Failure::new(
            Exit::WaitTimedOut,
            format!("{} not serving after {timeout}: {last}", args.name),
        ))
    })
}

/// Whether `name` is the service, or one of its instances.
fn of(name: &str, service: &str) -> bool {
    let rest = name.strip_prefix(service);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// The instances that `name`, a service or an instance, means; without those that leave.
pub(crate) fn chosen<'a>(name: &str, reports: &'a [Report]) -> Result<Vec<&'a Report>, Failure> {
    let chosen = reports
        .iter()
        .filter(|report| !report.leaving)
        .filter(|report| report.row.name == name || report.row.instance == name);
    let chosen: Vec<_> = chosen.collect();
    if chosen.is_empty() {
        let known: BTreeSet<_> = reports.iter().map(|report| &*report.row.name).collect();
        return Err(unknown(name, known));
    }
    Ok(chosen)
}

fn look(name: &str, reports: &[Report], last: &mut String) -> Result<Option<Exit>, Failure> {
    // Who was told to end will not serve, and is not waited for.
    let chosen = chosen(name, reports)?;
    if let Some(hopeless) = chosen.iter().find(|report| report.hopeless) {
        let ended = hopeless.ended.as_deref().unwrap_or("ended");
        let instance = &hopeless.row.instance;
        let text = format!("{instance} {ended}; see `gantry logs {instance}`");
        return Err(failed(text));
    }
    let waiting = chosen
        .iter()
        .find(|report| report.row.state != State::Serving);
    if let Some(report) = waiting {
        *last = format!("{} is {}", report.row.instance, report.row.state);
        return Ok(None);
    }
    Ok(Some(Exit::Fine))
}

fn failed(text: impl Into<String>) -> Failure {
    Failure::new(Exit::WaitFailed, text)
}

fn unknown<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Failure {
    let near = nearest(name, known);
    Failure::usage(format!("no service or instance \"{name}\"{near}"))
}

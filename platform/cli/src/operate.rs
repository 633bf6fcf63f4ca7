//! `gantry scale` and `gantry restart`: have the running `up` change what runs, and tell how it
//! goes: steps to standard error, the instances after it to standard output.

use std::time::Duration;

use tokio::signal;

use crate::{
    Outcome,
    args::{Restart, Scale},
    failure::{Exit, Failure},
    here,
    output::{self, Format},
    project::count_of,
    ps, registrations,
    state::StateFolder,
    supervisor::{
        Event, Fault, Operation, Report, Row, Step, Targets, control,
        logs::{path_of, tail},
    },
};

/// Last lines shown of an instance that did not come to serve.
const LAST_LINES: usize = 20;

/// Longest an instance may be waited for; clocks hold no more than some years.
const TIMEOUT_MAX: Duration = Duration::from_hours(24);

pub(crate) async fn scale(args: Scale) -> Outcome {
    let fault = |setting: &str, why| Failure::usage(format!("{setting}: {why}"));
    let counts = args
        .counts
        .iter()
        .map(|setting| count_of(setting).map_err(|why| fault(setting, why)));
    let operation = Operation::Scale {
        counts: counts.collect::<Result<_, _>>()?,
        timeout: args.timeout.min(TIMEOUT_MAX),
    };
    let left = "the running `gantry up` finishes this by itself; see `gantry ps`";
    run(operation, args.output, left).await
}

pub(crate) async fn restart(args: Restart) -> Outcome {
    let targets = if args.all {
        Targets::All
    } else {
        Targets::Named(args.names)
    };
    let operation = Operation::Restart {
        targets,
        timeout: args.timeout.min(TIMEOUT_MAX),
    };
    let left = "the replacement at hand is finished, and no further one begun; see `gantry ps`";
    run(operation, args.output, left).await
}

/// Asks for an operation; `left` is what to know when the asker does not wait for its end.
async fn run(operation: Operation, format: Format, left: &str) -> Outcome {
    let (_, state) = here()?;
    let asked = control::operate_on(&state, operation, |event| output::note(&text(&event)));
    // Dropped when interrupted: `up` notices, and goes on as `left` says.
    let done = tokio::select! {
        done = asked => done?,
        _ = signal::ctrl_c() => {
            output::note(left);
            return Ok(Exit::Interrupted);
        }
    };
    match done {
        None => Err(control::nothing_runs()),
        Some(Ok(mut reports)) => {
            registrations::complete(&mut reports).await;
            show(&reports, format);
            Ok(Exit::Fine)
        }
        Some(Err(fault)) => Err(explained(&state, fault)),
    }
}

fn text(event: &Event) -> String {
    let instance = &event.instance;
    match &event.step {
        Step::Starts => format!("{instance} starts"),
        Step::Serves => format!("{instance} serves"),
        Step::Fails(how) => format!("{instance} {how}"),
        Step::Drains => format!("{instance} drains"),
        Step::Gone => format!("{instance} is gone"),
    }
}

fn show(reports: &[Report], format: Format) {
    match format {
        Format::Human => output::line(&ps::table(reports)),
        Format::Json => {
            let rows: Vec<&Row> = reports.iter().map(|report| &report.row).collect();
            output::json(&rows);
        }
    }
}

/// Shows the last words of the instance a fault is about.
fn explained(state: &StateFolder, fault: Fault) -> Failure {
    if fault.usage {
        return Failure::usage(fault.text);
    }
    let Some(instance) = fault.instance else {
        return Failure::failed(fault.text);
    };
    for line in tail(&path_of(&state.logs(), &instance), LAST_LINES) {
        output::note(&format!("  {line}"));
    }
    let text = fault.text;
    Failure::failed(format!("{text}; see `gantry logs {instance}`"))
}

//! The `gantry` command: runs the services of a project, watches them, calls them.
//!
//! Everything runs on the main thread (see `shim` for why that matters to `up`).

mod access;
mod args;
mod ask;
mod breaker;
mod broker;
mod build;
mod call;
mod database;
mod dlq;
mod doctor;
mod events;
mod explain;
mod failure;
mod fault;
mod limits;
mod load;
mod logs;
mod ls;
mod operate;
mod output;
mod pause;
mod project;
mod ps;
mod registrations;
mod registry;
mod seed;
mod shim;
mod standin;
mod state;
mod stop;
mod supervisor;
mod up;
mod wait;

use std::{
    env,
    future::Future,
    process::{self, ExitCode},
};

use clap::CommandFactory as _;

use crate::{
    args::{Cli, Verb},
    failure::{Exit, Failure},
    project::Project,
    state::StateFolder,
};

/// What a verb comes to.
type Outcome = Result<Exit, Failure>;

fn main() -> ExitCode {
    if env::args_os().len() == 1 {
        output::line(&Cli::command().render_long_help().to_string());
        return Exit::Usage.into();
    }
    // clap prints its own errors, and ends with 2 for them.
    let outcome = run(args::parse().verb);
    let exit = outcome.unwrap_or_else(|failure| {
        output::error(&failure.to_string());
        failure.exit()
    });
    // Not a return: a read of standard input may hang in a thread of its own.
    process::exit(exit.code().into())
}

fn run(verb: Verb) -> Outcome {
    match verb {
        Verb::RunChild {
            parent,
            socket,
            command,
        } => Err(shim::become_child(parent, socket, &command)),
        Verb::Up(args) => up::run(&args),
        Verb::Ps(args) => block_on(ps::run(args)),
        Verb::Ls(args) => block_on(ls::run(args)),
        Verb::Pause(args) => block_on(pause::pause(args)),
        Verb::Resume(args) => block_on(pause::resume(args)),
        Verb::Logs(args) => block_on(logs::run(args)),
        Verb::Scale(args) => block_on(operate::scale(args)),
        Verb::Restart(args) => block_on(operate::restart(args)),
        Verb::Stop => block_on(stop::run()),
        Verb::Wait(args) => block_on(wait::run(args)),
        Verb::Call(args) => block_on(call::run(args)),
        Verb::Breaker(args) => block_on(breaker::run(args)),
        Verb::Limits(args) => block_on(limits::run(args)),
        Verb::Fault(args) => block_on(fault::run(args)),
        Verb::Explain(args) => block_on(explain::run(args)),
        Verb::Dlq(args) => block_on(dlq::run(args)),
        Verb::Events(args) => block_on(events::run(args)),
        Verb::Load(args) => block_on(load::run(args)),
        Verb::Doctor(args) => doctor::run(&args),
    }
}

/// Runs a verb on this thread.
fn block_on(verb: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("start the runtime: {error}")))?;
    let outcome = runtime.block_on(verb);
    runtime.shutdown_background();
    outcome
}

/// The project this command was called in, and its state folder.
fn here() -> Result<(Project, StateFolder), Failure> {
    let folder = current_folder()?;
    let project = Project::find(&folder)?;
    let state = StateFolder::of(&project.root);
    Ok((project, state))
}

fn current_folder() -> Result<std::path::PathBuf, Failure> {
    env::current_dir().map_err(|error| Failure::failed(format!("find the folder: {error}")))
}

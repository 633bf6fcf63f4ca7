//! From a command line to a running service, and from a signal to its end.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use gantry::app::{self, App, BoxError};
//!
//! fn main() -> ExitCode {
//!     app::run(app::identity!(), start)
//! }
//!
//! async fn start(app: &mut App<()>) -> Result<(), BoxError> {
//!     // app.serve(…);
//!     Ok(())
//! }
//! ```

#![allow(dead_code)]

mod command_line;
mod context;
mod drain;
mod identity;
mod process;
mod reflection;
mod settings;
mod stop;

use std::{io::Write as _, process::ExitCode, time::Duration};

use tokio::runtime;

pub use crate::{__identity as identity, BoxError};
pub use context::App;
pub use identity::Identity;
pub use settings::{Platform, Runtime};

use crate::{
    config::{self, Live, Section, Sources},
    shutdown::Signals,
    status::chain,
};
use process::{Process, Settings};
use stop::Stop;

/// Something failed while starting or running.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
const USAGE: u8 = 2;

/// How long threads that block may go on once everything else has ended.
const BLOCKING_GRACE: Duration = Duration::from_millis(100);

/// Runs a service from its command line to its end, and says how it ended: 0 drained, 1 failed,
/// 2 usage or configuration. A second signal exits with 130 from wherever it is.
///
/// `start` builds the service; it should connect to nothing that may be absent, because a missing
/// dependency is for a health check to report.
pub fn run<C, S>(identity: Identity, start: S) -> ExitCode
where
    C: Section,
    S: AsyncFnOnce(&mut App<C>) -> Result<(), BoxError>,
{
    let arguments = match command_line::parse(&identity, std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help to standard output, mistakes to standard error; neither may be readable.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    let file = arguments.config.as_deref();
    let sources = Sources::of_process(identity.name, file, &arguments.overrides);
    let loaded = match config::load::<Settings<C>>(sources) {
        Ok(loaded) => loaded,
        Err(faults) => {
            eprintln!("{faults}");
            return ExitCode::from(USAGE);
        }
    };
    match live(identity, loaded.config(), start) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}: {}", identity.name, chain(error.as_ref()));
            ExitCode::from(FAILED)
        }
    }
}

/// The part of a process that has threads.
fn live<C, S>(identity: Identity, settings: &Settings<C>, start: S) -> Result<ExitCode, BoxError>
where
    C: Section,
    S: AsyncFnOnce(&mut App<C>) -> Result<(), BoxError>,
{
    // Before the first await, and before threads that could be interrupted.
    let signals = Signals::install(|| drop(std::io::stdout().flush()))?;
    let mut builder = runtime::Builder::new_multi_thread();
    if let Some(threads) = settings.first.runtime.worker_threads {
        builder.worker_threads(threads);
    }
    let runtime = builder.thread_name(identity.name).enable_all().build()?;
    let process = Process {
        identity,
        settings: Live::fixed(settings.clone()),
        stop: Stop::default(),
    };
    let ended = runtime.block_on(until_drained(process, start, signals));
    runtime.shutdown_timeout(BLOCKING_GRACE);
    ended
}

async fn until_drained<C, S>(
    process: Process<C>,
    start: S,
    signals: Signals,
) -> Result<ExitCode, BoxError>
where
    C: Section,
    S: AsyncFnOnce(&mut App<C>) -> Result<(), BoxError>,
{
    let stop = process.stop.clone();
    let work = async {
        let running = process.start(start).await?;
        tracing::info!(address = %running.address, "serving");
        let why = running.stopped().await;
        running.drain(&why.reason, std::future::ready(())).await;
        Ok(if why.failed {
            ExitCode::from(FAILED)
        } else {
            ExitCode::SUCCESS
        })
    };
    let signalled = async {
        signals.stop().cancelled().await;
        stop.request("signal");
        std::future::pending().await
    };
    tokio::select! {
        ended = work => ended,
        () = signalled => unreachable!("a pending future never ends"),
    }
}

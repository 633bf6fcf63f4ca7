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

mod command_line;
mod context;
mod descriptors;
mod drain;
mod exports;
mod identity;
mod inside;
mod process;
mod protection;
mod reflection;
mod registry;
mod settings;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod upkeep;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use tokio::runtime;

pub use crate::{__identity as identity, BoxError};
pub use context::App;

pub use identity::Identity;
pub use registry::Etcd;
#[cfg(feature = "etcd")]
pub use registry::{discovering, etcd};
pub use settings::{Platform, Runtime};

use crate::{
    config::{self, Both, Loaded, Section, Sources},
    journal::Journal,
    shutdown::{Signals, Stop, Tasks},
    status::chain,
    telemetry::{self, Telemetry},
};
use descriptors::Descriptors;
use process::{Process, Running, StartError};
use settings::Settings;

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
    let loaded = match config::load::<Both<Platform, C>>(sources) {
        Ok(loaded) => loaded,
        Err(faults) => {
            eprintln!("{faults}");
            return ExitCode::from(USAGE);
        }
    };
    if arguments.print_config {
        let printed = io::stdout().write_all(loaded.print().as_bytes());
        return ExitCode::from(if printed.is_ok() { 0 } else { FAILED });
    }
    match live(identity, loaded, start) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}: {}", identity.name, chain(error.as_ref()));
            let misfit = matches!(error.downcast_ref(), Some(StartError::Policies(_)));
            ExitCode::from(if misfit { USAGE } else { FAILED })
        }
    }
}

/// The part of a process that has threads.
fn live<C, S>(
    identity: Identity,
    loaded: Loaded<Both<Platform, C>>,
    start: S,
) -> Result<ExitCode, BoxError>
where
    C: Section,
    S: AsyncFnOnce(&mut App<C>) -> Result<(), BoxError>,
{
    // Before there are threads: it takes variables out of the environment.
    let socket = config::inherited_socket().map_err(StartError::Inherited)?;
    // Before the first await, and before threads that could be interrupted.
    let signals = Signals::install(|| drop(io::stdout().flush()))?;
    let mut builder = runtime::Builder::new_multi_thread();
    if let Some(threads) = loaded.config().first.runtime.worker_threads {
        builder.worker_threads(threads);
    }
    let runtime = builder.thread_name(identity.name).enable_all().build()?;
    let ended = runtime.block_on(async {
        let mut process = prepare(identity, loaded, |named, config, tasks| {
            Ok(Some(telemetry::init(named, config, tasks)?))
        })?;
        process.socket = socket;
        until_drained(process, start, signals).await
    });
    runtime.shutdown_timeout(BLOCKING_GRACE);
    ended
}

/// Sets up what tells of a process before there is anything to tell.
fn prepare<C: Section>(
    identity: Identity,
    loaded: Loaded<Both<Platform, C>>,
    tell: impl FnOnce(
        &telemetry::Identity<'_>,
        &telemetry::Config,
        &Tasks,
    ) -> Result<Option<Telemetry>, BoxError>,
) -> Result<Process<C>, BoxError> {
    let journal = Journal::new();
    let platform = Tasks::new(journal.clone());
    let instance = format!("{:016x}", fastrand::u64(..));
    let named = telemetry::Identity {
        service: identity.name,
        version: identity.version,
        instance: &instance,
    };
    let telemetry = tell(&named, &loaded.config().first.telemetry, &platform)?;
    let (live, handle) = loaded.start(&platform, journal.clone());
    Ok(Process {
        identity,
        instance,
        settings: Settings { live, handle },
        journal,
        stop: Stop::new(),
        platform,
        socket: None,
        descriptors: Descriptors::raise(),
        telemetry,
    })
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
    let (stop, telemetry) = (process.stop.clone(), process.telemetry.clone());
    let settings = process.settings.handle.clone();
    let flush = async {
        if let Some(telemetry) = telemetry {
            telemetry.shutdown().await;
        }
    };
    let work = async {
        match process.start(start).await {
            Ok(running) => Ok(serve(running, flush).await),
            Err(error) => {
                // The last lines of a start-up that failed are those that matter most.
                flush.await;
                Err(error.into())
            }
        }
    };
    let signalled = async {
        signals.stop().cancelled().await;
        stop.request("signal");
        std::future::pending::<()>().await;
    };
    let reloading = async {
        let mut reload = signals.reload();
        while reload.changed().await.is_ok() {
            settings.reload().await;
        }
    };
    tokio::select! {
        ended = work => ended,
        // Neither ends before the process does: the signals are caught by a thread of their own.
        ((), ()) = async { tokio::join!(signalled, reloading) } => {
            unreachable!("the first of the two never ends")
        }
    }
}

async fn serve(running: Running, flush: impl Future<Output = ()>) -> ExitCode {
    tracing::info!(
        address = %running.address,
        side_address = %running.side_address,
        "serving"
    );
    let asked = running.stopped().await;
    running.drain(&asked.why, flush).await;
    ExitCode::from(if asked.failed { FAILED } else { 0 })
}

#[cfg(test)]
mod tests;

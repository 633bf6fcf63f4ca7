//! Does it to instances of the running `up`.

use std::time::Duration;

use gantry_api::admin::v1::registration::State;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time;

use super::{Hand, Harm, Planned};
use crate::{
    failure::Failure,
    fault, here, pause,
    state::StateFolder,
    supervisor::{Report, control},
    wait,
};

/// A fault of calls ends by itself so long after it should have been switched off: that of a run
/// that was killed.
const LEFT_MORE: Duration = Duration::from_secs(10);

/// How often a process is asked that does not answer: a busy one may not take a connection at once.
const TRIES: u32 = 3;

/// Between two of them.
const PAUSE: Duration = Duration::from_millis(100);

/// The running `up`.
#[derive(Debug)]
pub(crate) struct Up {
    state: StateFolder,
}

/// What was done to an instance.
#[derive(Debug)]
pub(crate) enum Held {
    /// A fault is on in the process with this side port.
    Calls {
        instance: String,
        side_address: String,
    },
    /// A process stands still.
    Stopped(Stopped),
    /// An instance is out of the registry.
    Paused { instance: String },
}

/// A process that stands still, for as long as this is kept: it goes on also where this program
/// panics.
#[derive(Debug)]
pub(crate) struct Stopped(Pid);

impl Stopped {
    fn go_on(&self) {
        // One that has ended meanwhile needs nothing.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.go_on();
    }
}

impl Up {
    /// The `up` of the project at hand, in which everybody runs whom `planned` names.
    pub(crate) async fn find(planned: &[Planned]) -> Result<Self, Failure> {
        let (_, state) = here()?;
        let reports = control::running(&state).await?;
        for one in planned {
            wait::chosen(&one.whom, &reports).map_err(|failure| {
                Failure::new(failure.exit(), format!("{}: {failure}", one.place))
            })?;
        }
        Ok(Self { state })
    }

    async fn report(&self, instance: &str) -> Result<Option<Report>, Failure> {
        let reports = control::instances(&self.state).await?.unwrap_or_default();
        let mut found = reports.into_iter();
        Ok(found.find(|report| report.row.instance == instance))
    }

    async fn heal_one(&self, planned: &Planned, held: Held) -> Result<(), Failure> {
        match (held, &planned.harm) {
            (
                Held::Calls {
                    instance,
                    side_address,
                },
                Harm::Calls(what),
            ) => {
                let off = async || fault::switch_off(&side_address, &what.pattern).await;
                let Err(failure) = patiently(off).await else {
                    return Ok(());
                };
                // A fault ends with its process.
                let now = self.report(&instance).await?;
                let same = now.is_some_and(|now| {
                    now.row.side_address == side_address && now.row.pid.is_some()
                });
                if same { Err(failure) } else { Ok(()) }
            }
            (Held::Paused { instance }, _) => match self.report(&instance).await? {
                Some(report) => pause::one(&self.state, &report, State::Registered)
                    .await
                    .map(drop),
                None => Ok(()),
            },
            (Held::Stopped(stopped), _) => {
                stopped.go_on();
                Ok(())
            }
            (Held::Calls { .. }, _) => Ok(()),
        }
    }
}

impl Hand for Up {
    type Held = Vec<Held>;

    async fn harm(
        &self,
        planned: &Planned,
        time: Duration,
        held: &mut Vec<Held>,
    ) -> Result<(), Failure> {
        let reports = control::running(&self.state).await?;
        for report in wait::chosen(&planned.whom, &reports)? {
            let row = &report.row;
            match &planned.harm {
                Harm::Calls(what) => {
                    held.push(Held::Calls {
                        instance: row.instance.clone(),
                        side_address: row.side_address.clone(),
                    });
                    let mut what = what.clone();
                    let left = (time + LEFT_MORE).min(gantry::fault::LONGEST);
                    what.left = left.try_into().ok();
                    patiently(async || fault::switch_on(&row.side_address, what.clone()).await)
                        .await?;
                }
                Harm::Stop => {
                    let pid = pid(report)?;
                    held.push(Held::Stopped(Stopped(pid)));
                    signal(report, pid, Signal::STOP)?;
                }
                Harm::Kill => signal(report, pid(report)?, Signal::KILL)?,
                Harm::Pause => {
                    held.push(Held::Paused {
                        instance: row.instance.clone(),
                    });
                    pause::one(&self.state, report, State::Paused).await?;
                }
            }
        }
        Ok(())
    }

    async fn heal(&self, planned: &Planned, held: Vec<Held>) -> Result<(), Failure> {
        let mut failed = Ok(());
        for one in held {
            // Whatever becomes of one, the others are healed.
            let healed = self.heal_one(planned, one).await;
            failed = failed.and(healed);
        }
        failed
    }
}

/// Asks up to [`TRIES`] times; what is asked for may be done twice.
async fn patiently(ask: impl AsyncFn() -> Result<(), Failure>) -> Result<(), Failure> {
    let mut asked = ask().await;
    for _ in 1..TRIES {
        if asked.is_ok() {
            break;
        }
        time::sleep(PAUSE).await;
        asked = ask().await;
    }
    asked
}

fn pid(report: &Report) -> Result<Pid, Failure> {
    let pid = report.row.pid.and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.and_then(Pid::from_raw);
    pid.ok_or_else(|| Failure::failed(format!("{} has no process", report.row.instance)))
}

fn signal(report: &Report, pid: Pid, signal: Signal) -> Result<(), Failure> {
    let instance = &report.row.instance;
    kill_process(pid, signal)
        .map_err(|error| Failure::failed(format!("{instance}, process {pid:?}: {error}")))
}

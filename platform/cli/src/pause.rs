//! `gantry pause` and `gantry resume`: takes instances out of the registry for the time being.
//!
//! The running `up` is told first, so that a process that takes the place of the one at hand at any
//! moment begins as is wanted; then the process is.

use std::time::Duration;

use gantry_api::admin::v1::{
    GetRegistrationRequest, PauseRegistrationRequest, Registration, ResumeRegistrationRequest,
    admin_service_client::AdminServiceClient, registration::State,
};
use tokio::time::{self, Instant};
use tonic::{Code, Status};

use crate::{
    Outcome,
    args::{Pause, Resume},
    call::{
        self,
        target::{Channel, Target},
    },
    failure::{Exit, Failure},
    here, output,
    state::StateFolder,
    supervisor::{Marked, Report, Row, control},
    wait,
};

/// How long the registry may take to have it.
const DONE_MAX: Duration = Duration::from_secs(5);

/// How often it is asked whether it has.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) async fn pause(args: Pause) -> Outcome {
    run(&args.name, State::Paused).await
}

pub(crate) async fn resume(args: Resume) -> Outcome {
    run(&args.name, State::Registered).await
}

async fn run(name: &str, wanted: State) -> Outcome {
    let (_, state) = here()?;
    let reports = control::running(&state).await?;
    for report in wait::chosen(name, &reports)? {
        let instance = &report.row.instance;
        let done = one(&state, report, wanted).await;
        let done = done.map_err(|failure| Failure::failed(format!("{instance}: {failure}")))?;
        output::note(&format!("{instance} {done}"));
    }
    Ok(Exit::Fine)
}

/// Changes one instance; says what it came to.
pub(crate) async fn one(
    state: &StateFolder,
    report: &Report,
    wanted: State,
) -> Result<String, Failure> {
    let Row {
        instance,
        side_address,
        ..
    } = &report.row;
    let paused = wanted == State::Paused;
    let Marked { before, running } = control::pause(state, instance, paused).await?;
    if !running {
        let next = if paused { "not be" } else { "be" };
        return Ok(format!(
            "has no process; the next one will {next} registered"
        ));
    }
    let target = Target::at(side_address, None)?;
    let changed = change(target.channel.clone(), wanted).await;
    target.close().await;
    match changed {
        Ok(registration) if paused => Ok(taken_back(&registration)),
        Ok(_) => Ok("is registered".to_owned()),
        // It was told, and takes its time.
        Err(Unchanged::Late(failure)) => Err(failure),
        Err(Unchanged::Refused(failure)) => {
            let undone = control::pause(state, instance, before).await;
            Err(match undone {
                Ok(_) => failure,
                Err(undo) => not_undone(&failure, paused, &undo),
            })
        }
    }
}

/// What a pause has come to: etcd may be away, and hear of it later.
fn taken_back(registration: &Registration) -> String {
    let cause = &registration.error;
    if cause.is_empty() {
        return "is not registered any more, nor after a restart; it goes on serving".to_owned();
    }
    let ttl = registration.ttl.unwrap_or_default().seconds;
    format!(
        "is paused, also after a restart, and goes on serving; it may be found until its lease \
         runs out (≤ {ttl} s while etcd runs): {cause}"
    )
}

/// A change that failed, and of which the running `up` kept its part.
fn not_undone(failure: &Failure, paused: bool, undo: &Failure) -> Failure {
    let next = if paused { "not be" } else { "be" };
    let text =
        format!("{failure}; and its next process will {next} registered all the same: {undo}");
    Failure::new(failure.exit(), text)
}

/// Why a registration is not as wanted.
enum Unchanged {
    /// The process could not be told, or has none.
    Refused(Failure),
    /// It was told, and the registry does not have it yet.
    Late(Failure),
}

/// Asks for the change, and waits until the process says that it is so.
async fn change(channel: Channel, wanted: State) -> Result<Registration, Unchanged> {
    let mut admin = AdminServiceClient::new(channel);
    let until = Instant::now() + DONE_MAX;
    while let Err(status) = tell(&mut admin, wanted).await {
        // A process that has just begun does not listen yet.
        if status.code() != Code::Unavailable || Instant::now() >= until {
            return Err(Unchanged::Refused(call::failure(&status)));
        }
        time::sleep(LOOK).await;
    }
    let failed = |status: Status| Unchanged::Late(call::failure(&status));
    let mut last = String::new();
    let waiting = async {
        loop {
            let answer = admin.get_registration(GetRegistrationRequest {}).await;
            let now = answer.map_err(failed)?.into_inner().registration;
            let now = now.unwrap_or_default();
            if now.state() == wanted {
                return Ok(now);
            }
            last = format!("{} {}", now.state().as_str_name(), now.error);
            time::sleep(LOOK).await;
        }
    };
    let done = time::timeout(DONE_MAX, waiting).await;
    done.unwrap_or_else(|_| {
        let text = format!("after {DONE_MAX:?} it is {last}");
        Err(Unchanged::Late(Failure::failed(text)))
    })
}

async fn tell(admin: &mut AdminServiceClient<Channel>, wanted: State) -> Result<(), Status> {
    if wanted == State::Paused {
        let asked = admin.pause_registration(PauseRegistrationRequest {});
        asked.await.map(drop)
    } else {
        let asked = admin.resume_registration(ResumeRegistrationRequest {});
        asked.await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: why a change failed comes first, and what became of the undoing after it.
    /// Method: two failures.
    #[test]
    fn the_real_reason_comes_first() {
        let failed = Failure::new(Exit::Usage, "it does not register");
        let said = not_undone(
            &failed,
            true,
            &Failure::failed("`gantry up` has ended meanwhile"),
        );
        assert_eq!(Exit::Usage, said.exit());
        let expected = "it does not register; and its next process will not be registered all the \
                        same: `gantry up` has ended meanwhile";
        assert_eq!(expected, said.to_string());
    }
}

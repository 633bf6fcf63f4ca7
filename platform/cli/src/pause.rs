//! `gantry pause` and `gantry resume`: takes instances out of the registry for the time being.

use std::time::Duration;

use gantry_api::admin::v1::{
    GetRegistrationRequest, PauseRegistrationRequest, ResumeRegistrationRequest,
    admin_service_client::AdminServiceClient, registration::State,
};
use tokio::time;
use tonic::Status;

use crate::{
    Outcome,
    args::{Pause, Resume},
    call::{
        self,
        target::{Channel, Target},
    },
    failure::{Exit, Failure},
    here, output,
    supervisor::control,
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
    let Some(reports) = control::instances(&state).await? else {
        return Err(Failure::failed(
            "nothing runs here; start it with `gantry up`",
        ));
    };
    for report in wait::chosen(name, &reports)? {
        let row = &report.row;
        let target = Target::at(&row.side_address, None)?;
        let changed = change(target.channel.clone(), wanted).await;
        target.close().await;
        let instance = &row.instance;
        changed.map_err(|failure| Failure::failed(format!("{instance}: {failure}")))?;
        output::note(&match wanted {
            State::Paused => format!("{instance} is not registered any more; it goes on serving"),
            _ => format!("{instance} is registered"),
        });
    }
    Ok(Exit::Fine)
}

/// Asks for the change, and waits until the registry has it.
async fn change(channel: Channel, wanted: State) -> Result<(), Failure> {
    let mut admin = AdminServiceClient::new(channel);
    let failed = |status: Status| call::failure(&status);
    if wanted == State::Paused {
        let asked = admin.pause_registration(PauseRegistrationRequest {});
        asked.await.map_err(failed)?;
    } else {
        let asked = admin.resume_registration(ResumeRegistrationRequest {});
        asked.await.map_err(failed)?;
    }
    let mut last = String::new();
    let waiting = async {
        loop {
            let answer = admin.get_registration(GetRegistrationRequest {}).await;
            let now = answer.map_err(failed)?.into_inner().registration;
            let now = now.unwrap_or_default();
            if now.state() == wanted {
                return Ok(());
            }
            last = format!("{} {}", now.state().as_str_name(), now.error);
            time::sleep(LOOK).await;
        }
    };
    let done = time::timeout(DONE_MAX, waiting).await;
    done.unwrap_or_else(|_| Err(Failure::failed(format!("after {DONE_MAX:?} it is {last}"))))
}

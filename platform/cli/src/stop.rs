//! `gantry stop`: drains the running `up`.

use crate::{Outcome, failure::Exit, here, output, supervisor::control};

pub(crate) async fn run() -> Outcome {
    let (_, state) = here()?;
    output::note(if control::stop(&state).await? {
        "stopped"
    } else {
        "nothing runs here"
    });
    Ok(Exit::Fine)
}

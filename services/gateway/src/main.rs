//! The edge of a system.

use std::process::ExitCode;

fn main() -> ExitCode {
    gantry::app::run(gantry::app::identity!(), async |app| gateway::start(app))
}

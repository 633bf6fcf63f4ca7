//! The notifications service.

use std::process::ExitCode;

fn main() -> ExitCode {
    gantry::app::run(gantry::app::identity!(), notifications::start)
}

//! The bank.

use std::process::ExitCode;

fn main() -> ExitCode {
    gantry::app::run(gantry::app::identity!(), bank::start)
}

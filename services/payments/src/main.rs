//! The payments service.

use std::process::ExitCode;

fn main() -> ExitCode {
    gantry::app::run(gantry::app::identity!(), payments::start)
}

//! People who shop.

use std::process::ExitCode;

fn main() -> ExitCode {
    gantry::app::run(gantry::app::identity!(), async |app| shopper::start(app))
}

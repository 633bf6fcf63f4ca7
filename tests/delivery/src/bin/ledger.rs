//! The service under test; see the library.

use std::process::ExitCode;

use gantry::app::{self, Identity};

fn main() -> ExitCode {
    let identity = Identity {
        name: gantry_delivery::service::NAME,
        ..app::identity!()
    };
    app::run(identity, gantry_delivery::service::start)
}

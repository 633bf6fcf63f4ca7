//! The contract of the probe: a service whose every call does what a test asks of it.

mod contracts {
    gantry::include_contracts!();
}

pub use contracts::probe::v1::*;

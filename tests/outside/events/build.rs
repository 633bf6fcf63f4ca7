//! Compiles the contract of the tally.

fn main() -> Result<(), gantry_build::Error> {
    gantry_build::configure().compile()
}

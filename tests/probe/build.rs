//! Compiles the contract of the probe.

fn main() -> Result<(), gantry_build::Error> {
    gantry_build::configure().compile()
}

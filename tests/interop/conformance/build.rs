//! Compiles the contract of the conformance suite.

fn main() -> Result<(), gantry_build::Error> {
    gantry_build::configure().compile()
}

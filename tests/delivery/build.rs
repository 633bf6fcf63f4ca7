//! Compiles the contract of the service under test.

fn main() -> Result<(), gantry_build::Error> {
    gantry_build::configure().compile()
}

//! Compiles the contract made for tests.

fn main() -> Result<(), gantry_build::Error> {
    gantry_build::configure().compile()
}

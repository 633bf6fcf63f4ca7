//! Compiles the contract of the greeter.

fn main() -> Result<(), gantry_build::Error> {
    gantry_build::configure().compile()
}

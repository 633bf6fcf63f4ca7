//! Compiles the contract of the benchmark.

fn main() -> Result<(), gantry_build::Error> {
    gantry_build::configure().compile()
}

//! Compiles the contracts made for tests.

fn main() -> Result<(), gantry_build::Error> {
    gantry_build::configure().package("rules").compile()
}

//! Compiles the contracts of the shop.

fn main() -> Result<(), gantry_build::Error> {
    gantry_build::configure().package("shop").compile()
}

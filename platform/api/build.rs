//! Compiles the platform's contracts.

fn main() -> Result<(), gantry_build::Error> {
    gantry_build::configure()
        .proto_dir("../../proto")
        .package("gantry")
        .package("grpc")
        .plain()
        .compile()
}

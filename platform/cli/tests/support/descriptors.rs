//! The description of `echo.v1.EchoService`, for tests.

/// The encoded description of the service and all it imports.
pub(crate) fn descriptors() -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support");
    let mut compiler = protox::Compiler::new([folder]).expect("the folder is there");
    compiler.include_imports(true);
    compiler.open_file("echo.proto").expect("it compiles");
    compiler.encode_file_descriptor_set()
}

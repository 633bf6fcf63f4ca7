//! The stand-in for protoc, as build scripts of dependencies call it.
#![cfg(unix)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/protoc/protoc");
const PROTOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");

/// A folder with the tools the script needs, and nothing else that could be a protoc.
fn tools(folder: &Path) -> PathBuf {
    let bin = folder.join("bin");
    fs::create_dir(&bin).expect("there is room");
    #[expect(
        clippy::disallowed_methods,
        reason = "where the tools are is not configuration"
    )]
    let path = std::env::var("PATH").expect("tests are run with one");
    let names = [
        "sh", "cargo", "rustc", "cc", "ld", "as", "ar", "dirname", "cat", "cksum", "tr", "cp", "mv",
    ];
    for name in names {
        let found = path.split(':').map(|folder| Path::new(folder).join(name));
        let found = found.into_iter().find(|path| path.exists());
        let found = found.unwrap_or_else(|| panic!("{name} is not on PATH"));
        std::os::unix::fs::symlink(found, bin.join(name)).expect("there is room");
    }
    bin
}

fn run(bin: &Path, arguments: &[&str]) -> Output {
    Command::new(SCRIPT)
        .args(arguments)
        .current_dir(PROTOS)
        .env("PATH", bin)
        // What an outer cargo sets, and a nested one must not follow.
        .env("CARGO_TARGET_DIR", "/nowhere")
        .env("CARGO_BUILD_TARGET", "no-such-target")
        .env("RUSTFLAGS", "--no-such-flag")
        .output()
        .expect("the script can be run")
}

/// Goal: where no protoc is installed, the script does what prost-build asks of one.
/// Method: run it with a PATH of the tools it needs, as prost-build does; compare with protox.
#[test]
fn it_writes_the_descriptor_set_that_protoc_would() {
    let folder = tempfile::tempdir().expect("there is room");
    let bin = tools(folder.path());
    let set = folder.path().join("set");
    let set_path = set.to_str().expect("it is text");
    let file = "grpc/health/v1/health.proto";
    let arguments = [
        "--include_imports",
        "--include_source_info",
        "-o",
        set_path,
        "-I",
        ".",
        file,
    ];

    let output = run(&bin, &arguments);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let expected = protox::Compiler::new([PROTOS])
        .expect("the folder is there")
        .include_imports(true)
        .include_source_info(true)
        .open_file(file)
        .expect("the contract compiles")
        .encode_file_descriptor_set();
    assert_eq!(fs::read(&set).expect("it was written"), expected);
}

#[test]
fn what_it_cannot_do_is_an_error() {
    let folder = tempfile::tempdir().expect("there is room");
    let bin = tools(folder.path());
    let cases = [
        (
            &["-o", "/nowhere/set", "missing.proto"][..],
            "file 'missing.proto' is not in any include path",
        ),
        (&["-o"][..], "protoc: -o wants a value"),
        (
            &["--cpp_out=.", "a.proto"][..],
            "protoc: this stand-in does not know --cpp_out=.",
        ),
        (
            &["grpc/health/v1/health.proto"][..],
            "protoc: no -o; this stand-in writes descriptor sets alone",
        ),
        (&[][..], "protoc: no file to compile"),
    ];
    for (arguments, said) in cases {
        let output = run(&bin, arguments);
        assert!(!output.status.success(), "{arguments:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.starts_with(said), "{arguments:?}: {stderr}");
    }
}

/// Goal: an installed protoc goes first.
/// Method: put one that says so on PATH.
#[test]
fn an_installed_protoc_goes_first() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().expect("there is room");
    let bin = tools(folder.path());
    let installed = bin.join("protoc");
    fs::write(&installed, "#!/bin/sh\necho installed \"$@\"\n").expect("there is room");
    fs::set_permissions(&installed, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let output = run(&bin, &["-o", "a b"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "installed -o a b\n"
    );
}

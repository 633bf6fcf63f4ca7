//! Tools that `tests/tools` installs.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The path of a tool, or none where it cannot be had; then the test is skipped, loudly.
///
/// # Panics
///
/// In CI, where a skip is a failure.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let folder = setting("TESTS_TOOLS").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| root().join("tests/.tools"));
    let places = [folder.join("bin").join(name), folder.join(name)];
    let found = places.into_iter().find(|path| path.exists());
    if found.is_none() {
        skip(&format!(
            "{name} is not installed; tests/run installs it where it can"
        ));
    }
    found
}

/// Whether exact time bounds are checked: on a quiet machine, by `tests/run --soak`.
#[must_use]
pub fn timed() -> bool {
    setting("TESTS_TIMED").is_some()
}

/// Says that a test is skipped.
///
/// # Panics
///
/// In CI.
#[allow(clippy::print_stderr)]
pub fn skip(why: &str) {
    assert!(
        setting("CI").as_deref() != Some("true"),
        "skipped in CI: {why}"
    );
    eprintln!("SKIPPED: {why}");
}

/// The root of the repository.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Runs a command to its end.
///
/// # Panics
///
/// If it cannot be started, or fails; what it printed is shown.
pub fn run(command: &mut Command) -> String {
    let output = output(command);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Runs a command to its end, whatever that is.
///
/// # Panics
///
/// If it cannot be started.
pub fn output(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("start {command:?}: {error}"))
}

/// What the environment of a test run says under `name`.
#[allow(clippy::disallowed_methods)]
#[must_use]
pub fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

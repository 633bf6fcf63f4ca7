//! Runs `gantry load` for tests of it.

#![allow(dead_code, reason = "each test program uses what it needs")]

use std::process::{Command, Output, Stdio};

use serde_json::Value;

pub(crate) const ECHO: &str = "echo.v1.EchoService/Echo";
pub(crate) const REPEAT: &str = "echo.v1.EchoService/Repeat";
pub(crate) const GATHER: &str = "echo.v1.EchoService/Gather";
pub(crate) const CHAT: &str = "echo.v1.EchoService/Chat";
pub(crate) const FAIL: &str = "echo.v1.EchoService/Fail";
pub(crate) const HANG: &str = "echo.v1.EchoService/Hang";

pub(crate) fn load(target: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gantry"));
    command.args(["load", target]).args(arguments);
    command.stdin(Stdio::null());
    command
}

pub(crate) fn ended(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let code = output.status.code().unwrap();
    (code, text(&output.stdout), text(&output.stderr))
}

/// A run of so many calls, four at a time: exit code and report.
pub(crate) fn counted(target: &str, arguments: &[&str]) -> (i32, Value) {
    counted_at(4, target, arguments)
}

/// A run of so many calls, `concurrency` at a time: exit code and report.
///
/// A machine that is too busy to send on time voids the run, which says nothing of what is counted:
/// such a run's code is that of a valid one.
pub(crate) fn counted_at(concurrency: u32, target: &str, arguments: &[&str]) -> (i32, Value) {
    let mut command = load(target, arguments);
    command.args(["--concurrency", &concurrency.to_string(), "--output=json"]);
    let (code, report, notes) = ended(&command.output().unwrap());
    let report: Value = serde_json::from_str(&report).unwrap_or_else(|error| {
        panic!("{error}: {notes}");
    });
    let late = |reason: &Value| reason.as_str().unwrap().contains("were sent on schedule");
    let reasons = report["void_reasons"].as_array().unwrap();
    let only_late = !reasons.is_empty() && reasons.iter().all(late);
    (if code == 1 && only_late { 0 } else { code }, report)
}

pub(crate) fn number(report: &Value, pointer: &str) -> u64 {
    let value = report.pointer(pointer);
    let number = value.and_then(Value::as_u64);
    number.unwrap_or_else(|| panic!("{pointer} in {report:#}"))
}

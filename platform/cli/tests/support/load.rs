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

/// A run of so many calls, some at a time: exit code and report.
pub(crate) fn counted(target: &str, arguments: &[&str]) -> (i32, Value) {
    let mut command = load(target, arguments);
    command.args(["--concurrency", "4", "--output", "json"]);
    let (code, report, notes) = ended(&command.output().unwrap());
    let report = serde_json::from_str(&report);
    (
        code,
        report.unwrap_or_else(|error| panic!("{error}: {notes}")),
    )
}

pub(crate) fn number(report: &Value, pointer: &str) -> u64 {
    let value = report.pointer(pointer);
    let number = value.and_then(Value::as_u64);
    number.unwrap_or_else(|| panic!("{pointer} in {report:#}"))
}

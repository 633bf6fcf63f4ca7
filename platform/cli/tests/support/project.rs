//! A project of small services, and a running `gantry up` in it.

#![allow(dead_code, reason = "each test program uses what it needs")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Nothing here takes long; this is for a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) const GANTRY: &str = env!("CARGO_BIN_EXE_gantry");

/// A project folder.
pub(crate) struct Project {
    folder: TempDir,
}

impl Project {
    /// `front` calls `back`; both are echo services, with further lines for each.
    pub(crate) fn new(front: &str, back: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let binary = Path::new(GANTRY).with_file_name("examples").join("echo");
        assert!(binary.exists(), "build it with `cargo build --examples`");
        let binary = binary.display();
        let text = format!(
            "[services.front]\nbinary = '{binary}'\ncalls = ['back']\n{front}\n\
             [services.back]\nbinary = '{binary}'\n{back}\n"
        );
        fs::write(folder.path().join("gantry.toml"), text).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(GANTRY);
        command.args(arguments).current_dir(self.path());
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end: exit code, standard output, standard error.
    pub(crate) fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    pub(crate) fn up(&self, arguments: &[&str]) -> Up {
        self.up_with(&[], arguments)
    }

    /// The same with variables in its environment.
    pub(crate) fn up_with(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Up {
        let mut command = self.command(&["up", "--output", "json", "--port-base", "0"]);
        let mut child = command
            .args(arguments)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let events = follow(child.stdout.take().unwrap());
        Up { child, events }
    }

    /// What `gantry ps` says of an instance.
    pub(crate) fn ps(&self, instance: &str) -> Value {
        let (code, text, _) = self.run(&["ps", "--output", "json"]);
        assert_eq!(0, code);
        let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
        let mut rows = rows.into_iter();
        rows.find(|row| row["instance"] == instance).unwrap()
    }
}

/// Reads lines of JSON as they come, with a bound on how long a test waits for one.
pub(crate) fn follow(stdout: ChildStdout) -> Receiver<Value> {
    let (sender, events) = sync_channel(10_000);
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let event = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"));
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    events
}

/// A running `gantry up`.
pub(crate) struct Up {
    pub(crate) child: Child,
    events: Receiver<Value>,
}

impl Drop for Up {
    fn drop(&mut self) {
        // Of a test that failed; its children go with it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Up {
    /// Waits for an event, and returns it.
    pub(crate) fn until(&self, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let mut seen = Vec::new();
        loop {
            match self.events.recv_timeout(PATIENCE) {
                Ok(event) if wanted(&event) => return event,
                Ok(event) => seen.push(event),
                Err(error) => panic!("{error} after {seen:#?}"),
            }
        }
    }

    pub(crate) fn ready(&self) -> Value {
        self.until(|event| event["type"] == "ready")
    }

    pub(crate) fn until_state(&self, instance: &str, state: &str) -> Value {
        self.until(|event| is_state(event, instance, state))
    }

    /// Everything told until the end.
    pub(crate) fn rest(&self) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            match self.events.recv_timeout(PATIENCE) {
                Ok(event) => events.push(event),
                Err(RecvTimeoutError::Disconnected) => return events,
                Err(error) => panic!("{error} after {events:#?}"),
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(pid(u64::from(self.child.id())), signal).unwrap();
    }

    pub(crate) fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

pub(crate) fn is_state(event: &Value, instance: &str, state: &str) -> bool {
    event["type"] == "state" && event["instance"] == instance && event["state"] == state
}

pub(crate) fn pid(raw: u64) -> Pid {
    Pid::from_raw(i32::try_from(raw).unwrap()).unwrap()
}

pub(crate) fn alive(pid: Pid) -> bool {
    // A zombie still takes signals; of a killed parent's children, nobody may be left to reap.
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let zombie = stat.is_ok_and(|stat| stat.rsplit(')').next().unwrap().starts_with(" Z"));
    test_kill_process(pid).is_ok() && !zombie
}

/// Polls until something holds.
#[allow(
    clippy::disallowed_methods,
    reason = "other processes have no event to wait for"
)]
pub(crate) fn eventually(within: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let step = Duration::from_millis(20);
    for _ in 0..within.as_millis() / step.as_millis() {
        if holds() {
            return;
        }
        thread::sleep(step);
    }
    panic!("not within {within:?}: {what}");
}

pub(crate) fn pids(ready: &Value) -> Vec<Pid> {
    let instances = ready["instances"].as_array().unwrap().iter();
    instances
        .map(|row| pid(row["pid"].as_u64().unwrap()))
        .collect()
}

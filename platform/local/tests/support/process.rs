//! A stand-in in a process of its own, on a port of its own.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use gantry_harness::process::{built, pid};
use rustix::process::{Signal, kill_process};

/// The process of one of the examples.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: String,
}

impl Process {
    /// Starts the example `name` on `address`, with its data in `folder`.
    pub(crate) fn start(name: &str, address: &str, folder: &Path) -> Self {
        let mut command = command(name, address, folder);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut address).unwrap();
        Self {
            child,
            address: address.trim().to_owned(),
        }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(pid(self.child.id()), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have been killed already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn command(name: &str, address: &str, folder: &Path) -> Command {
    let mut command = Command::new(built(&format!("examples/{name}")));
    command.arg(address).arg(folder).stdin(Stdio::null());
    command
}

/// Has the example `name` refuse `folder` in one line that begins with what is `told`.
#[track_caller]
pub(crate) fn refused(name: &str, folder: &Path, told: &str) {
    let mut command = command(name, "127.0.0.1:0", folder);
    let Output { status, stderr, .. } = command.output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert!(!status.success(), "{text}");
    assert!(
        text.starts_with(&format!("{name}: local {name}: {told}")),
        "{text}"
    );
    assert_eq!(1, text.lines().count(), "{text}");
}

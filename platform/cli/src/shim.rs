//! Between `gantry` and a service: asks the kernel to kill the service when `gantry` dies, and for
//! small pages, then becomes the service.
//!
//! Both belong to the process that asks for them and survive `exec`, so asking has
//! to happen in the child. Between fork and exec that takes unsafe code; in a program of its
//! own it does not. `gantry` therefore starts itself, hidden, and this replaces itself by the
//! service: same process, same id.

use std::{
    ffi::OsString,
    os::unix::process::{CommandExt as _, parent_id},
    process::Command,
};

use rustix::{
    process::{Signal, set_parent_process_death_signal},
    thread::disable_transparent_huge_pages,
};

use crate::failure::Failure;

/// The hidden verb.
pub(crate) const VERB: &str = "run-child";

/// Becomes `command`, and dies with the process `parent`. Returns only what went wrong.
///
/// The kernel sends the signal when the parent's *thread* that started this process ends, which
/// is why `gantry up` starts processes from its main thread alone.
pub(crate) fn become_child(parent: u32, command: &[OsString]) -> Failure {
    let Some((program, arguments)) = command.split_first() else {
        return Failure::usage("no program to become");
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return Failure::failed(format!("ask for a signal at gantry's death: {error}"));
    }
    // Allocators ask for huge pages, which pays for one large process and costs tens of megabytes
    // in each of many small ones. A kernel that knows none of this is no reason not to start.
    let _ = disable_transparent_huge_pages(true);
    // It may have died before the line above.
    if parent_id() != parent {
        return Failure::failed("gantry is gone");
    }
    let error = Command::new(program).args(arguments).exec();
    Failure::failed(format!("start {}: {error}", program.display()))
}

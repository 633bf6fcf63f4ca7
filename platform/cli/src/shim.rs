//! Between `gantry` and a service: asks the kernel to kill the service when `gantry` dies, and for
//! small pages, then becomes the service.
//!
//! Both belong to the process that asks for them and survive `exec`, so asking has
//! to happen in the child. Between fork and exec that takes unsafe code; in a program of its
//! own it does not. `gantry` therefore starts itself, hidden, and this replaces itself by the
//! service: same process, same id.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::{
        fd::IntoRawFd as _,
        unix::process::{CommandExt as _, parent_id},
    },
    process::Command,
};

use rustix::{
    process::{Signal, set_parent_process_death_signal},
    thread::disable_transparent_huge_pages,
};

use crate::failure::Failure;

/// The hidden verb.
pub(crate) const VERB: &str = "run-child";

/// Its option that says that standard input is a socket to hand on.
pub(crate) const SOCKET: &str = "--socket";

/// Becomes `command`, and dies with the process `parent`; with `socket`, standard input is a socket
/// that the service is to listen at. Returns only what went wrong.
///
/// The kernel sends the signal when the parent's *thread* that started this process ends, which
/// is why `gantry up` starts processes from its main thread alone.
pub(crate) fn become_child(parent: u32, socket: bool, command: &[OsString]) -> Failure {
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
    let mut command = Command::new(program);
    command.args(arguments);
    if socket {
        match hand_on() {
            Ok(socket) => {
                command.env("LISTEN_FDS", "1");
                command.env("LISTEN_FDS_FIRST_FD", socket.to_string());
                command.env("LISTEN_PID", std::process::id().to_string());
            }
            Err(error) => return Failure::failed(format!("hand on a socket: {error}")),
        }
    }
    let error = command.exec();
    Failure::failed(format!("start {}: {error}", program.display()))
}

/// Moves standard input to where handed-on sockets are, and puts nothing in its place. Answers its
/// number there: usually 3, which is where those who are handed sockets look (`sd_listen_fds(3)`),
/// but what was open already may have that.
fn hand_on() -> io::Result<i32> {
    // A duplicate survives `exec`, and is the lowest number that is free.
    let socket = rustix::io::dup(rustix::stdio::stdin())?.into_raw_fd();
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(socket)
}

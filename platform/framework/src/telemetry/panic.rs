//! One log line per panic.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    panic::{self, PanicHookInfo},
    sync::Once,
};

use super::log::Writer;
use crate::call;

/// Replaces the report on standard error by one log line with the message and the place; with
/// `RUST_BACKTRACE` set also the way there. Nothing else of the payload is written, and of a panic
/// while a call is served not even the message, which may quote the request.
pub(super) fn log_panics(writer: Writer) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        panic::set_hook(Box::new(move |info| {
            let serving = call::is_current();
            report(info, serving);
            // The process may be about to end, and its last line is the one that matters. A call's
            // panic is caught, and other calls wait for this thread.
            if !serving {
                writer.flush();
            }
        }));
    });
}

fn report(info: &PanicHookInfo<'_>, serving: bool) {
    let message = (!serving).then(|| message(info));
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let location = info.location().map(tracing::field::display);
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(panic = message, location, thread, %backtrace, "panicked");
    } else {
        tracing::error!(panic = message, location, thread, "panicked");
    }
}

/// The message, where the payload is one; a payload of another type may hold anything.
fn message<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    info.payload_as_str().unwrap_or("(no message)")
}

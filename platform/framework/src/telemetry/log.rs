//! Log lines: text for people, JSON for machines.
//!
//! A line says when, how grave, where and what; inside a call also the call's method and its
//! position in its trace, from the call's context. Every field is cut at 1 KiB and has its control
//! characters escaped, so no caller can forge a line, colour a terminal or fill a disk.

mod field;
mod json;
mod text;
mod writer;

use std::{cell::RefCell, io::IsTerminal as _, time::SystemTime};

use tracing::{Event, Subscriber};
use tracing_subscriber::{Layer, layer};

use crate::call::{self, TraceContext};

pub(crate) use writer::Writer;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Shape {
    /// For people; in colour on a terminal.
    Text {
        /// With colours.
        colour: bool,
    },
    /// For machines: one JSON object per line.
    Json,
}

impl Shape {
    /// Text where a person watches, JSON where a program reads.
    pub(crate) fn auto() -> Self {
        if std::io::stdout().is_terminal() {
            Self::Text { colour: true }
        } else {
            Self::Json
        }
    }

    /// Text, in colour on a terminal.
    pub(crate) fn text() -> Self {
        Self::Text {
            colour: std::io::stdout().is_terminal(),
        }
    }
}

/// What is known of the surroundings of one event.
#[derive(Debug)]
struct Scene<'a> {
    time: SystemTime,
    event: &'a Event<'a>,
    call: Option<Call<'a>>,
}

/// The call an event belongs to.
#[derive(Debug)]
struct Call<'a> {
    method: &'static str,
    trace: &'a TraceContext,
}

/// Formats events and hands them to the writer; never waits.
#[derive(Debug)]
pub(crate) struct LogLayer {
    shape: Shape,
    service: String,
    writer: Writer,
}

impl LogLayer {
    pub(crate) fn new(shape: Shape, service: &str, writer: Writer) -> Self {
        Self {
            shape,
            service: service.to_owned(),
            writer,
        }
    }

    fn format(&self, event: &Event<'_>, line: &mut String) {
        call::with_current(|context| {
            let scene = Scene {
                time: now(),
                event,
                call: context.map(|context| Call {
                    method: context.method.full_name(),
                    trace: &context.trace,
                }),
            };
            match self.shape {
                Shape::Text { colour } => text::write(&scene, colour, line),
                Shape::Json => json::write(&scene, &self.service, line),
            }
        });
        line.push('\n');
    }
}

thread_local! {
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A buffer that grew beyond this for one long line is not kept.
const LINE_KEPT: usize = 8 * 1_024;

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        LINE.with(|line| {
            // A value that logs while it is formatted finds the buffer taken; its line gets its own.
            let mut own = String::new();
            let mut kept = line.try_borrow_mut().ok();
            let line = kept.as_deref_mut().unwrap_or(&mut own);
            line.clear();
            self.format(event, line);
            self.writer.write(line.as_bytes());
            line.shrink_to(LINE_KEPT);
        });
    }
}

/// Wall-clock time, for people and log stores; nothing is measured by it.
#[allow(clippy::disallowed_methods)]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests;

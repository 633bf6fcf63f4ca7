//! Lines for people: time, level and message in columns, then the fields.

use std::fmt::{self, Write as _};

use tracing::{
    Level,
    field::{Field, Visit},
};

use super::{Scene, field};
use crate::{names, status};

const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

/// Writes the line without its end.
pub(super) fn write(scene: &Scene<'_>, colour: bool, line: &mut String) {
    let paint = Paint { colour };
    let metadata = scene.event.metadata();
    let time = humantime::format_rfc3339_millis(scene.time).to_string();
    // The date is the same on every line a person looks at: `2026-11-23T21:08:18.123Z`.
    paint.write(line, DIM, time.get(11..23).unwrap_or(&time));
    line.push(' ');
    paint.write(
        line,
        colour_of(*metadata.level()),
        level_of(*metadata.level()),
    );
    line.push(' ');
    let mut fields = Fields {
        paint,
        message: String::new(),
        rest: String::new(),
        scratch: String::new(),
    };
    scene.event.record(&mut fields);
    let Fields { message, rest, .. } = fields;
    infallible(write!(line, "{message:<40}"));
    paint.write(line, DIM, &format!(" {}", metadata.target()));
    line.push_str(&rest);
    if let Some(call) = &scene.call {
        let (method, trace) = (names::field::LOG_RPC_METHOD, names::field::TRACE_ID);
        paint.write(
            line,
            DIM,
            &format!(
                " {method}={} {trace}={:032x}",
                call.method, call.trace.trace_id
            ),
        );
    }
}

#[derive(Clone, Copy)]
struct Paint {
    colour: bool,
}

impl Paint {
    fn write(self, line: &mut String, colour: &str, text: &str) {
        if self.colour {
            line.push_str(colour);
            line.push_str(text);
            line.push_str(RESET);
        } else {
            line.push_str(text);
        }
    }
}

fn level_of(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => " WARN",
        Level::INFO => " INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    }
}

fn colour_of(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

struct Fields {
    paint: Paint,
    message: String,
    rest: String,
    scratch: String,
}

impl Fields {
    fn add(&mut self, name: &str, value: &str) {
        let (value, more) = field::cut(value);
        if name == "message" && self.message.is_empty() {
            escape(value, false, &mut self.message);
            self.message.push_str(if more { field::CUT } else { "" });
            return;
        }
        self.paint.write(&mut self.rest, DIM, &format!(" {name}="));
        escape(value, true, &mut self.rest);
        self.rest.push_str(if more { field::CUT } else { "" });
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field.name(), &status::chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut scratch = std::mem::take(&mut self.scratch);
        field::format_cut(value, &mut scratch);
        self.add(field.name(), &scratch);
        self.scratch = scratch;
    }
}

/// Writes a value; one with spaces in it is quoted, so that it is seen where it ends.
fn escape(value: &str, quote: bool, out: &mut String) {
    let quote = quote && (value.is_empty() || value.contains([' ', '"', '=']));
    if quote {
        out.push('"');
    }
    for character in value.chars() {
        if field::is_unsafe(character) || (quote && character == '"') {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    if quote {
        out.push('"');
    }
}

fn infallible(written: fmt::Result) {
    written.expect("writing to a String does not fail");
}

//! One JSON object per line, with each key once.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};

use super::{Scene, field};
use crate::{names, status};

/// Writes the line without its end.
pub(super) fn write(scene: &Scene<'_>, service: &str, line: &mut String) {
    let metadata = scene.event.metadata();
    line.push_str("{\"timestamp\":\"");
    infallible(write!(
        line,
        "{}",
        humantime::format_rfc3339_micros(scene.time)
    ));
    line.push('"');
    let mut object = Object {
        line,
        names: vec!["timestamp"],
        scratch: String::new(),
    };
    object.string("level", metadata.level().as_str());
    object.string("service", service);
    object.string("target", metadata.target());
    if let Some(call) = &scene.call {
        object.string(names::field::LOG_RPC_METHOD, call.method);
        object.key(names::field::TRACE_ID);
        infallible(write!(object.line, "\"{:032x}\"", call.trace.trace_id));
        object.key(names::field::SPAN_ID);
        infallible(write!(object.line, "\"{:016x}\"", call.trace.span_id));
    }
    scene.event.record(&mut object);
    line.push('}');
}

struct Object<'a> {
    line: &'a mut String,
    names: Vec<&'static str>,
    scratch: String,
}

impl Object<'_> {
    /// Opens an entry. A name that was there before gets a number: libraries log fields called
    /// `message` beside the message, and a key that comes twice is no JSON to strict readers.
    fn key(&mut self, name: &'static str) {
        let before = self.names.iter().filter(|seen| **seen == name).count();
        self.names.push(name);
        self.line.push_str(",\"");
        escape(name, self.line);
        if before > 0 {
            infallible(write!(self.line, "#{}", before + 1));
        }
        self.line.push_str("\":");
    }

    fn string(&mut self, name: &'static str, value: &str) {
        self.key(name);
        self.line.push('"');
        let (value, more) = field::cut(value);
        escape(value, self.line);
        if more {
            self.line.push_str(field::CUT);
        }
        self.line.push('"');
    }

    fn plain(&mut self, name: &'static str, value: impl fmt::Display) {
        self.key(name);
        infallible(write!(self.line, "{value}"));
    }
}

impl Visit for Object<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.string(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.plain(field.name(), value);
        } else {
            self.string(field.name(), &value.to_string());
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.string(field.name(), &status::chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut scratch = std::mem::take(&mut self.scratch);
        field::format_cut(value, &mut scratch);
        self.string(field.name(), &scratch);
        self.scratch = scratch;
    }
}

fn escape(text: &str, line: &mut String) {
    for character in text.chars() {
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            // All of these are within the sixteen bits of one escape.
            character if field::is_unsafe(character) => {
                infallible(write!(line, "\\u{:04x}", u32::from(character)));
            }
            character => line.push(character),
        }
    }
}

fn infallible(written: fmt::Result) {
    written.expect("writing to a String does not fail");
}

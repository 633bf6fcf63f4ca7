//! Requests as people write them: JSON with placeholders, framed once where nothing changes.
//!
//! A placeholder may stand for a number as well as inside a string; see `text`.

use std::ops::Range;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor};
use serde::de::DeserializeSeed as _;
use serde_json::Value;

use super::{
    exchange::Volume,
    text::{Marked, Text, Values},
};
use crate::failure::nearest;

/// The requests of one call.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    /// The same for every call.
    Framed(Bytes, Volume),
    /// Written anew for every call.
    Filled(Template),
}

/// A JSON text with places to fill.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    text: Text,
    shape: Shape,
}

/// What a text is read as.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// The type of each message.
    pub(crate) descriptor: MessageDescriptor,
    /// Whether a call takes a stream of them.
    pub(crate) stream: bool,
}

/// What is wrong with a text, and where in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The line, from 1.
    pub(crate) line: usize,
    pub(crate) why: String,
}

/// Reads the requests of calls that are taken in turn.
///
/// Values follow each other, as lines or otherwise: one for each call. A method that takes a
/// stream gets all of them in each call; where every value is an array, each array is a call.
///
/// `names` are the values that placeholders may name.
pub(crate) fn read(text: &str, shape: &Shape, names: &[String]) -> Result<Vec<Payload>, Fault> {
    let at = |offset: usize, why: String| Fault {
        line: 1 + text[..offset].matches('\n').count(),
        why,
    };
    let marked = Marked::read(text, names).map_err(|unknown| at(unknown.offset, unknown.why))?;
    let probe = marked.probe();
    let mut values = serde_json::Deserializer::from_str(&probe).into_iter::<Value>();
    let mut calls: Vec<(Range<usize>, Value)> = Vec::new();
    let mut start = 0;
    while let Some(value) = values.next() {
        let value = value.map_err(|error| Fault {
            line: error.line().max(1),
            why: format!("no JSON: {error}"),
        })?;
        let blank = probe[start..].len() - probe[start..].trim_start().len();
        calls.push((start + blank..values.byte_offset(), value));
        start = values.byte_offset();
    }
    if shape.stream && !calls.iter().all(|(_, value)| value.is_array()) {
        calls = vec![(0..text.len(), Value::Array(take_values(calls)))];
    }
    if shape.stream && calls.is_empty() {
        return Ok(vec![Payload::Framed(Bytes::new(), Volume::default())]);
    }
    if calls.is_empty() {
        return Err(at(0, "no request".to_owned()));
    }
    let payload = |(range, value): (Range<usize>, Value)| {
        let (bytes, volume) = shape.frame(value).map_err(|why| at(range.start, why))?;
        Ok(match marked.part(&range) {
            None => Payload::Framed(bytes, volume),
            Some(text) => Payload::Filled(Template {
                text,
                shape: shape.clone(),
            }),
        })
    };
    calls.into_iter().map(payload).collect()
}

fn take_values(calls: Vec<(Range<usize>, Value)>) -> Vec<Value> {
    calls.into_iter().map(|(_, value)| value).collect()
}

impl Template {
    /// The requests of call `number`.
    pub(crate) fn fill(&self, number: u64, values: &Values) -> Result<(Bytes, Volume), String> {
        let text = self.text.fill_json(number, values);
        let values = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        let values: Result<Vec<_>, _> = values.collect();
        let mut values = values.map_err(|error| format!("request of call {number}: {error}"))?;
        let value = match (values.len(), values.pop()) {
            (1, Some(value)) => value,
            (_, last) => {
                values.extend(last);
                Value::Array(values)
            }
        };
        self.shape
            .frame(value)
            .map_err(|error| format!("request of call {number}: {error}"))
    }
}

impl Shape {
    /// The messages of one call as they go over the wire. A stream's are an array, or one alone.
    fn frame(&self, value: Value) -> Result<(Bytes, Volume), String> {
        let values = match value {
            Value::Array(values) if self.stream => values,
            value => vec![value],
        };
        let mut wire = BytesMut::new();
        let mut volume = Volume::default();
        for value in values {
            let message = self.message(&value)?;
            let length = message.encoded_len();
            wire.put_u8(0);
            wire.put_u32(u32::try_from(length).map_err(|_| "a request over 4 GiB".to_owned())?);
            message
                .encode(&mut wire)
                .expect("a buffer that grows takes all");
            volume.messages += 1;
            volume.bytes += u64::try_from(length).unwrap_or(u64::MAX);
        }
        Ok((wire.freeze(), volume))
    }

    fn message(&self, value: &Value) -> Result<DynamicMessage, String> {
        let name = self.descriptor.full_name();
        if let Some(fault) = unknown_field(value, &self.descriptor, "") {
            return Err(fault);
        }
        let message = self.descriptor.clone().deserialize(value);
        message.map_err(|error| match value {
            Value::Array(_) => {
                format!("an array for one {name}; write one request per line: {error}")
            }
            _ => format!("{name}: {error}"),
        })
    }
}

/// A field of `value` that its message does not have, with the one that was probably meant.
fn unknown_field(value: &Value, descriptor: &MessageDescriptor, path: &str) -> Option<String> {
    let Value::Object(fields) = value else {
        return None;
    };
    // These have a JSON of their own.
    if descriptor.full_name().starts_with("google.protobuf.") {
        return None;
    }
    fields.iter().find_map(|(key, value)| {
        let place = format!("{path}{key}");
        let field = descriptor.get_field_by_json_name(key);
        let Some(field) = field.or_else(|| descriptor.get_field_by_name(key)) else {
            let known: Vec<_> = descriptor.fields().collect();
            let near = nearest(
                key,
                known.iter().map(prost_reflect::FieldDescriptor::json_name),
            );
            let name = descriptor.full_name();
            // An extension is written in brackets, and known to the message alone.
            let unknown = !key.starts_with('[');
            return unknown.then(|| format!("{place}: {name} has no field \"{key}\"{near}"));
        };
        let Kind::Message(inner) = field.kind() else {
            return None;
        };
        match value {
            _ if field.is_map() => None,
            Value::Array(list) => list.iter().enumerate().find_map(|(index, value)| {
                unknown_field(value, &inner, &format!("{place}[{index}]."))
            }),
            value => unknown_field(value, &inner, &format!("{place}.")),
        }
    })
}

#[cfg(test)]
mod tests;

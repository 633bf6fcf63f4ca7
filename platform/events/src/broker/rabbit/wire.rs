//! A message as AMQP 0-9-1 carries it, after the binding of CloudEvents for AMQP 1.0, and back.
//!
//! Headers of ours keep their name; all others are attributes of the event, with the prefix of the
//! binding, but for `datacontenttype`, which is the property content type. Beside them are the properties that tools of RabbitMQ show: type, message id, content type,
//! time. What others publish without our headers is read as well as it can be.

use std::fmt::Write as _;

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, LongString, ShortString},
};

use crate::{
    Message,
    broker::Headers,
    envelope::read_rfc3339,
    headers::{CLOUD_EVENTS, DATACONTENTTYPE, ID, LEFT_OUT, SUBJECT, TIME, TYPE},
};

/// What attributes of the event begin with.
const PREFIX: &str = "cloudEvents:";
/// What they may begin with as well.
const PREFIX_OTHER: &str = "cloudEvents_";
/// What headers of ours begin with.
const OURS: &str = "gantry-";
/// The key of the message.
const KEY: &str = "gantry-key";
/// What headers of RabbitMQ begin with, and some of its plugins'.
const OF_BROKER: &str = "x-";
/// Its list of the queues in which a message has died.
const DEATHS: &str = "x-death";
/// Where it stands among dead letters; the prefix keeps it from those who consume.
const PLACE: &str = "x-gantry-place";
/// How often a message came back to its queue.
const RETURNS: &str = "x-delivery-count";

/// Longest name that a header has in AMQP, in bytes.
const NAME_MAX: usize = 255;

/// Most bytes of headers that a message of ours has. All of them are one frame, and a larger one than
/// `frame_max` (128 KiB) ends the connection.
const HEADERS_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of its key, many times as many as any key has that can be kept.
const KEY_BYTES_MAX: usize = 16 * 1024;
/// What a header takes besides its name and value: lengths and a type, and the prefix.
const HEADER_BYTES: usize = 1 + 1 + 4 + PREFIX.len();

/// Makes the properties of a message: on disk, and with all that is known of it; with its place, where it
/// becomes a dead letter.
pub(super) fn properties(message: &Message, place: Option<u64>) -> BasicProperties {
    let headers = &message.headers;
    let mut table = FieldTable::default();
    let mut insert = |name: &str, value: &str| {
        if name == DATACONTENTTYPE {
            return;
        }
        let name = if name.starts_with(OURS) {
            short(name)
        } else {
            short_of(format!("{PREFIX}{name}"))
        };
        table.insert(name, text(value));
    };
    let mut left_out = 0;
    if headers.iter().map(bytes).sum::<usize>() <= HEADERS_BYTES_MAX {
        for (name, value) in headers {
            insert(name, value);
        }
    } else {
        let fitting = fitting(headers);
        left_out = headers.len() - fitting.len();
        for (name, value) in fitting {
            insert(name, value);
        }
    }
    if left_out > 0 {
        table.insert(LEFT_OUT.into(), text(&left_out.to_string()));
    }
    let key_end = message.key.floor_char_boundary(KEY_BYTES_MAX);
    table.insert(KEY.into(), text(&message.key[..key_end]));
    if let Some(place) = place.and_then(|place| i64::try_from(place).ok()) {
        table.insert(PLACE.into(), AMQPValue::LongLongInt(place));
    }
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_type(short(&message.topic))
        .with_headers(table);
    let properties = match headers.get(ID) {
        Some(id) => properties.with_message_id(short(id)),
        None => properties,
    };
    let properties = match headers.get(DATACONTENTTYPE) {
        Some(kind) => properties.with_content_type(short(kind)),
        None => properties,
    };
    let seconds = headers.get(TIME).and_then(|time| seconds(time));
    match seconds {
        Some(seconds) => properties.with_timestamp(seconds),
        None => properties,
    }
}

/// What a header takes of a message's room.
fn bytes((name, value): (&String, &String)) -> usize {
    name.len() + value.len() + HEADER_BYTES
}

/// Those of too many `headers` that a message has room for: what we and CloudEvents call for comes first,
/// and the short before the long.
fn fitting(headers: &Headers) -> Vec<(&String, &String)> {
    let mut all: Vec<_> = headers.iter().collect();
    all.sort_by_key(|header| {
        let name = header.0.as_str();
        let is_known = name.starts_with(OURS) || CLOUD_EVENTS.contains(&name);
        (!is_known, bytes(*header))
    });
    // Room for how many are left out: a copy of it leaves out no more.
    let mut room = HEADERS_BYTES_MAX - 64;
    all.retain(|header| {
        let left = room.checked_sub(bytes(*header));
        room = left.unwrap_or(room);
        left.is_some()
    });
    all
}

/// A message as it was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) message: Message,
    /// Whether it came by a queue before: one that it waited in, or this one.
    pub(super) came_before: bool,
    /// Its place among dead letters, where somebody made it one.
    pub(super) place: Option<u64>,
    /// What RabbitMQ says of why it made it a dead letter.
    pub(super) death: Option<Death>,
}

/// How a message died, by RabbitMQ.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Death {
    pub(super) reason: String,
    /// Seconds since 1970.
    pub(super) time: u64,
}

/// Reads a message.
pub(super) fn read(properties: &BasicProperties, routing_key: &str, body: Vec<u8>) -> Read {
    let empty = FieldTable::default();
    let table = properties.headers().as_ref().unwrap_or(&empty).inner();
    let mut headers = Headers::new();
    let mut key = None;
    for (name, value) in table {
        let name = name.as_str();
        if name == KEY {
            key = spelt(value);
        } else if !name.starts_with(OF_BROKER)
            && let Some(value) = spelt(value)
        {
            let stripped = name.strip_prefix(PREFIX);
            let stripped = stripped.or_else(|| name.strip_prefix(PREFIX_OTHER));
            headers.insert(stripped.unwrap_or(name).to_lowercase(), value);
        }
    }
    if let Some(kind) = properties.content_type() {
        headers.insert(DATACONTENTTYPE.to_owned(), kind.as_str().to_owned());
    }
    let key = key.or_else(|| headers.get(SUBJECT).cloned());
    let kind = properties
        .kind()
        .as_ref()
        .map(|kind| kind.as_str().to_owned());
    let topic = kind.or_else(|| headers.get(TYPE).cloned()).or_else(|| {
        routing_key
            .rsplit_once('.')
            .map(|(topic, _)| topic.to_owned())
    });
    Read {
        message: Message {
            topic: topic.unwrap_or_default(),
            key: key.unwrap_or_default(),
            headers,
            body: body.into(),
        },
        place: table.get(PLACE).and_then(place),
        came_before: table.contains_key(DEATHS) || table.contains_key(RETURNS),
        death: table.get(DEATHS).and_then(death),
    }
}

fn place(value: &AMQPValue) -> Option<u64> {
    match value {
        AMQPValue::LongLongInt(place) => u64::try_from(*place).ok(),
        _ => None,
    }
}

/// The last death in the list of them, which is the first there.
fn death(deaths: &AMQPValue) -> Option<Death> {
    let AMQPValue::FieldArray(deaths) = deaths else {
        return None;
    };
    let AMQPValue::FieldTable(last) = deaths.as_slice().first()? else {
        return None;
    };
    let last = last.inner();
    let AMQPValue::Timestamp(time) = last.get("time")? else {
        return None;
    };
    Some(Death {
        reason: spelt(last.get("reason")?)?,
        time: *time,
    })
}

/// A value as text; none where it has no such thing.
fn spelt(value: &AMQPValue) -> Option<String> {
    let mut text = String::new();
    let written = match value {
        AMQPValue::LongString(value) => {
            return Some(String::from_utf8_lossy(value.as_bytes()).into_owned());
        }
        AMQPValue::ShortString(value) => return Some(value.as_str().to_owned()),
        AMQPValue::Boolean(value) => write!(text, "{value}"),
        AMQPValue::ShortShortInt(value) => write!(text, "{value}"),
        AMQPValue::ShortShortUInt(value) => write!(text, "{value}"),
        AMQPValue::ShortInt(value) => write!(text, "{value}"),
        AMQPValue::ShortUInt(value) => write!(text, "{value}"),
        AMQPValue::LongInt(value) => write!(text, "{value}"),
        AMQPValue::LongUInt(value) => write!(text, "{value}"),
        AMQPValue::LongLongInt(value) => write!(text, "{value}"),
        AMQPValue::Timestamp(value) => write!(text, "{value}"),
        _ => return None,
    };
    written.ok().map(|()| text)
}

/// Seconds since 1970 of a time as CloudEvents have it.
fn seconds(time: &str) -> Option<u64> {
    u64::try_from(read_rfc3339(time)?.seconds()).ok()
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text.as_bytes()))
}

/// A text as AMQP has short ones; what is longer is cut, as these are for people to look at.
fn short(text: &str) -> ShortString {
    let end = text.floor_char_boundary(NAME_MAX);
    text[..end].into()
}

fn short_of(mut text: String) -> ShortString {
    text.truncate(text.floor_char_boundary(NAME_MAX));
    text.into()
}

#[cfg(test)]
mod tests;

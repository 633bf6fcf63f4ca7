//! What is known of an event beside its body, as headers of a message and back.

use std::{collections::BTreeMap, fmt, str::FromStr};

use gantry::{
    call::{
        TraceContext,
        trace::{TRACEPARENT, TRACESTATE},
    },
    contract::prost_types,
};
use gantry_store::Timestamp;
use uuid::Uuid;

use crate::{Message, headers};

/// What is known of an event beside its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Its own identifier, of version 7.
    pub id: Uuid,
    /// Whose event it is, as in `/orders`.
    pub source: String,
    /// Its number among those of its source and key, from 1 without gaps.
    pub sequence: u64,
    /// When it came about, by the clock of its source.
    pub time: Timestamp,
    /// The trace of the call that it came about in, as the header of that name; none outside of calls.
    pub traceparent: Option<String>,
    /// What vendors add to that.
    pub tracestate: Option<String>,
}

/// A message that is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the header {header} is not there, or is none")]
pub struct EnvelopeError {
    /// Which header.
    pub header: &'static str,
}

impl Envelope {
    /// The headers of a message about `topic` with the key `key`.
    #[must_use]
    pub fn headers(&self, topic: &str, key: &str) -> BTreeMap<String, String> {
        let fixed = [
            (headers::ID, self.id.to_string()),
            (headers::SOURCE, self.source.clone()),
            (headers::TYPE, topic.to_owned()),
            (headers::SPECVERSION, headers::SPECVERSION_VALUE.to_owned()),
            (headers::TIME, rfc3339(self.time)),
            (headers::SUBJECT, key.to_owned()),
            (headers::DATASCHEMA, schema(topic)),
            (
                headers::DATACONTENTTYPE,
                headers::DATACONTENTTYPE_VALUE.to_owned(),
            ),
            (headers::SEQUENCE, self.sequence.to_string()),
            (
                headers::SEQUENCETYPE,
                headers::SEQUENCETYPE_VALUE.to_owned(),
            ),
        ];
        let trace = [
            (headers::TRACEPARENT, self.traceparent.clone()),
            (headers::TRACESTATE, self.tracestate.clone()),
        ];
        let trace = trace.into_iter().filter_map(|(name, it)| Some((name, it?)));
        let all = fixed.into_iter().chain(trace);
        all.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Reads the headers of a message.
    ///
    /// # Errors
    ///
    /// If one that every event has is not there, or is not what it should be.
    pub fn read(message: &Message) -> Result<Self, EnvelopeError> {
        let trace = |name: &str| message.headers.get(name).cloned();
        Ok(Self {
            id: parsed(message, headers::ID)?,
            source: parsed(message, headers::SOURCE)?,
            sequence: parsed(message, headers::SEQUENCE)?,
            time: read_rfc3339(&parsed::<String>(message, headers::TIME)?).ok_or(
                EnvelopeError {
                    header: headers::TIME,
                },
            )?,
            traceparent: trace(headers::TRACEPARENT),
            tracestate: trace(headers::TRACESTATE),
        })
    }
}

fn parsed<T: FromStr>(message: &Message, header: &'static str) -> Result<T, EnvelopeError> {
    let value = message.headers.get(header);
    let value = value.and_then(|value| value.parse().ok());
    value.ok_or(EnvelopeError { header })
}

/// A point in time as headers have it.
#[must_use]
pub fn rfc3339(time: Timestamp) -> String {
    prost_types::Timestamp::from(time).to_string()
}

/// Reads what [`rfc3339`] writes, and whatever else is RFC 3339; none where it is not.
#[must_use]
pub fn read_rfc3339(text: &str) -> Option<Timestamp> {
    let time = prost_types::Timestamp::from_str(text).ok()?;
    let micros = time.seconds.checked_mul(1_000_000)?;
    let micros = micros.checked_add(i64::from(time.nanos / 1_000))?;
    Some(Timestamp::from_micros(micros))
}

/// The schema of a topic: its name, and the number in the last part of its package, as in
/// `protobuf:shop.orders.v1.OrderPlaced/1`; 1 where there is none.
fn schema(topic: &str) -> String {
    let version = topic.rsplit('.').nth(1).and_then(|part| {
        let digits = part.strip_prefix('v')?;
        let end = digits.find(|it: char| !it.is_ascii_digit());
        let digits = &digits[..end.unwrap_or(digits.len())];
        (!digits.is_empty()).then_some(digits)
    });
    format!("protobuf:{topic}/{}", version.unwrap_or("1"))
}

/// A position in a trace, as headers have it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Trace {
    pub(crate) parent: Option<String>,
    pub(crate) state: Option<String>,
}

impl Trace {
    pub(crate) fn of(position: Option<TraceContext>) -> Self {
        let Some(position) = position else {
            return Self::default();
        };
        let mut map = http::HeaderMap::new();
        position.inject(&mut map);
        let text = |name| Some(map.get(name)?.to_str().ok()?.to_owned());
        Self {
            parent: text(&TRACEPARENT),
            state: text(&TRACESTATE),
        }
    }
}

impl fmt::Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.id, self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            id: Uuid::from_u128(7),
            source: "/orders".to_owned(),
            sequence: 3,
            time: Timestamp::from_micros(1_700_000_000_123_456),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            tracestate: None,
        }
    }

    fn message() -> Message {
        let topic = "shop.orders.v1.OrderPlaced";
        Message {
            topic: topic.to_owned(),
            key: "o-1".to_owned(),
            headers: envelope().headers(topic, "o-1"),
            body: bytes::Bytes::new(),
        }
    }

    /// Goal: what is written is read back, and is spelled as CloudEvents wants it.
    /// Method: an event there and back; its headers.
    #[test]
    fn headers_are_read_back() {
        let message = message();
        assert_eq!(Ok(envelope()), Envelope::read(&message));
        for (name, value) in [
            ("specversion", "1.0"),
            ("type", "shop.orders.v1.OrderPlaced"),
            ("dataschema", "protobuf:shop.orders.v1.OrderPlaced/1"),
            ("time", "2023-11-14T22:13:20.123456Z"),
            ("subject", "o-1"),
            ("sequence", "3"),
            ("sequencetype", "Integer"),
        ] {
            assert_eq!(value, message.headers[name], "{name}");
        }
        let known = |name: &String| headers::CLOUD_EVENTS.contains(&&**name);
        assert!(message.headers.keys().all(known));
    }

    /// Goal: what is none of ours is told by the header that is wrong.
    /// Method: each header missing, and each with nonsense.
    #[test]
    fn foreign_messages_are_told() {
        for header in [headers::ID, headers::TIME, headers::SEQUENCE] {
            for value in [None, Some("-1"), Some("")] {
                let mut message = message();
                message.headers.remove(header);
                let value = value.map(|it| (header.to_owned(), it.to_owned()));
                message.headers.extend(value);
                let refused = Err(EnvelopeError { header });
                assert_eq!(refused, Envelope::read(&message), "{header}");
            }
        }
    }

    /// Goal: a schema's version is that of its package.
    /// Method: packages with and without one.
    #[test]
    fn schemas_have_the_version_of_their_package() {
        for (topic, version) in [
            ("shop.orders.v1.OrderPlaced", "1"),
            ("shop.orders.v12.OrderPlaced", "12"),
            ("shop.orders.v2beta1.OrderPlaced", "2"),
            ("shop.views.OrderPlaced", "1"),
            ("OrderPlaced", "1"),
        ] {
            assert_eq!(format!("protobuf:{topic}/{version}"), schema(topic));
        }
    }
}

//! Names of the headers of a message, in one place.
//!
//! The first are the attributes of [CloudEvents] without prefix; on AMQP they have one. The others are
//! ours, and begin with `gantry-`. Messages are in binary mode: attributes are headers, the body is the
//! event alone. There is no binding for AMQP 0-9-1; the prefix is that of the one for AMQP 1.0.
//!
//! [CloudEvents]: https://github.com/cloudevents/spec

/// The event's own identifier, a UUID of version 7: who has seen it has seen the event.
pub const ID: &str = "id";
/// Whose event it is: the service with a slash before it, as in `/orders`.
pub const SOURCE: &str = "source";
/// What it is about: the topic.
pub const TYPE: &str = "type";
/// The version of CloudEvents, [`SPECVERSION_VALUE`].
pub const SPECVERSION: &str = "specversion";
/// When it came about, in RFC 3339.
pub const TIME: &str = "time";
/// What it happened to: the key.
pub const SUBJECT: &str = "subject";
/// A URI for the schema: `protobuf:`, the topic, and the version of its package behind a slash.
pub const DATASCHEMA: &str = "dataschema";
/// How the body is encoded: [`DATACONTENTTYPE_VALUE`].
pub const DATACONTENTTYPE: &str = "datacontenttype";
/// Its number among the events of its source and key, in decimal: from 1, without gaps.
pub const SEQUENCE: &str = "sequence";
/// How sequences are compared, [`SEQUENCETYPE_VALUE`]: as numbers, and not as texts.
pub const SEQUENCETYPE: &str = "sequencetype";
/// The trace of the call that it came about in.
pub const TRACEPARENT: &str = "traceparent";
/// What vendors add to that.
pub const TRACESTATE: &str = "tracestate";

/// The attributes of CloudEvents and of its extensions.
pub const CLOUD_EVENTS: [&str; 12] = [
    ID,
    SOURCE,
    TYPE,
    SPECVERSION,
    TIME,
    SUBJECT,
    DATASCHEMA,
    DATACONTENTTYPE,
    SEQUENCE,
    SEQUENCETYPE,
    TRACEPARENT,
    TRACESTATE,
];

/// What [`SPECVERSION`] says.
pub const SPECVERSION_VALUE: &str = "1.0";
/// What [`DATACONTENTTYPE`] says.
pub const DATACONTENTTYPE_VALUE: &str = "application/protobuf";
/// What [`SEQUENCETYPE`] says.
pub const SEQUENCETYPE_VALUE: &str = "Integer";

/// How many attempts of a consumer were made before, in decimal; none where it is absent.
pub const ATTEMPT: &str = "gantry-attempt";
/// When its consumer has seen it first, in RFC 3339.
pub const FIRST_SEEN: &str = "gantry-first-seen";
/// That it waits for earlier events of its key, and not because it failed.
pub const HOLD: &str = "gantry-hold";

/// Why it is a dead letter, as one of a few words.
pub const DEAD_REASON: &str = "gantry-dead-reason";
/// What the last attempt failed with, for people.
pub const DEAD_ERROR: &str = "gantry-dead-error";
/// How many attempts there were, in decimal.
pub const DEAD_ATTEMPTS: &str = "gantry-dead-attempts";
/// Whose dead letter it is.
pub const DEAD_GROUP: &str = "gantry-dead-group";
/// When it became one, in RFC 3339.
pub const DEAD_TIME: &str = "gantry-dead-time";
/// How many headers of others it has no room for any more, in decimal.
pub const LEFT_OUT: &str = "gantry-left-out";
/// How often somebody has put it back into its queue, in decimal.
pub const REDRIVEN: &str = "gantry-redriven";

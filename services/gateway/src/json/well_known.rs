//! The types of google.protobuf that have a form of their own in JSON.

use bytes::Bytes;
use gantry::contract::prost_types;
use prost::Message as _;
use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, Value,
};
use serde::de::value::{Error, StrDeserializer};

use super::{
    node::Node,
    read::{At, Fault},
    scalar,
};

/// How a message is read.
pub(crate) enum Read {
    /// It is, or it cannot be.
    Done(Result<DynamicMessage, Fault>),
    /// As one of any type.
    Any(Vec<(String, Node)>),
    /// As the value of its only field.
    Wrapper(FieldDescriptor, Node),
    /// Field by field.
    Ordinary(Node),
}

/// Messages inside of each other in a Struct; each level of JSON is up to three.
const STRUCT_DEPTH_MAX: usize = 90;

/// How `node` is to be read as `descriptor`.
pub(crate) fn read(descriptor: &MessageDescriptor, node: Node, at: &At<'_>) -> Read {
    let Some(name) = short(descriptor) else {
        return Read::Ordinary(node);
    };
    match (name, node) {
        ("Any", Node::Object(object)) => Read::Any(object),
        ("Any", other) => Read::Done(Err(expected(at, "an object with \"@type\"", &other))),
        ("Timestamp" | "Duration" | "FieldMask", Node::String(text)) => {
            Read::Done(from_text(descriptor, &text).map_err(|text| at.fault(text)))
        }
        (name @ ("Timestamp" | "Duration" | "FieldMask"), other) => {
            Read::Done(Err(expected(at, form(name), &other)))
        }
        ("Struct", Node::Object(object)) => {
            Read::Done(structure(object, 1, at).and_then(|it| transcode(descriptor, &it, at)))
        }
        ("Struct", other) => Read::Done(Err(expected(at, "an object", &other))),
        ("ListValue", Node::List(items)) => {
            Read::Done(list(items, 1, at).and_then(|it| transcode(descriptor, &it, at)))
        }
        ("ListValue", other) => Read::Done(Err(expected(at, "an array", &other))),
        ("Value", node) => {
            Read::Done(value(node, 1, at).and_then(|it| transcode(descriptor, &it, at)))
        }
        (name, node) if is_wrapper(name) => match descriptor.get_field_by_name("value") {
            Some(field) if !matches!(field.kind(), Kind::Message(_) | Kind::Enum(_)) => {
                Read::Wrapper(field, node)
            }
            _ => Read::Ordinary(node),
        },
        (_, node) => Read::Ordinary(node),
    }
}

/// The name in google.protobuf.
fn short(descriptor: &MessageDescriptor) -> Option<&str> {
    descriptor.full_name().strip_prefix("google.protobuf.")
}

fn is_wrapper(name: &str) -> bool {
    const WRAPPED: [&str; 9] = [
        "Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes",
    ];
    let wrapped = name.strip_suffix("Value");
    wrapped.is_some_and(|it| WRAPPED.contains(&it))
}

/// Whether JSON has a form of its own for it.
pub(crate) fn is_special(descriptor: &MessageDescriptor) -> bool {
    let name = short(descriptor);
    name.is_some_and(|name| {
        let others = [
            "Any",
            "Timestamp",
            "Duration",
            "FieldMask",
            "Struct",
            "Value",
            "ListValue",
            "Empty",
        ];
        is_wrapper(name) || others.contains(&name)
    })
}

/// Whether one text stands for all of it, so that it can be in a path or a query.
pub(crate) fn is_text(descriptor: &MessageDescriptor) -> bool {
    let name = short(descriptor);
    name.is_some_and(|it| is_wrapper(it) || ["Timestamp", "Duration", "FieldMask"].contains(&it))
}

/// Whether null is a value of it, and not the lack of one.
pub(crate) fn takes_null(kind: &Kind) -> bool {
    match kind {
        Kind::Message(message) => short(message) == Some("Value"),
        Kind::Enum(kind) => is_null_value(kind),
        _ => false,
    }
}

/// Whether it is the enum whose only value is null.
pub(crate) fn is_null_value(descriptor: &EnumDescriptor) -> bool {
    descriptor.full_name() == "google.protobuf.NullValue"
}

/// A message that one text stands for.
///
/// # Errors
///
/// What is wrong with the text.
pub(crate) fn from_text(
    descriptor: &MessageDescriptor,
    text: &str,
) -> Result<DynamicMessage, String> {
    let name = short(descriptor).unwrap_or_default();
    if is_wrapper(name)
        && let Some(field) = descriptor.get_field_by_name("value")
    {
        let mut message = DynamicMessage::new(descriptor.clone());
        message.set_field(&field, scalar::from_text(&field.kind(), text)?);
        return Ok(message);
    }
    let read = DynamicMessage::deserialize(descriptor.clone(), StrDeserializer::<Error>::new(text));
    read.map_err(|error| {
        let (form, text) = (form(name), scalar::shown(text));
        format!("expected {form}, found `{text}`: {error}")
    })
}

fn form(name: &str) -> &'static str {
    match name {
        "Timestamp" => "a time as in \"2026-01-31T12:00:00Z\"",
        "Duration" => "a duration as in \"1.5s\"",
        _ => "names of fields as in \"a,b.c\"",
    }
}

fn expected(at: &At<'_>, expected: &str, found: &Node) -> Fault {
    at.fault(format!("expected {expected}, found {}", found.kind()))
}

fn transcode(
    descriptor: &MessageDescriptor,
    message: &impl prost::Message,
    at: &At<'_>,
) -> Result<DynamicMessage, Fault> {
    let mut dynamic = DynamicMessage::new(descriptor.clone());
    let transcoded = dynamic.transcode_from(message);
    transcoded.map_err(|error| at.fault(format!("its contract is not the known one: {error}")))?;
    Ok(dynamic)
}

fn structure(
    object: Vec<(String, Node)>,
    depth: usize,
    at: &At<'_>,
) -> Result<prost_types::Struct, Fault> {
    let mut fields = std::collections::BTreeMap::new();
    for (key, node) in object {
        fields.insert(key, value(node, depth + 2, at)?);
    }
    Ok(prost_types::Struct { fields })
}

fn list(items: Vec<Node>, depth: usize, at: &At<'_>) -> Result<prost_types::ListValue, Fault> {
    let values = items.into_iter().map(|item| value(item, depth + 1, at));
    Ok(prost_types::ListValue {
        values: values.collect::<Result<_, _>>()?,
    })
}

fn value(node: Node, depth: usize, at: &At<'_>) -> Result<prost_types::Value, Fault> {
    use prost_types::value::Kind;
    if depth > STRUCT_DEPTH_MAX {
        return Err(at.fault("is nested too deep"));
    }
    let kind = match node {
        Node::Null => Kind::NullValue(0),
        Node::Bool(value) => Kind::BoolValue(value),
        Node::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Node::String(text) => Kind::StringValue(text),
        Node::List(items) => Kind::ListValue(list(items, depth + 1, at)?),
        Node::Object(object) => Kind::StructValue(structure(object, depth, at)?),
    };
    Ok(prost_types::Value { kind: Some(kind) })
}

/// `message` as an Any; none where `descriptor` is not what it should be.
pub(crate) fn any(
    descriptor: &MessageDescriptor,
    url: String,
    message: &DynamicMessage,
) -> Option<DynamicMessage> {
    let (type_url, value) = (
        descriptor.get_field_by_name("type_url")?,
        descriptor.get_field_by_name("value")?,
    );
    if type_url.kind() != Kind::String || value.kind() != Kind::Bytes {
        return None;
    }
    let mut any = DynamicMessage::new(descriptor.clone());
    any.set_field(&type_url, Value::String(url));
    any.set_field(&value, Value::Bytes(Bytes::from(message.encode_to_vec())));
    Some(any)
}

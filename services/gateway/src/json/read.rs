//! From JSON to messages, by the rules protobuf has for it, strictly.
//!
//! Unknown fields, a field twice, two of a oneof and values out of range are refused, with the name
//! of the field. What a message may be read leniently for (base64 of both alphabets, numbers as
//! strings, names of fields in both spellings) is what those rules say.

use std::fmt;

use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey,
    MessageDescriptor, ReflectMessage as _, Value,
};

use super::{node::Node, scalar, well_known};

/// Messages inside of each other; more are refused by those who read them as well.
const DEPTH_MAX: usize = 100;

/// Why JSON is not the message it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The field, by the names of the contract; empty where it is the whole message.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) text: String,
}

/// Where in a message one is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
    step: Step<'a>,
    up: Option<&'a At<'a>>,
    depth: usize,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Whole,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl At<'_> {
    /// At the message itself.
    pub(crate) const WHOLE: At<'static> = At {
        step: Step::Whole,
        up: None,
        depth: 0,
    };

    /// A fault here.
    pub(crate) fn fault(&self, text: impl Into<String>) -> Fault {
        Fault {
            field: self.to_string(),
            text: text.into(),
        }
    }

    fn expected(&self, expected: &str, found: &Node) -> Fault {
        self.fault(format!("expected {expected}, found {}", found.kind()))
    }
}

impl<'a> At<'a> {
    fn step(&'a self, step: Step<'a>) -> At<'a> {
        At {
            step,
            up: Some(self),
            depth: self.depth,
        }
    }

    /// At a field.
    pub(crate) fn field(&'a self, name: &'a str) -> At<'a> {
        self.step(Step::Field(name))
    }

    /// One message further in.
    fn deeper(mut self) -> Result<At<'a>, Fault> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let text = format!("messages inside of each other are more than {DEPTH_MAX}");
            return Err(self.fault(text));
        }
        Ok(self)
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(up) = self.up {
            write!(f, "{up}")?;
        }
        match self.step {
            Step::Whole => Ok(()),
            Step::Field(name) if self.up.is_some_and(|up| up.up.is_some()) => write!(f, ".{name}"),
            Step::Field(name) => f.write_str(name),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key:?}]"),
        }
    }
}

/// The message that `node` stands for.
///
/// # Errors
///
/// The first thing that is wrong.
pub(crate) fn message(
    descriptor: &MessageDescriptor,
    node: Node,
    at: At<'_>,
) -> Result<DynamicMessage, Fault> {
    let at = at.deeper()?;
    match well_known::read(descriptor, node, &at) {
        well_known::Read::Done(done) => done,
        well_known::Read::Any(object) => any(descriptor, object, &at),
        well_known::Read::Wrapper(field, node) => {
            let mut message = DynamicMessage::new(descriptor.clone());
            if let Some(value) = value(&field.kind(), node, &at)? {
                message.set_field(&field, value);
            }
            Ok(message)
        }
        well_known::Read::Ordinary(node) => {
            let Node::Object(object) = node else {
                return Err(at.expected("an object", &node));
            };
            let mut message = DynamicMessage::new(descriptor.clone());
            fields(&mut message, object, &at)?;
            Ok(message)
        }
    }
}

fn fields(
    message: &mut DynamicMessage,
    object: Vec<(String, Node)>,
    at: &At<'_>,
) -> Result<(), Fault> {
    let descriptor = message.descriptor();
    let mut seen = Vec::with_capacity(object.len());
    for (name, node) in object {
        let found = descriptor.get_field_by_json_name(&name);
        let Some(found) = found.or_else(|| descriptor.get_field_by_name(&name)) else {
            let text = format!("{} has no such field", descriptor.full_name());
            return Err(at.field(&name).fault(text));
        };
        let at = at.field(found.name());
        if seen.contains(&found.number()) {
            return Err(at.fault("is there twice, by both of its names"));
        }
        seen.push(found.number());
        let Some(value) = field(&found, node, &at)? else {
            continue;
        };
        if let Some(oneof) = found.containing_oneof()
            && let Some(other) = oneof.fields().find(|it| message.has_field(it))
        {
            let (name, other) = (oneof.name(), other.name());
            return Err(at.fault(format!("is one of `{name}`, of which {other} is there too")));
        }
        message.set_field(&found, value);
    }
    Ok(())
}

/// The value of a field; none where it is not set.
///
/// # Errors
///
/// The first thing that is wrong.
pub(crate) fn field(
    field: &FieldDescriptor,
    node: Node,
    at: &At<'_>,
) -> Result<Option<Value>, Fault> {
    if field.is_list() {
        return list(&field.kind(), node, at);
    }
    if field.is_map() {
        return map(field, node, at);
    }
    if node == Node::Null && !well_known::takes_null(&field.kind()) {
        return Ok(None);
    }
    value(&field.kind(), node, at)
}

fn list(kind: &Kind, node: Node, at: &At<'_>) -> Result<Option<Value>, Fault> {
    let items = match node {
        Node::Null => return Ok(None),
        Node::List(items) => items,
        other => return Err(at.expected("an array", &other)),
    };
    let mut list = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let at = at.step(Step::Index(index));
        if item == Node::Null && !well_known::takes_null(kind) {
            return Err(at.fault("an item cannot be null"));
        }
        list.extend(value(kind, item, &at)?);
    }
    Ok(Some(Value::List(list)))
}

fn map(field: &FieldDescriptor, node: Node, at: &At<'_>) -> Result<Option<Value>, Fault> {
    let entries = match node {
        Node::Null => return Ok(None),
        Node::Object(entries) => entries,
        other => return Err(at.expected("an object", &other)),
    };
    let Kind::Message(entry) = field.kind() else {
        return Err(at.fault("is a map of no entries by its contract"));
    };
    let (key_kind, value_kind) = (
        entry.map_entry_key_field().kind(),
        entry.map_entry_value_field().kind(),
    );
    let mut map = std::collections::HashMap::with_capacity(entries.len());
    for (key, node) in entries {
        let at = at.step(Step::Key(&key));
        if node == Node::Null && !well_known::takes_null(&value_kind) {
            return Err(at.fault("a value cannot be null"));
        }
        let read = map_key(&key_kind, &key).map_err(|text| at.fault(text))?;
        if let Some(value) = value(&value_kind, node, &at)?
            && map.insert(read, value).is_some()
        {
            return Err(at.fault("the key is there twice"));
        }
    }
    Ok(Some(Value::Map(map)))
}

fn map_key(kind: &Kind, text: &str) -> Result<MapKey, String> {
    let value = scalar::from_text(kind, text)?;
    Ok(match value {
        Value::Bool(value) => MapKey::Bool(value),
        Value::I32(value) => MapKey::I32(value),
        Value::I64(value) => MapKey::I64(value),
        Value::U32(value) => MapKey::U32(value),
        Value::U64(value) => MapKey::U64(value),
        Value::String(value) => MapKey::String(value),
        _ => return Err("is of a kind that is no key".to_owned()),
    })
}

/// A single value; none for what is left out.
fn value(kind: &Kind, node: Node, at: &At<'_>) -> Result<Option<Value>, Fault> {
    match kind {
        Kind::Message(descriptor) => message(descriptor, node, *at).map(Value::Message).map(Some),
        Kind::Enum(descriptor) => enumeration(descriptor, &node, at).map(Some),
        _ => scalar::from_node(kind, node)
            .map(Some)
            .map_err(|text| at.fault(text)),
    }
}

fn enumeration(descriptor: &EnumDescriptor, node: &Node, at: &At<'_>) -> Result<Value, Fault> {
    if well_known::is_null_value(descriptor) && *node == Node::Null {
        return Ok(Value::EnumNumber(0));
    }
    match node {
        Node::String(name) => scalar::enum_by_name(descriptor, name),
        Node::Number(number) => scalar::integer::<i32>(number)
            .ok_or_else(|| format!("{number} is no number of an enum"))
            .and_then(|number| scalar::enum_by_number(descriptor, number)),
        other => return Err(at.expected("the name or the number of a value", other)),
    }
    .map_err(|text| at.fault(text))
}

/// A message of any type, beside the name of the type.
fn any(
    descriptor: &MessageDescriptor,
    mut object: Vec<(String, Node)>,
    at: &At<'_>,
) -> Result<DynamicMessage, Fault> {
    if object.is_empty() {
        return Ok(DynamicMessage::new(descriptor.clone()));
    }
    let place = object.iter().position(|(key, _)| key == "@type");
    let Some((_, Node::String(url))) = place.map(|place| object.remove(place)) else {
        return Err(at.fault("wants the type of its message as text in \"@type\""));
    };
    let pool: &DescriptorPool = descriptor.parent_pool();
    let name = url.rsplit_once('/').map(|(_, name)| name);
    let inner = name.and_then(|name| pool.get_message_by_name(name));
    let Some(inner) = inner else {
        return Err(at.fault(format!("\"@type\": the service knows no type `{url}`")));
    };
    let inside = at.field("value");
    let message = if well_known::is_special(&inner) {
        let [(key, _)] = &object[..] else {
            return Err(at.fault(format!("{url} is in \"value\", and in nothing beside it")));
        };
        if key != "value" {
            return Err(at.fault(format!("{url} is in \"value\"")));
        }
        let node = object.pop().map_or(Node::Null, |(_, node)| node);
        message(&inner, node, inside)?
    } else {
        message(&inner, Node::Object(object), *at)?
    };
    well_known::any(descriptor, url, &message).ok_or_else(|| at.fault("is no Any by its contract"))
}

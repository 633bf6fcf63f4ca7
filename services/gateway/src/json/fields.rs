//! What of a request stands in its path and its query.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, Value};

use super::{
    read::{At, Fault},
    scalar, well_known,
};
use crate::catalogue::{
    percent,
    routes::Path,
    rule::{self, Binding, Body},
};

/// Puts the variables of `binding`'s template, as `path` has them, into `message`. What was there
/// before gives way.
///
/// # Errors
///
/// Which of them stands for no value.
pub(crate) fn from_path(
    binding: &Binding,
    path: &str,
    message: &mut DynamicMessage,
) -> Result<(), Fault> {
    let template = &binding.template;
    let path = Path::new(path).without(template.verb.as_deref());
    for (variable, fields) in template.variables.iter().zip(&binding.variables) {
        let at = At::WHOLE.field(&variable.field);
        let end = if variable.is_path && variable.first + variable.count == template.segments.len()
        {
            // It may end in `**`.
            path.segments.len()
        } else {
            variable.first + variable.count
        };
        let segments = path.segments.get(variable.first..end).unwrap_or_default();
        let decode = if variable.is_path {
            percent::decode_path
        } else {
            percent::decode
        };
        let text = decode(&segments.join("/"));
        let text = text.map_err(|error| at.fault(format!("in the path {error}")))?;
        let Some((last, _)) = fields.split_last() else {
            continue;
        };
        let value = single(last, &text).map_err(|text| at.fault(text))?;
        put(message, fields, value);
    }
    Ok(())
}

/// Puts what `query` says into `message`.
///
/// # Errors
///
/// The first of its parts that is no value of a field, or whose field is somewhere else.
pub(crate) fn from_query(
    binding: &Binding,
    query: &str,
    message: &mut DynamicMessage,
) -> Result<(), Fault> {
    let input = binding.method.descriptor.input();
    let mut seen: Vec<rule::FieldPath> = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, text) = part.split_once('=').unwrap_or((part, ""));
        let name = percent::decode_query(name).map_err(|error| Fault {
            field: scalar::shown(name).to_owned(),
            text: format!("in the query {error}"),
        })?;
        let at = At::WHOLE.field(scalar::shown(&name));
        let text = percent::decode_query(text);
        let text = text.map_err(|error| at.fault(format!("in the query {error}")))?;
        if matches!(binding.body, Body::All) {
            return Err(at.fault("is in the query; this method takes everything in its body"));
        }
        let fields = rule::resolve(&input, &name).map_err(|text| at.fault(text))?;
        if binding.variables.contains(&fields) {
            return Err(at.fault("is in the query, and has its value from the path"));
        }
        if let Body::Field(body) = &binding.body
            && fields.first() == Some(body)
        {
            return Err(at.fault("is in the query, and is what the body holds"));
        }
        let Some((last, _)) = fields.split_last() else {
            continue;
        };
        if last.is_map() {
            return Err(at.fault("is a map, which no query has a form for"));
        }
        let value = single(last, &text).map_err(|text| at.fault(text))?;
        if let Some(other) = sibling(message, &fields) {
            return Err(at.fault(format!("is one of several, of which {other} is there too")));
        }
        if last.is_list() {
            append(message, &fields, value);
        } else if seen.contains(&fields) {
            return Err(at.fault("is in the query twice, and has one value"));
        } else {
            seen.push(fields.clone());
            put(message, &fields, value);
        }
    }
    Ok(())
}

/// One value of `field`, an item where it is a list.
fn single(field: &FieldDescriptor, text: &str) -> Result<Value, String> {
    match field.kind() {
        Kind::Message(message) if well_known::is_text(&message) => {
            well_known::from_text(&message, text).map(Value::Message)
        }
        kind => scalar::from_text(&kind, text),
    }
}

/// Another field of the same oneof that is set.
fn sibling(message: &DynamicMessage, fields: &[FieldDescriptor]) -> Option<String> {
    let (first, rest) = fields.split_first()?;
    if let Some(oneof) = first.containing_oneof()
        && let Some(other) = oneof
            .fields()
            .find(|it| it != first && message.has_field(it))
    {
        return Some(other.name().to_owned());
    }
    let inner = message.get_field(first);
    sibling(inner.as_message()?, rest)
}

fn put(message: &mut DynamicMessage, fields: &[FieldDescriptor], value: Value) {
    match fields {
        [] => {}
        [last] => message.set_field(last, value),
        [first, rest @ ..] => {
            if let Some(inner) = message.get_field_mut(first).as_message_mut() {
                put(inner, rest, value);
            }
        }
    }
}

fn append(message: &mut DynamicMessage, fields: &[FieldDescriptor], value: Value) {
    match fields {
        [] => {}
        [last] => {
            if let Some(list) = message.get_field_mut(last).as_list_mut() {
                list.push(value);
            }
        }
        [first, rest @ ..] => {
            if let Some(inner) = message.get_field_mut(first).as_message_mut() {
                append(inner, rest, value);
            }
        }
    }
}

//! What a plan wants of an answer: fields that later calls need, and fields that have to be so.
//!
//! Only answers of which something is wanted are decoded.

use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, SerializeOptions};
use serde_json::Value;

use crate::failure::nearest;

/// What is wanted of the answers of one method.
#[derive(Debug)]
pub(crate) struct Wish {
    descriptor: MessageDescriptor,
    /// What is kept: under which name, and where it is.
    keep: Vec<(String, Place)>,
    /// What has to be so: where, and the text of its value.
    expect: Vec<(Place, String)>,
}

/// A field within a message, as `order.order_id` or `products.0.sku`.
#[derive(Debug)]
struct Place {
    /// As somebody wrote it.
    path: String,
    /// The same for JSON: `/order/orderId`.
    pointer: String,
}

impl Wish {
    /// Looks the fields up in `descriptor`. None where nothing is wanted.
    pub(crate) fn of(
        descriptor: MessageDescriptor,
        keep: &[(String, String)],
        expect: &[(String, String)],
    ) -> Result<Option<Self>, String> {
        let place = |path: &str| Place::of(path, &descriptor);
        let keep = keep
            .iter()
            .map(|(name, path)| Ok((name.clone(), place(path)?)));
        let keep: Vec<_> = keep.collect::<Result<_, String>>()?;
        let expect = expect
            .iter()
            .map(|(path, value)| Ok((place(path)?, value.clone())));
        let expect: Vec<_> = expect.collect::<Result<_, String>>()?;
        let wanted = !(keep.is_empty() && expect.is_empty());
        Ok(wanted.then_some(Self {
            descriptor,
            keep,
            expect,
        }))
    }

    /// Whether something has to be so.
    pub(crate) fn expects(&self) -> bool {
        !self.expect.is_empty()
    }

    /// What is kept of a message, by name.
    ///
    /// # Errors
    ///
    /// If it is not as expected, or does not have what is kept, in words.
    pub(crate) fn look(&self, message: &[u8]) -> Result<Vec<(String, String)>, String> {
        let name = self.descriptor.full_name();
        let message = DynamicMessage::decode(self.descriptor.clone(), message);
        let message = message.map_err(|error| format!("no {name}: {error}"))?;
        // What has its default is not on the wire, and may be expected all the same.
        let options = SerializeOptions::new().skip_default_fields(false);
        let value = message.serialize_with_options(serde_json::value::Serializer, &options);
        let value = value.map_err(|error| format!("{name} has no JSON: {error}"))?;
        for (place, expected) in &self.expect {
            let found = value.pointer(&place.pointer).map(text).unwrap_or_default();
            if found != *expected {
                let path = &place.path;
                return Err(format!("{path} is \"{found}\", expected \"{expected}\""));
            }
        }
        let kept = self.keep.iter().map(|(name, place)| {
            let found = value.pointer(&place.pointer);
            let found = found.filter(|found| !found.is_null()).map(text);
            let found = found.ok_or_else(|| format!("the answer has no {}", place.path));
            Ok((name.clone(), found?))
        });
        kept.collect()
    }
}

impl Place {
    fn of(path: &str, descriptor: &MessageDescriptor) -> Result<Self, String> {
        let mut pointer = String::new();
        // The message whose field comes next; none after a field that has none.
        let mut within = Some(descriptor.clone());
        let mut in_list = false;
        for part in path.split('.') {
            if in_list && part.parse::<u16>().is_ok() {
                in_list = false;
                pointer.push('/');
                pointer.push_str(part);
                continue;
            }
            let Some(message) = within.take().filter(|_| !in_list) else {
                return Err(format!("{path}: there is no {part} in it"));
            };
            let field = message.get_field_by_name(part);
            let Some(field) = field.or_else(|| message.get_field_by_json_name(part)) else {
                let fields: Vec<_> = message.fields().collect();
                let near = nearest(
                    part,
                    fields.iter().map(prost_reflect::FieldDescriptor::name),
                );
                let name = message.full_name();
                return Err(format!("{path}: {name} has no field \"{part}\"{near}"));
            };
            in_list = field.is_list();
            if let Kind::Message(inner) = field.kind() {
                within = Some(inner).filter(|_| !field.is_map());
            }
            pointer.push('/');
            pointer.push_str(field.json_name());
        }
        Ok(Self {
            path: path.to_owned(),
            pointer,
        })
    }
}

/// A value as a text that can be sent again.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;

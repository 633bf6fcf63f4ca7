//! From messages to JSON, as protobuf has it: names in camel case, numbers of 64 bits as strings,
//! enums by name, and nothing for a field that has its default and no presence.

use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor, SerializeOptions};
use tonic::Status;

use gantry::status;

/// All of `message`.
///
/// # Errors
///
/// INTERNAL if it holds what no JSON stands for: a message of a type that its service does not
/// describe, or a time out of range.
pub(crate) fn message(message: &DynamicMessage) -> Result<Vec<u8>, Status> {
    with(message, &SerializeOptions::new())
}

fn with(message: &DynamicMessage, options: &SerializeOptions) -> Result<Vec<u8>, Status> {
    let mut serializer = serde_json::Serializer::new(Vec::new());
    let written = message.serialize_with_options(&mut serializer, options);
    written.map_err(|error| {
        let name = prost_reflect::ReflectMessage::descriptor(message);
        let name = name.full_name().to_owned();
        status::broken(format!(
            "the answer, a {name}, has no form in JSON: {error}"
        ))
    })?;
    Ok(serializer.into_inner())
}

/// One answer: `bytes`, a message of type `descriptor`, or only `field` of it.
///
/// # Errors
///
/// INTERNAL if the bytes are no such message, or as [`message`].
pub(crate) fn answer(
    descriptor: &MessageDescriptor,
    field: Option<&FieldDescriptor>,
    bytes: &[u8],
) -> Result<Vec<u8>, Status> {
    let decoded = DynamicMessage::decode(descriptor.clone(), bytes).map_err(|error| {
        let name = descriptor.full_name();
        status::broken(format!("the answer is no {name}: {error}"))
    })?;
    let Some(field) = field else {
        return message(&decoded);
    };
    let mut alone = DynamicMessage::new(descriptor.clone());
    let is_there = decoded.has_field(field);
    if is_there {
        alone.set_field(field, decoded.get_field(field).into_owned());
    }
    // Where it has its default, that is what the body is.
    let options = SerializeOptions::new().skip_default_fields(is_there);
    let written: serde_json::Value = serde_json::from_slice(&with(&alone, &options)?)
        .map_err(|error| status::broken(format!("the answer was not written: {error}")))?;
    let value = written.get(field.json_name()).cloned().unwrap_or_default();
    Ok(value.to_string().into_bytes())
}

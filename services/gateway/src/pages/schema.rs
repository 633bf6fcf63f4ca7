//! Messages as schemas of their JSON (JSON Schema 2020-12, as `OpenAPI` 3.1 has it).

use std::collections::BTreeMap;

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::comments::Comments;

/// Messages and enums that are described; a contract with more is not.
const SCHEMAS_MAX: usize = 10_000;

/// The schemas that others refer to, by full name.
#[derive(Debug, Default)]
pub(super) struct Schemas {
    pub(super) comments: Comments,
    found: BTreeMap<String, Option<Value>>,
    waiting: Vec<MessageDescriptor>,
}

impl Schemas {
    /// What describes a message; it is described once, whoever refers to it.
    pub(super) fn message(&mut self, message: &MessageDescriptor) -> Value {
        if let Some(known) = well_known(message) {
            return known;
        }
        let name = message.full_name();
        if !self.found.contains_key(name) && self.found.len() < SCHEMAS_MAX {
            self.found.insert(name.to_owned(), None);
            self.waiting.push(message.clone());
        }
        reference(name)
    }

    fn enumeration(&mut self, kind: &EnumDescriptor) -> Value {
        if kind.full_name() == "google.protobuf.NullValue" {
            return json!({"type": "null"});
        }
        let name = kind.full_name();
        if !self.found.contains_key(name) && self.found.len() < SCHEMAS_MAX {
            let names: Vec<_> = kind.values().map(|it| it.name().to_owned()).collect();
            let mut schema = json!({"type": "string", "enum": names});
            let mut text = self.comments.of(&kind.parent_file(), kind.path());
            for value in kind.values() {
                let said = self.comments.of(&kind.parent_file(), value.path());
                if !said.is_empty() {
                    let said = said.replace('\n', " ");
                    text.extend(["\n- `", value.name(), "`: ", &said]);
                }
            }
            describe(&mut schema, &text);
            self.found.insert(name.to_owned(), Some(schema));
        }
        reference(name)
    }

    /// What describes the value of a field.
    pub(super) fn field(&mut self, field: &FieldDescriptor) -> Value {
        let mut schema = if field.is_map() {
            let value = match field.kind() {
                Kind::Message(entry) => self.single(&entry.map_entry_value_field().kind()),
                _ => json!({}),
            };
            json!({"type": "object", "additionalProperties": value})
        } else if field.is_list() {
            json!({"type": "array", "items": self.single(&field.kind())})
        } else {
            self.single(&field.kind())
        };
        let mut text = self.comments.of(&field.parent_file(), field.path());
        if let Some(oneof) = field.containing_oneof().filter(|it| !it.is_synthetic()) {
            let others = oneof.fields().filter(|it| it != field);
            let others: Vec<_> = others.map(|it| format!("`{}`", it.json_name())).collect();
            text.extend(["\nAt most one of this and ", &others.join(", "), " is set."]);
        }
        describe(&mut schema, &text);
        schema
    }

    /// What describes one value of a kind.
    fn single(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Message(message) => self.message(message),
            Kind::Enum(kind) => self.enumeration(kind),
            kind => scalar(kind),
        }
    }

    /// All that were referred to, and what those refer to.
    pub(super) fn all(&mut self) -> Map<String, Value> {
        while let Some(message) = self.waiting.pop() {
            let schema = self.object(&message);
            self.found
                .insert(message.full_name().to_owned(), Some(schema));
        }
        let found = std::mem::take(&mut self.found).into_iter();
        found
            .map(|(name, schema)| (name, schema.unwrap_or_default()))
            .collect()
    }

    fn object(&mut self, message: &MessageDescriptor) -> Value {
        let mut properties = Map::new();
        for field in message.fields() {
            properties.insert(field.json_name().to_owned(), self.field(&field));
        }
        let mut schema = json!({"type": "object", "properties": properties});
        let text = self.comments.of(&message.parent_file(), message.path());
        describe(&mut schema, &text);
        schema
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn describe(schema: &mut Value, text: &str) {
    let text = text.trim();
    if let (Value::Object(schema), false) = (schema, text.is_empty()) {
        schema.insert("description".to_owned(), text.into());
    }
}

fn scalar(kind: &Kind) -> Value {
    match kind {
        Kind::Bool => json!({"type": "boolean"}),
        Kind::String => json!({"type": "string"}),
        Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            json!({"type": "integer", "format": "int32"})
        }
        Kind::Uint32 | Kind::Fixed32 => {
            json!({"type": "integer", "format": "uint32", "minimum": 0})
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => json!({"type": "string", "format": "int64"}),
        Kind::Uint64 | Kind::Fixed64 => json!({"type": "string", "format": "uint64"}),
        Kind::Float => json!({"type": ["number", "string"], "format": "float"}),
        _ => json!({"type": ["number", "string"], "format": "double"}),
    }
}

/// Types whose JSON is not that of their fields.
fn well_known(message: &MessageDescriptor) -> Option<Value> {
    let name = message.full_name().strip_prefix("google.protobuf.")?;
    Some(match name {
        "Timestamp" => json!({"type": "string", "format": "date-time"}),
        "Duration" => json!({"type": "string", "pattern": "^-?[0-9]+(\\.[0-9]{1,9})?s$"}),
        "FieldMask" => json!({"type": "string"}),
        "Struct" | "Empty" => json!({"type": "object"}),
        "Value" => json!({}),
        "ListValue" => json!({"type": "array", "items": {}}),
        "Any" => json!({
            "type": "object",
            "properties": {"@type": {"type": "string"}},
            "required": ["@type"],
        }),
        _ => {
            name.strip_suffix("Value")?;
            let mut schema = scalar(&message.get_field_by_name("value")?.kind());
            let kind = schema["type"].clone();
            let mut kinds = kind.as_array().cloned().unwrap_or_else(|| vec![kind]);
            kinds.push("null".into());
            schema["type"] = kinds.into();
            schema
        }
    })
}

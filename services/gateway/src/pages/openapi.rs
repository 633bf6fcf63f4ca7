//! Everything that JSON can ask, as `OpenAPI` 3.1.

use std::collections::{BTreeMap, HashMap, HashSet};

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::{comments::summary, schema::Schemas};
use crate::{
    catalogue::{
        Api,
        rule::{Binding, Body},
        template::{Segment, Template},
    },
    json::is_text,
};

/// Messages inside of each other whose fields are told as parts of a query.
const QUERY_DEPTH_MAX: usize = 3;
/// Parts of a query that are told of.
const QUERY_MAX: usize = 200;

/// The errors of every operation.
const STATUS: &str = "google.rpc.Status";

/// What is being written.
#[derive(Default)]
struct Writer {
    schemas: Schemas,
    /// The path and its parameters' names, for each shape of template: paths that differ in names
    /// alone are one.
    paths: HashMap<String, (String, Vec<String>)>,
    items: BTreeMap<String, Map<String, Value>>,
    identifiers: HashSet<String>,
    tags: Vec<Value>,
}

/// The document, the same for the same services.
pub(super) fn write(api: &Api) -> Vec<u8> {
    let mut writer = Writer::default();
    for service in api.services.values() {
        let mut bindings = service.bindings.sound.iter().peekable();
        if let Some(first) = bindings.peek() {
            writer.tag(first);
        }
        for binding in bindings {
            writer.add(binding);
        }
    }
    let mut schemas = writer.schemas.all();
    schemas.insert(STATUS.to_owned(), status());
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Services of this gateway",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Written from the descriptors of the services that are registered.",
        },
        "servers": [{"url": "/"}],
        "tags": writer.tags,
        "paths": writer.items,
        "security": [{}, {"bearer": []}],
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "responses": {
                "Error": {
                    "description": "What went wrong.",
                    "content": {"application/json": {
                        "schema": {"$ref": format!("#/components/schemas/{STATUS}")},
                    }},
                },
            },
        },
    });
    document.to_string().into_bytes()
}

fn status() -> Value {
    json!({
        "type": "object",
        "description": "An error.",
        "properties": {
            "code": {"type": "integer", "format": "int32", "description": "A code of google.rpc.Code."},
            "message": {"type": "string", "description": "What is wrong, in words."},
            "details": {
                "type": "array",
                "description": "What is wrong, for programs.",
                "items": {
                    "type": "object",
                    "properties": {"@type": {"type": "string"}},
                    "required": ["@type"],
                },
            },
        },
        "required": ["code", "message", "details"],
    })
}

impl Writer {
    fn tag(&mut self, binding: &Binding) {
        let service = binding.method.descriptor.parent_service();
        let text = self
            .schemas
            .comments
            .of(&service.parent_file(), service.path());
        let mut tag = json!({"name": service.full_name()});
        if !text.is_empty() {
            tag["description"] = text.into();
        }
        self.tags.push(tag);
    }

    fn add(&mut self, binding: &Binding) {
        let verb = binding.verb.to_string().to_ascii_lowercase();
        // Others have no place in it.
        if ![
            "get", "put", "post", "delete", "patch", "head", "options", "trace",
        ]
        .contains(&&*verb)
        {
            return;
        }
        let own = placeholders(&binding.template);
        let shape = binding.template.shape();
        let (path, names) = self
            .paths
            .entry(shape)
            .or_insert_with(|| (path(&binding.template, &own), own.clone()))
            .clone();
        if self
            .items
            .get(&path)
            .is_some_and(|item| item.contains_key(&verb))
        {
            return;
        }
        let operation = self.operation(binding, &names, &own);
        self.items.entry(path).or_default().insert(verb, operation);
    }

    fn operation(&mut self, binding: &Binding, names: &[String], own: &[String]) -> Value {
        let method = &binding.method.descriptor;
        let service = method.parent_service();
        let text = self
            .schemas
            .comments
            .of(&method.parent_file(), method.path());
        let mut operation = json!({
            "operationId": self.identifier(&format!("{}_{}", service.name(), method.name())),
            "tags": [service.full_name()],
            "parameters": self.parameters(binding, names, own),
            "responses": {
                "200": self.answer(binding),
                "default": {"$ref": "#/components/responses/Error"},
            },
        });
        if !text.is_empty() {
            operation["summary"] = summary(&text).into();
            operation["description"] = text.into();
        }
        let schema = match &binding.body {
            Body::None => return operation,
            Body::All => self.schemas.message(&method.input()),
            Body::Field(field) => self.schemas.field(field),
        };
        let media = media(method.is_client_streaming());
        operation["requestBody"] = json!({"content": {media: {"schema": schema}}});
        operation
    }

    fn identifier(&mut self, name: &str) -> String {
        let mut identifier = name.to_owned();
        let mut number = 1;
        while !self.identifiers.insert(identifier.clone()) {
            number += 1;
            identifier = format!("{name}_{number}");
        }
        identifier
    }

    fn answer(&mut self, binding: &Binding) -> Value {
        let method = &binding.method.descriptor;
        let schema = match &binding.answer {
            None => self.schemas.message(&method.output()),
            Some(field) => self.schemas.field(field),
        };
        let is_stream = method.is_server_streaming();
        let text = if is_stream {
            "A message in each line; one that is `{\"error\": …}` is the last."
        } else {
            "The answer."
        };
        json!({"description": text, "content": {media(is_stream): {"schema": schema}}})
    }

    fn parameters(&mut self, binding: &Binding, names: &[String], own: &[String]) -> Vec<Value> {
        let template = &binding.template;
        let mut parameters = Vec::new();
        for (name, own) in names.iter().zip(own) {
            let variable = template.variables.iter().position(|it| it.field == *own);
            let field = variable.and_then(|it| binding.variables[it].last());
            let schema = match field {
                Some(field) => self.schemas.field(field),
                None => json!({"type": "string"}),
            };
            parameters
                .push(json!({"name": name, "in": "path", "required": true, "schema": schema}));
        }
        if matches!(binding.body, Body::All) {
            return parameters;
        }
        let mut taken: HashSet<String> = binding
            .variables
            .iter()
            .map(|fields| spelled(fields))
            .collect();
        if let Body::Field(field) = &binding.body {
            taken.insert(field.json_name().to_owned());
        }
        let mut fields = Vec::new();
        query(&binding.method.descriptor.input(), &[], &taken, &mut fields);
        for fields in fields {
            let Some(field) = fields.last() else { continue };
            let schema = self.schemas.field(field);
            parameters.push(json!({"name": spelled(&fields), "in": "query", "schema": schema}));
        }
        parameters
    }
}

fn media(is_stream: bool) -> &'static str {
    if is_stream {
        "application/x-ndjson"
    } else {
        "application/json"
    }
}

fn spelled(fields: &[FieldDescriptor]) -> String {
    let names: Vec<_> = fields.iter().map(FieldDescriptor::json_name).collect();
    names.join(".")
}

/// The fields of `message` that a query has a form for.
fn query(
    message: &MessageDescriptor,
    above: &[FieldDescriptor],
    taken: &HashSet<String>,
    found: &mut Vec<Vec<FieldDescriptor>>,
) {
    for field in message.fields() {
        let fields = [above, std::slice::from_ref(&field)].concat();
        if taken.contains(&spelled(&fields)) || field.is_map() || found.len() >= QUERY_MAX {
            continue;
        }
        match field.kind() {
            Kind::Message(inner) if !is_text(&inner) => {
                if !field.is_list() && fields.len() < QUERY_DEPTH_MAX {
                    query(&inner, &fields, taken, found);
                }
            }
            _ => found.push(fields),
        }
    }
}

/// A name for each segment of a path that is not text.
fn placeholders(template: &Template) -> Vec<String> {
    let mut names = Vec::new();
    for (place, segment) in template.segments.iter().enumerate() {
        if matches!(segment, Segment::Literal(_)) {
            continue;
        }
        let inside = |first: usize, count: usize| (first..first + count).contains(&place);
        let variable = template
            .variables
            .iter()
            .find(|it| inside(it.first, it.count));
        names.push(match variable {
            Some(variable) if variable.count == 1 => variable.field.clone(),
            Some(variable) => format!("{}_{}", variable.field, place - variable.first + 1),
            None => format!("segment_{}", place + 1),
        });
    }
    names
}

/// A path with `names` for what is not text.
fn path(template: &Template, names: &[String]) -> String {
    let mut names = names.iter();
    let mut path = String::new();
    for segment in &template.segments {
        path.push('/');
        match segment {
            Segment::Literal(text) => path.push_str(text),
            _ => path.extend(["{", names.next().map_or("", |it| it), "}"]),
        }
    }
    if let Some(verb) = &template.verb {
        path.push(':');
        path.push_str(verb);
    }
    path
}

//! What a server can be asked, as text close to its proto files.

use std::fmt::Write as _;

use prost_reflect::{
    Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    MethodDescriptor, ServiceDescriptor,
};
use serde_json::{Value, json};

/// The description of `symbol`: a service, a message or an enum.
pub(crate) fn symbol(pool: &DescriptorPool, symbol: &str) -> Option<String> {
    if let Some(service) = pool.get_service_by_name(symbol) {
        return Some(full_service(&service));
    }
    if let Some(message) = pool.get_message_by_name(symbol) {
        return Some(self::message(&message));
    }
    pool.get_enum_by_name(symbol)
        .map(|descriptor| enumeration(&descriptor))
}

/// A service and the messages its methods take.
fn full_service(service: &ServiceDescriptor) -> String {
    let mut text = self::service(service);
    let mut seen = Vec::new();
    for method in service.methods() {
        let input = method.input();
        if !seen.contains(&input) {
            text.push('\n');
            text.push('\n');
            text.push_str(&message(&input));
            seen.push(input);
        }
    }
    text
}

/// A service and its methods.
pub(crate) fn service(service: &ServiceDescriptor) -> String {
    let mut text = format!("service {} {{\n", service.full_name());
    for method in service.methods() {
        let (input, output) = (side(&method, true), side(&method, false));
        let name = method.name();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  rpc {name}({input}) returns ({output});");
    }
    text.push('}');
    text
}

/// A service for programs.
pub(crate) fn service_json(service: &ServiceDescriptor) -> Value {
    let method = |method: MethodDescriptor| {
        json!({
            "name": method.name(),
            "request": method.input().full_name(),
            "response": method.output().full_name(),
            "client_streaming": method.is_client_streaming(),
            "server_streaming": method.is_server_streaming(),
        })
    };
    json!({
        "service": service.full_name(),
        "methods": service.methods().map(method).collect::<Vec<_>>(),
    })
}

fn side(method: &MethodDescriptor, request: bool) -> String {
    let (stream, message) = if request {
        (method.is_client_streaming(), method.input())
    } else {
        (method.is_server_streaming(), method.output())
    };
    let package = method.parent_service().package_name().to_owned() + ".";
    let name = message.full_name();
    let name = name.strip_prefix(&package).unwrap_or(name);
    if stream {
        format!("stream {name}")
    } else {
        name.to_owned()
    }
}

fn message(message: &MessageDescriptor) -> String {
    let mut text = format!("message {} {{\n", message.full_name());
    for field in message.fields() {
        let _ = writeln!(text, "  {}", self::field(message, &field));
    }
    text.push('}');
    text
}

fn field(message: &MessageDescriptor, field: &FieldDescriptor) -> String {
    let kind = if field.is_map() {
        let Kind::Message(entry) = field.kind() else {
            unreachable!("a map's entries are messages");
        };
        let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
        format!("map<{}, {}>", kind(message, &key), kind(message, &value))
    } else {
        let label = match field.cardinality() {
            Cardinality::Repeated => "repeated ",
            _ if field.supports_presence() && !matches!(field.kind(), Kind::Message(_)) => {
                "optional "
            }
            _ => "",
        };
        format!("{label}{}", kind(message, field))
    };
    let of = field
        .containing_oneof()
        .filter(|oneof| !oneof.is_synthetic())
        .map(|oneof| format!("  // oneof {}", oneof.name()))
        .unwrap_or_default();
    let kind = if of.is_empty() {
        kind
    } else {
        kind.trim_start_matches("optional ").to_owned()
    };
    format!("{kind} {} = {};{of}", field.name(), field.number())
}

/// A field's type; those of the same package without it, enums with their values.
fn kind(message: &MessageDescriptor, field: &FieldDescriptor) -> String {
    let package = message.package_name().to_owned() + ".";
    let short = |name: &str| name.strip_prefix(&package).unwrap_or(name).to_owned();
    match field.kind() {
        Kind::Message(inner) => short(inner.full_name()),
        Kind::Enum(inner) => short(inner.full_name()),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

fn enumeration(descriptor: &EnumDescriptor) -> String {
    let mut text = format!("enum {} {{\n", descriptor.full_name());
    for value in descriptor.values() {
        let _ = writeln!(text, "  {} = {};", value.name(), value.number());
    }
    text.push('}');
    text
}

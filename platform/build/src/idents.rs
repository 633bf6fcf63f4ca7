//! Names of Rust items as prost-build gives them; its own functions for this are private.

use heck::{ToSnakeCase as _, ToUpperCamelCase as _};
use proc_macro2::TokenStream;
use prost_reflect::{FieldDescriptor, MessageDescriptor, OneofDescriptor};

/// The path of a message's struct from the module of its package: `order::Line`.
pub(crate) fn message(message: &MessageDescriptor) -> TokenStream {
    let mut path = upper_camel(message.name());
    let mut parent = message.parent_message();
    while let Some(outer) = parent {
        path = format!("{}::{path}", snake(outer.name()));
        parent = outer.parent_message();
    }
    path.parse().expect("identifiers are Rust")
}

/// The path of the variant that holds `member`, from the module of its package.
pub(crate) fn variant(member: &FieldDescriptor, oneof: &OneofDescriptor) -> TokenStream {
    let message = oneof.parent_message();
    let enumeration = upper_camel(oneof.name());
    // prost tells apart a oneof and a type inside the message that would be called the same.
    let taken = message
        .child_messages()
        .map(|child| child.name().to_owned())
        .chain(message.child_enums().map(|child| child.name().to_owned()))
        .any(|name| upper_camel(&name) == enumeration);
    let suffix = if taken { "OneOf" } else { "" };
    let mut path = format!("{enumeration}{suffix}::{}", upper_camel(member.name()));
    let mut parent = Some(message.clone());
    while let Some(outer) = parent {
        path = format!("{}::{path}", snake(outer.name()));
        parent = outer.parent_message();
    }
    path.parse().expect("identifiers are Rust")
}

/// The name of a field or module.
pub(crate) fn snake(name: &str) -> String {
    usable(name.to_snake_case())
}

/// The name of a struct, enum or variant.
pub(crate) fn upper_camel(name: &str) -> String {
    usable(name.to_upper_camel_case())
}

fn usable(name: String) -> String {
    if ["_", "super", "self", "Self", "extern", "crate"].contains(&name.as_str()) {
        format!("{name}_")
    } else if name.starts_with(|first: char| first.is_numeric()) {
        format!("_{name}")
    } else if syn::parse_str::<syn::Ident>(&name).is_ok() {
        name
    } else {
        format!("r#{name}")
    }
}

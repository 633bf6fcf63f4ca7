//! When the rules of a field apply, and which they are by its type.

use proc_macro2::TokenStream;
use prost_reflect::{Cardinality, FieldDescriptor, Kind};
use quote::quote;

use super::{
    Rules, collection, format_ident_of, number,
    options::{FieldRules, Ignore, MessageRules},
    site::Site,
    text, time,
};
use crate::idents;

/// What is checked of a member of a oneof.
pub(super) struct MemberChecks {
    /// Whether it must be the member that is set.
    pub(super) required: bool,
    /// Checks of its `value`.
    pub(super) inner: TokenStream,
}

/// The statement that checks `field`, which is in no oneof.
pub(super) fn statement(
    rules: &Rules<'_>,
    field: &FieldDescriptor,
    of_message: &MessageRules,
) -> TokenStream {
    let site = Site::new(rules, field);
    let own = FieldRules::of(field, |rule, why| site.refuse(rule, why));
    let by_default = if of_message.name(field.name()) {
        Ignore::Zero
    } else {
        Ignore::Unset
    };
    let ignore = own.ignore.unwrap_or(by_default);
    if ignore == Ignore::Always {
        return TokenStream::new();
    }

    let inner = inner(&site, field, &own);
    let name = format_ident_of(&idents::snake(field.name()));
    let missing = own.required.then(|| site.broken("required", "must be set"));
    if is_optional(field) {
        return match (missing, inner.is_empty()) {
            (Some(missing), true) => quote!(if self.#name.is_none() { #missing }),
            (Some(missing), false) => quote! {
                match &self.#name { Some(value) => { #inner } None => { #missing } }
            },
            (None, false) => quote!(if let Some(value) = &self.#name { #inner }),
            (None, true) => inner,
        };
    }
    match (missing, zero(field)) {
        (Some(missing), Some(zero)) => quote! {{
            let value = &self.#name;
            if #zero { #missing } else { #inner }
        }},
        _ if inner.is_empty() => inner,
        (None, Some(zero)) if ignore == Ignore::Zero => quote! {{
            let value = &self.#name;
            if !(#zero) { #inner }
        }},
        _ => quote! {{ let value = &self.#name; #inner }},
    }
}

/// What is checked of `field`, a member of a oneof.
pub(super) fn member(rules: &Rules<'_>, field: &FieldDescriptor) -> MemberChecks {
    let site = Site::new(rules, field);
    let own = FieldRules::of(field, |rule, why| site.refuse(rule, why));
    if own.ignore == Some(Ignore::Always) {
        return MemberChecks {
            required: false,
            inner: TokenStream::new(),
        };
    }
    MemberChecks {
        required: own.required,
        inner: inner(&site, field, &own),
    }
}

/// Whether `field` is set, as an expression over `self`.
pub(super) fn is_set(field: &FieldDescriptor) -> TokenStream {
    let name = format_ident_of(&idents::snake(field.name()));
    let oneof = field
        .containing_oneof()
        .filter(|oneof| !oneof.is_synthetic());
    if let Some(oneof) = oneof {
        let variant = idents::variant(field, &oneof);
        let oneof = format_ident_of(&idents::snake(oneof.name()));
        return quote!(matches!(&self.#oneof, Some(#variant(_))));
    }
    if is_optional(field) {
        return quote!(self.#name.is_some());
    }
    zero(field).map_or_else(
        || quote!(true),
        |zero| quote!({ let value = &self.#name; !(#zero) }),
    )
}

/// Checks of `value`, which is one value, a list or a map.
fn inner(site: &Site<'_>, field: &FieldDescriptor, own: &FieldRules) -> TokenStream {
    if field.is_map() {
        collection::map(site, field, own)
    } else if field.is_list() {
        collection::list(site, field, own)
    } else {
        single(site, &field.kind(), own)
    }
}

/// Checks of `value`, which is of `kind` and no list or map.
pub(super) fn single(site: &Site<'_>, kind: &Kind, own: &FieldRules) -> TokenStream {
    let mut checks = TokenStream::new();
    if let Some(typed) = &own.typed {
        let expected = rules_of(kind);
        if expected != Some(typed.name.as_str()) {
            let expected = expected.unwrap_or("no typed");
            site.refuse(
                &typed.name,
                &format!("does not fit the type, for which there are {expected} rules"),
            );
            return checks;
        }
        checks.extend(match typed.name.as_str() {
            "bool" => number::boolean(site, typed),
            "string" => text::string(site, typed),
            "bytes" => text::bytes(site, typed),
            "enum" => number::enumeration(site, kind, typed),
            "duration" => time::duration(site, typed),
            "timestamp" => time::timestamp(site, typed),
            _ => number::number(site, typed),
        });
    }
    if let Kind::Message(message) = kind
        && site.rules.ruled.contains(message.full_name())
    {
        checks.extend(site.within());
    }
    checks
}

/// The member of `FieldRules.type` that goes with `kind`.
fn rules_of(kind: &Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Double => "double",
        Kind::Float => "float",
        Kind::Int32 => "int32",
        Kind::Int64 => "int64",
        Kind::Uint32 => "uint32",
        Kind::Uint64 => "uint64",
        Kind::Sint32 => "sint32",
        Kind::Sint64 => "sint64",
        Kind::Fixed32 => "fixed32",
        Kind::Fixed64 => "fixed64",
        Kind::Sfixed32 => "sfixed32",
        Kind::Sfixed64 => "sfixed64",
        Kind::Bool => "bool",
        Kind::String => "string",
        Kind::Bytes => "bytes",
        Kind::Enum(_) => "enum",
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.DoubleValue" => "double",
            "google.protobuf.FloatValue" => "float",
            "google.protobuf.Int32Value" => "int32",
            "google.protobuf.Int64Value" => "int64",
            "google.protobuf.UInt32Value" => "uint32",
            "google.protobuf.UInt64Value" => "uint64",
            "google.protobuf.BoolValue" => "bool",
            "google.protobuf.StringValue" => "string",
            "google.protobuf.BytesValue" => "bytes",
            "google.protobuf.Duration" => "duration",
            "google.protobuf.Timestamp" => "timestamp",
            _ => return None,
        },
    })
}

/// Whether prost makes the field an `Option`.
fn is_optional(field: &FieldDescriptor) -> bool {
    field.supports_presence()
        && field.cardinality() != Cardinality::Required
        && !field.is_list()
        && !field.is_map()
}

/// Whether `value`, of a field that is no `Option`, is zero or empty, as an expression.
fn zero(field: &FieldDescriptor) -> Option<TokenStream> {
    if field.is_list() || field.is_map() {
        return Some(quote!(value.is_empty()));
    }
    if field.cardinality() == Cardinality::Required {
        // Always set.
        return None;
    }
    zero_of(&field.kind())
}

/// Whether `value`, of `kind`, is zero or empty, as an expression; never for messages.
pub(super) fn zero_of(kind: &Kind) -> Option<TokenStream> {
    match kind {
        Kind::Message(_) => None,
        Kind::String | Kind::Bytes => Some(quote!(value.is_empty())),
        Kind::Bool => Some(quote!(!*value)),
        Kind::Float | Kind::Double => Some(quote!(*value == 0.0)),
        Kind::Enum(kind) => {
            let first = kind.default_value().number();
            Some(quote!(*value == #first))
        }
        _ => Some(quote!(*value == 0)),
    }
}

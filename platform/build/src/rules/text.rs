//! Rules on string and bytes.

use proc_macro2::{Literal, TokenStream};
use prost_reflect::Value;
use quote::quote;

use super::{
    options::TypedRules,
    pattern,
    site::{Site, listed},
};

/// Checks of `value`, a string.
pub(super) fn string(site: &Site<'_>, rules: &TypedRules) -> TokenStream {
    let mut checks = TokenStream::new();
    let refuses_empty = rules.set.iter().find(|rule| refuses_empty(rule));
    for (name, value) in &rules.set {
        let rule = format!("string.{name}");
        let found = match value {
            Value::U64(bound) => length_of_string(site, name, *bound),
            Value::String(text) => string_with(site, name, text),
            Value::List(values) => strings_in(name, values),
            Value::Bool(false) if well_known(site, name).is_some() => continue,
            Value::Bool(true) => well_known(site, name),
            _ => None,
        };
        match found {
            Some((holds, text)) => {
                // An empty text breaks nearly every rule; that it is empty says all of them.
                let holds = match refuses_empty {
                    Some((first, _)) if first != name => quote!(value.is_empty() || #holds),
                    _ => holds,
                };
                checks.extend(site.unless(&holds, &rule, &text));
            }
            None if name == "example" => {}
            None => site.refuse_one(rules, name),
        }
    }
    checks
}

/// Whether a rule is about length, and leaves none.
fn refuses_empty((name, value): &(String, Value)) -> bool {
    let about_length = matches!(&**name, "len" | "min_len" | "len_bytes" | "min_bytes");
    about_length && value.as_u64().is_some_and(|bound| bound > 0)
}

/// What must hold, and how it is said.
type Check = Option<(TokenStream, String)>;

fn length_of_string(site: &Site<'_>, name: &str, bound: u64) -> Check {
    let check = site.check();
    let characters = quote!(#check::characters(value));
    let bytes = quote!((value.len() as u64));
    Some(match name {
        "len" => exactly(&characters, bound, "character"),
        "min_len" if bound == 1 => (quote!(!value.is_empty()), "must not be empty".to_owned()),
        "min_len" => at_least(&characters, bound, "character"),
        "max_len" => {
            let (holds, text) = at_most(&characters, bound, "character");
            // No text has more characters than bytes, and bytes need no counting.
            (quote!(#bytes <= #bound || #holds), text)
        }
        "len_bytes" => exactly(&bytes, bound, "byte"),
        "min_bytes" => at_least(&bytes, bound, "byte"),
        "max_bytes" => at_most(&bytes, bound, "byte"),
        _ => return None,
    })
}

fn string_with(site: &Site<'_>, name: &str, text: &str) -> Check {
    Some(match name {
        "const" => (quote!(value == #text), format!("must equal {text:?}")),
        "prefix" => (
            quote!(value.starts_with(#text)),
            format!("must begin with {text:?}"),
        ),
        "suffix" => (
            quote!(value.ends_with(#text)),
            format!("must end with {text:?}"),
        ),
        "contains" => (
            quote!(value.contains(#text)),
            format!("must contain {text:?}"),
        ),
        "not_contains" => (
            quote!(!value.contains(#text)),
            format!("must not contain {text:?}"),
        ),
        "pattern" => match pattern::translate(text) {
            Ok(translated) => {
                let check = site.check();
                let holds = quote! {{
                    static PATTERN: #check::Pattern = #check::Pattern::new(#translated);
                    PATTERN.matches(value)
                }};
                (holds, format!("must match {text}"))
            }
            Err(why) => {
                site.refuse("string.pattern", &why);
                (quote!(true), String::new())
            }
        },
        _ => return None,
    })
}

fn strings_in(name: &str, values: &[Value]) -> Check {
    let texts = values.iter().filter_map(Value::as_str);
    let contained = quote!([#(#texts),*].contains(&value.as_str()));
    let shown = listed(values, |value| {
        format!("{:?}", value.as_str().unwrap_or_default())
    });
    match name {
        "in" => Some((contained, format!("must be one of {shown}"))),
        "not_in" => Some((quote!(!#contained), format!("must be none of {shown}"))),
        _ => None,
    }
}

fn well_known(site: &Site<'_>, name: &str) -> Check {
    let check = site.check();
    let (holds, what) = match name {
        "email" => (quote!(#check::email(value)), "an email address"),
        "hostname" => (quote!(#check::hostname(value)), "a host name"),
        "ip" => (quote!(#check::ip(value)), "an IP address"),
        "ipv4" => (quote!(#check::ipv4(value)), "an IPv4 address"),
        "ipv6" => (quote!(#check::ipv6(value)), "an IPv6 address"),
        "address" => (
            quote!((#check::hostname(value) || #check::ip(value))),
            "a host name or an IP address",
        ),
        "uri" => (quote!(#check::uri(value)), "a URI with a scheme"),
        "uuid" => (quote!(#check::uuid(value)), "a UUID"),
        "tuuid" => (quote!(#check::tuuid(value)), "a UUID without hyphens"),
        "ulid" => (quote!(#check::ulid(value)), "a ULID"),
        _ => return None,
    };
    Some((holds, format!("must be {what}")))
}

/// Checks of `value`, bytes.
pub(super) fn bytes(site: &Site<'_>, rules: &TypedRules) -> TokenStream {
    let mut checks = TokenStream::new();
    for (name, value) in &rules.set {
        let rule = format!("bytes.{name}");
        let length = quote!((value.len() as u64));
        let found = match (name.as_str(), value) {
            ("len", Value::U64(bound)) => Some(exactly(&length, *bound, "byte")),
            ("min_len", Value::U64(bound)) => Some(at_least(&length, *bound, "byte")),
            ("max_len", Value::U64(bound)) => Some(at_most(&length, *bound, "byte")),
            (_, Value::Bytes(bytes)) => bytes_with(site, name, bytes),
            (_, Value::List(values)) => bytes_in(name, values),
            (_, Value::Bool(false)) if bytes_well_known(name).is_some() => continue,
            (_, Value::Bool(true)) => bytes_well_known(name),
            _ => None,
        };
        match found {
            Some((holds, text)) => checks.extend(site.unless(&holds, &rule, &text)),
            None if name == "example" => {}
            None => site.refuse_one(rules, name),
        }
    }
    checks
}

fn bytes_with(site: &Site<'_>, name: &str, bytes: &[u8]) -> Check {
    let check = site.check();
    let literal = Literal::byte_string(bytes);
    let shown = hex(bytes);
    Some(match name {
        "const" => (
            quote!(value.as_slice() == #literal),
            format!("must equal {shown}"),
        ),
        "prefix" => (
            quote!(value.starts_with(#literal)),
            format!("must begin with {shown}"),
        ),
        "suffix" => (
            quote!(value.ends_with(#literal)),
            format!("must end with {shown}"),
        ),
        "contains" => (
            quote!(#check::bytes_contain(value, #literal)),
            format!("must contain {shown}"),
        ),
        _ => return None,
    })
}

fn bytes_in(name: &str, values: &[Value]) -> Check {
    let literals = values
        .iter()
        .filter_map(Value::as_bytes)
        .map(|bytes| Literal::byte_string(bytes));
    let contained = quote!([#(#literals as &[u8]),*].contains(&value.as_slice()));
    let shown = listed(values, |value| {
        value
            .as_bytes()
            .map_or_else(String::new, |bytes| hex(bytes))
    });
    match name {
        "in" => Some((contained, format!("must be one of {shown}"))),
        "not_in" => Some((quote!(!#contained), format!("must be none of {shown}"))),
        _ => None,
    }
}

fn bytes_well_known(name: &str) -> Check {
    let (holds, what) = match name {
        "ip" => (
            quote!([4, 16].contains(&value.len())),
            "an IP address of 4 or 16 bytes",
        ),
        "ipv4" => (quote!(value.len() == 4), "an IPv4 address of 4 bytes"),
        "ipv6" => (quote!(value.len() == 16), "an IPv6 address of 16 bytes"),
        "uuid" => (quote!(value.len() == 16), "a UUID of 16 bytes"),
        _ => return None,
    };
    Some((holds, format!("must be {what}")))
}

fn exactly(length: &TokenStream, bound: u64, unit: &str) -> (TokenStream, String) {
    let text = format!("must have {}", counted(bound, unit));
    (quote!(#length == #bound), text)
}

fn at_least(length: &TokenStream, bound: u64, unit: &str) -> (TokenStream, String) {
    let text = format!("must have at least {}", counted(bound, unit));
    (quote!(#length >= #bound), text)
}

fn at_most(length: &TokenStream, bound: u64, unit: &str) -> (TokenStream, String) {
    let text = format!("must have at most {}", counted(bound, unit));
    (quote!(#length <= #bound), text)
}

fn counted(count: u64, unit: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |mut text, byte| {
        use std::fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
        text
    })
}

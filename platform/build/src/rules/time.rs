//! Rules on durations and timestamps; both are compared as nanoseconds.

use proc_macro2::TokenStream;
use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};
use quote::quote;

use super::{
    number::Range,
    options::TypedRules,
    site::{Site, listed},
};

/// Checks of `value`, a duration.
pub(super) fn duration(site: &Site<'_>, rules: &TypedRules) -> TokenStream {
    comparisons(site, rules, "duration", &|_, _| None)
}

/// Checks of `value`, a timestamp.
pub(super) fn timestamp(site: &Site<'_>, rules: &TypedRules) -> TokenStream {
    let check = site.check();
    comparisons(site, rules, "timestamp", &|name, value| {
        let (holds, text) = match (name, value) {
            ("lt_now", Value::Bool(true)) => (
                quote!(#check::timestamp(value) < #check::now()),
                "must be in the past".to_owned(),
            ),
            ("gt_now", Value::Bool(true)) => (
                quote!(#check::timestamp(value) > #check::now()),
                "must be in the future".to_owned(),
            ),
            ("lt_now" | "gt_now", Value::Bool(false)) => return Some(TokenStream::new()),
            ("within", Value::Message(bound)) => {
                let nanos = literal(nanos(bound));
                let holds = quote! {
                    (#check::timestamp(value) - #check::now()).abs() <= #nanos
                };
                (holds, format!("must be within {} of now", shown(bound)))
            }
            _ => return None,
        };
        Some(site.unless(&holds, &format!("timestamp.{name}"), &text))
    })
}

/// What both kinds have in common; `other` makes checks of the rules one has for itself.
fn comparisons(
    site: &Site<'_>,
    rules: &TypedRules,
    kind: &str,
    other: &dyn Fn(&str, &Value) -> Option<TokenStream>,
) -> TokenStream {
    let check = site.check();
    let value = if kind == "duration" {
        quote!(#check::duration(value))
    } else {
        quote!(#check::timestamp(value))
    };
    let mut checks = TokenStream::new();
    let mut range = Range::default();
    for (name, rule_value) in &rules.set {
        let rule = format!("{kind}.{name}");
        match (name.as_str(), rule_value) {
            ("const", Value::Message(only)) => {
                let nanos = literal(nanos(only));
                let text = format!("must equal {}", shown(only));
                checks.extend(site.unless(&quote!(#value == #nanos), &rule, &text));
            }
            ("lt" | "lte" | "gt" | "gte", Value::Message(bound)) => {
                range.add(name, nanos(bound), literal(nanos(bound)), shown(bound));
            }
            ("in" | "not_in", Value::List(values)) => {
                let literals = values
                    .iter()
                    .filter_map(Value::as_message)
                    .map(nanos)
                    .map(literal);
                let texts = listed(values, |value| {
                    value.as_message().map_or_else(String::new, shown)
                });
                let contained = quote!([#(#literals),*].contains(&#value));
                checks.extend(if name == "in" {
                    site.unless(&contained, &rule, &format!("must be one of {texts}"))
                } else {
                    site.unless(
                        &quote!(!#contained),
                        &rule,
                        &format!("must be none of {texts}"),
                    )
                });
            }
            ("example", _) => {}
            _ => match other(name, rule_value) {
                Some(more) => checks.extend(more),
                None => site.refuse_one(rules, name),
            },
        }
    }
    checks.extend(range.check(site, kind, &value));
    checks
}

fn part(message: &DynamicMessage, name: &str) -> i128 {
    match message.get_field_by_name(name).as_deref() {
        Some(Value::I64(number)) => (*number).into(),
        Some(Value::I32(number)) => (*number).into(),
        _ => 0,
    }
}

fn nanos(message: &DynamicMessage) -> i128 {
    part(message, "seconds") * 1_000_000_000 + part(message, "nanos")
}

fn literal(nanos: i128) -> TokenStream {
    format!("{nanos}i128").parse().expect("numbers are Rust")
}

/// A duration as `1.5s`, a timestamp as RFC 3339.
fn shown(message: &DynamicMessage) -> String {
    let seconds = i64::try_from(part(message, "seconds")).unwrap_or_default();
    let nanos = i32::try_from(part(message, "nanos")).unwrap_or_default();
    if message.descriptor().name() == "Duration" {
        prost_types::Duration { seconds, nanos }.to_string()
    } else {
        prost_types::Timestamp { seconds, nanos }.to_string()
    }
}

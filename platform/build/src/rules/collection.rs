//! Rules on repeated fields and maps.

use proc_macro2::TokenStream;
use prost_reflect::{FieldDescriptor, Kind, Value};
use quote::{format_ident, quote};

use super::{
    field,
    options::{FieldRules, Ignore, TypedRules},
    site::Site,
};

/// Checks of `value`, a repeated field.
pub(super) fn list(site: &Site<'_>, descriptor: &FieldDescriptor, own: &FieldRules) -> TokenStream {
    let mut checks = TokenStream::new();
    let mut items = None;
    for (name, value) in rules_named("repeated", site, own) {
        match (name.as_str(), value) {
            ("min_items", Value::U64(count)) => {
                checks.extend(at_least(site, *count, "repeated.min_items", "item"));
            }
            ("max_items", Value::U64(count)) => {
                checks.extend(at_most(site, *count, "repeated.max_items", "item"));
            }
            ("unique", Value::Bool(true)) => checks.extend(unique(site, &descriptor.kind())),
            ("unique", Value::Bool(false)) => {}
            ("items", Value::Message(rules)) => {
                items = Some(FieldRules::read(rules, |rule, why| {
                    site.refuse(&format!("repeated.items.{rule}"), why);
                }));
            }
            _ => refuse(site, own, name),
        }
    }
    let of_item = element(&site.item(), &descriptor.kind(), items.as_ref());
    if !of_item.is_empty() {
        checks.extend(quote! {
            for (index, value) in value.iter().enumerate() {
                if violations.is_full() { return; }
                #of_item
            }
        });
    }
    checks
}

/// Checks of `value`, a map.
pub(super) fn map(site: &Site<'_>, descriptor: &FieldDescriptor, own: &FieldRules) -> TokenStream {
    let Kind::Message(entry) = descriptor.kind() else {
        return TokenStream::new();
    };
    let mut checks = TokenStream::new();
    let (mut keys, mut values) = (None, None);
    for (name, value) in rules_named("map", site, own) {
        match (name.as_str(), value) {
            ("min_pairs", Value::U64(count)) => {
                checks.extend(at_least(site, *count, "map.min_pairs", "entry"));
            }
            ("max_pairs", Value::U64(count)) => {
                checks.extend(at_most(site, *count, "map.max_pairs", "entry"));
            }
            ("keys", Value::Message(rules)) => {
                keys = Some(FieldRules::read(rules, |rule, why| {
                    site.refuse(&format!("map.keys.{rule}"), why);
                }));
            }
            ("values", Value::Message(rules)) => {
                values = Some(FieldRules::read(rules, |rule, why| {
                    site.refuse(&format!("map.values.{rule}"), why);
                }));
            }
            _ => refuse(site, own, name),
        }
    }
    let site = site.entry();
    let of_key = element(&site, &entry.map_entry_key_field().kind(), keys.as_ref());
    let of_value = element(
        &site,
        &entry.map_entry_value_field().kind(),
        values.as_ref(),
    );
    let of_key = bound_to("key", &of_key);
    let of_value = bound_to("entry", &of_value);
    if !(of_key.is_empty() && of_value.is_empty()) {
        let entry = format_ident!("{}", if of_value.is_empty() { "_" } else { "entry" });
        checks.extend(quote! {
            for (key, #entry) in value {
                if violations.is_full() { return; }
                #of_key
                #of_value
            }
        });
    }
    checks
}

/// `checks` of the `value` that is known as `name`.
fn bound_to(name: &str, checks: &TokenStream) -> TokenStream {
    if checks.is_empty() {
        return TokenStream::new();
    }
    let name = format_ident!("{name}");
    quote!({ let value = #name; #checks })
}

/// The rules that are set, where they are of the right type.
fn rules_named<'a>(
    expected: &str,
    site: &Site<'_>,
    own: &'a FieldRules,
) -> impl Iterator<Item = &'a (String, Value)> {
    let typed = own.typed.as_ref();
    if let Some(typed) = typed.filter(|typed| typed.name != expected) {
        let why = format!("does not fit the type, for which there are {expected} rules");
        site.refuse(&typed.name, &why);
    }
    typed
        .filter(|typed| typed.name == expected)
        .into_iter()
        .flat_map(|typed| &typed.set)
}

fn refuse(site: &Site<'_>, own: &FieldRules, rule: &str) {
    if let Some(typed) = &own.typed {
        site.refuse_one(typed, rule);
    }
}

/// Checks of one element; always set, so that `required` says nothing of it.
fn element(site: &Site<'_>, kind: &Kind, own: Option<&FieldRules>) -> TokenStream {
    const NONE: &FieldRules = &FieldRules {
        required: false,
        ignore: None,
        typed: None,
    };
    let own = own.unwrap_or(NONE);
    if own.ignore == Some(Ignore::Always) {
        return TokenStream::new();
    }
    let checks = field::single(site, kind, own);
    match field::zero_of(kind) {
        Some(zero) if own.ignore == Some(Ignore::Zero) && !checks.is_empty() => {
            quote!(if !(#zero) { #checks })
        }
        _ => checks,
    }
}

fn at_least(site: &Site<'_>, count: u64, rule: &str, what: &str) -> TokenStream {
    let text = format!("must have at least {}", counted(count, what));
    site.unless(&quote!(value.len() as u64 >= #count), rule, &text)
}

fn at_most(site: &Site<'_>, count: u64, rule: &str, what: &str) -> TokenStream {
    let text = format!("must have at most {}", counted(count, what));
    site.unless(&quote!(value.len() as u64 <= #count), rule, &text)
}

fn counted(count: u64, what: &str) -> String {
    match (count, what) {
        (1, _) => format!("1 {what}"),
        (_, "entry") => format!("{count} entries"),
        _ => format!("{count} {what}s"),
    }
}

fn unique(site: &Site<'_>, kind: &Kind) -> TokenStream {
    let check = site.check();
    let unique = match kind {
        Kind::Message(_) => {
            let typed = TypedRules {
                name: "repeated".to_owned(),
                set: Vec::new(),
            };
            site.refuse_one(&typed, "unique (of messages)");
            return TokenStream::new();
        }
        Kind::Float | Kind::Double => {
            // Zero is zero with either sign, and what is not a number equals nothing.
            quote! {
                #check::unique(value.iter().filter(|item| !item.is_nan()).map(|item| (item + 0.0).to_bits()))
            }
        }
        _ => quote!(#check::unique(value.iter())),
    };
    site.unless(&unique, "repeated.unique", "must have no two equal items")
}

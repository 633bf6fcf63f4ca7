//! Rules on numbers, booleans and enums, and ranges of whatever can be ordered.

use std::fmt;

use proc_macro2::TokenStream;
use prost_reflect::{Kind, Value};
use quote::quote;

use super::{
    options::TypedRules,
    site::{Site, listed},
};

/// A value in a rule that can be ordered.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Number {
    Int(i128),
    Float(f64),
}

/// Checks of `value`, a number of the type that `rules` name.
pub(super) fn number(site: &Site<'_>, rules: &TypedRules) -> TokenStream {
    let kind = rust_type(&rules.name);
    let literal = |value: &Value| Number::of(value).map(|number| number.literal(kind));
    let mut checks = TokenStream::new();
    let mut range = Range::default();
    for (name, value) in &rules.set {
        let rule = format!("{}.{name}", rules.name);
        match (name.as_str(), value, Number::of(value)) {
            ("const", _, Some(number)) => {
                let literal = number.literal(kind);
                let text = format!("must equal {number}");
                checks.extend(site.unless(&quote!(*value == #literal), &rule, &text));
            }
            ("lt" | "lte" | "gt" | "gte", _, Some(number)) => {
                range.add(name, number, number.literal(kind), number.to_string());
            }
            ("in", Value::List(values), _) => {
                let literals = values.iter().filter_map(literal);
                let text = format!("must be one of {}", shown(values));
                checks.extend(site.unless(&quote!([#(#literals),*].contains(value)), &rule, &text));
            }
            ("not_in", Value::List(values), _) => {
                let literals = values.iter().filter_map(literal);
                let text = format!("must be none of {}", shown(values));
                checks.extend(site.unless(
                    &quote!(![#(#literals),*].contains(value)),
                    &rule,
                    &text,
                ));
            }
            ("finite", Value::Bool(finite), _) => {
                if *finite {
                    checks.extend(site.unless(&quote!(value.is_finite()), &rule, "must be finite"));
                }
            }
            ("example", ..) => {}
            _ => site.refuse_one(rules, name),
        }
    }
    checks.extend(range.check(site, &rules.name, &quote!(*value)));
    checks
}

/// Checks of `value`, a bool.
pub(super) fn boolean(site: &Site<'_>, rules: &TypedRules) -> TokenStream {
    let mut checks = TokenStream::new();
    for (name, value) in &rules.set {
        match (name.as_str(), value) {
            ("const", Value::Bool(only)) => {
                let text = format!("must equal {only}");
                checks.extend(site.unless(&quote!(*value == #only), "bool.const", &text));
            }
            ("example", _) => {}
            _ => site.refuse_one(rules, name),
        }
    }
    checks
}

/// Checks of `value`, the number of an enum.
pub(super) fn enumeration(site: &Site<'_>, kind: &Kind, rules: &TypedRules) -> TokenStream {
    let Kind::Enum(descriptor) = kind else {
        return TokenStream::new();
    };
    let named = |value: &Value| {
        let number = value.as_i32().unwrap_or_default();
        descriptor
            .get_value(number)
            .map_or_else(|| number.to_string(), |value| value.name().to_owned())
    };
    let mut checks = TokenStream::new();
    for (name, value) in &rules.set {
        let rule = format!("enum.{name}");
        match (name.as_str(), value) {
            ("const", Value::I32(only)) => {
                let text = format!("must be {}", named(value));
                checks.extend(site.unless(&quote!(*value == #only), &rule, &text));
            }
            ("defined_only", Value::Bool(true)) => {
                let numbers = descriptor.values().map(|value| value.number());
                let known = quote!([#(#numbers),*].contains(value));
                checks.extend(site.unless(&known, &rule, "must be a value that the enum names"));
            }
            ("defined_only", Value::Bool(false)) | ("example", _) => {}
            ("in", Value::List(values)) => {
                let numbers = values.iter().filter_map(Value::as_i32);
                let text = format!("must be one of {}", listed(values, named));
                checks.extend(site.unless(&quote!([#(#numbers),*].contains(value)), &rule, &text));
            }
            ("not_in", Value::List(values)) => {
                let numbers = values.iter().filter_map(Value::as_i32);
                let text = format!("must be none of {}", listed(values, named));
                checks.extend(site.unless(&quote!(![#(#numbers),*].contains(value)), &rule, &text));
            }
            _ => site.refuse_one(rules, name),
        }
    }
    checks
}

fn rust_type(name: &str) -> &'static str {
    match name {
        "float" => "f32",
        "double" => "f64",
        "int32" | "sint32" | "sfixed32" => "i32",
        "int64" | "sint64" | "sfixed64" => "i64",
        "uint32" | "fixed32" => "u32",
        _ => "u64",
    }
}

fn shown(values: &[Value]) -> String {
    listed(values, |value| {
        Number::of(value).map_or_else(String::new, |number| number.to_string())
    })
}

impl Number {
    fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::I32(number) => Self::Int((*number).into()),
            Value::I64(number) => Self::Int((*number).into()),
            Value::U32(number) => Self::Int((*number).into()),
            Value::U64(number) => Self::Int((*number).into()),
            // By way of its shortest text, so that 0.1 stays 0.1.
            Value::F32(number) => Self::Float(number.to_string().parse().ok()?),
            Value::F64(number) => Self::Float(*number),
            _ => return None,
        })
    }

    fn literal(self, kind: &str) -> TokenStream {
        let text = match self {
            Self::Float(number) if number.is_nan() => format!("{kind}::NAN"),
            Self::Float(number) if number == f64::INFINITY => format!("{kind}::INFINITY"),
            Self::Float(number) if number == f64::NEG_INFINITY => format!("{kind}::NEG_INFINITY"),
            Self::Float(number) => format!("{number:?}{kind}"),
            Self::Int(number) => format!("{number}{kind}"),
        };
        text.parse().expect("numbers are Rust")
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
        }
    }
}

/// A range of values that can be ordered: `gt` or `gte`, `lt` or `lte`, or one of each.
pub(super) struct Range<T> {
    lower: Option<Bound<T>>,
    upper: Option<Bound<T>>,
}

struct Bound<T> {
    rule: String,
    value: T,
    literal: TokenStream,
    text: String,
}

impl<T> Default for Range<T> {
    fn default() -> Self {
        Self {
            lower: None,
            upper: None,
        }
    }
}

impl<T: PartialOrd> Range<T> {
    /// Adds the bound `rule`, one of `lt`, `lte`, `gt` and `gte`.
    pub(super) fn add(&mut self, rule: &str, value: T, literal: TokenStream, text: String) {
        let side = if rule.starts_with('l') {
            &mut self.upper
        } else {
            &mut self.lower
        };
        *side = Some(Bound {
            rule: rule.to_owned(),
            value,
            literal,
            text,
        });
    }

    /// The check that `value` is in the range; outside of it where the upper bound is the lower
    /// number, as Protovalidate has it.
    ///
    /// Written so that what cannot be compared, NaN, is in no range.
    pub(super) fn check(&self, site: &Site<'_>, kind: &str, value: &TokenStream) -> TokenStream {
        match (&self.lower, &self.upper) {
            (None, None) => TokenStream::new(),
            (Some(bound), None) | (None, Some(bound)) => {
                let rule = format!("{kind}.{}", bound.rule);
                let text = format!("must be {}", bound.words());
                site.unless(&bound.holds(value), &rule, &text)
            }
            (Some(lower), Some(upper)) => {
                let (over, under) = (lower.holds(value), upper.holds(value));
                let (low, high) = (lower.words(), upper.words());
                let rule = format!("{kind}.{}_{}", lower.rule, upper.rule);
                if upper.value >= lower.value {
                    let text = format!("must be {low} and {high}");
                    site.unless(&quote!(#over && #under), &rule, &text)
                } else {
                    let text = format!("must be {low} or {high}");
                    let rule = format!("{rule}_exclusive");
                    site.unless(&quote!(#over || #under), &rule, &text)
                }
            }
        }
    }
}

impl<T> Bound<T> {
    fn holds(&self, value: &TokenStream) -> TokenStream {
        let literal = &self.literal;
        match self.rule.as_str() {
            "lt" => quote!((#value < #literal)),
            "lte" => quote!((#value <= #literal)),
            "gt" => quote!((#value > #literal)),
            _ => quote!((#value >= #literal)),
        }
    }

    fn words(&self) -> String {
        let relation = match self.rule.as_str() {
            "lt" => "less than",
            "lte" => "at most",
            "gt" => "greater than",
            _ => "at least",
        };
        format!("{relation} {}", self.text)
    }
}

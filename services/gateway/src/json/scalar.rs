//! Values that have no parts: from JSON, and from text in paths, queries and keys.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use prost_reflect::{EnumDescriptor, Kind, Syntax, Value};
use serde_json::Number;

use super::node::Node;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Bytes of a value that is shown to whoever sent it.
const SHOWN_MAX: usize = 64;

/// The value of `kind` that `node` stands for.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn from_node(kind: &Kind, node: Node) -> Result<Value, String> {
    match (kind, node) {
        (Kind::Bool, Node::Bool(value)) => Ok(Value::Bool(value)),
        (Kind::String, Node::String(value)) => Ok(Value::String(value)),
        (Kind::Bool, other) => Err(format!("expected true or false, found {}", other.kind())),
        (Kind::String, other) => Err(format!("expected a string, found {}", other.kind())),
        (Kind::Bytes, Node::String(text)) => bytes(&text),
        (Kind::Bytes, other) => Err(format!(
            "expected base64 as a string, found {}",
            other.kind()
        )),
        (kind, Node::Number(number)) => numeric(kind, &number),
        (kind, Node::String(text)) => number_as_text(kind, &text),
        (_, other) => Err(format!("expected a number, found {}", other.kind())),
    }
}

/// The value of `kind` that stands alone as `text`. Messages are not of them.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn from_text(kind: &Kind, text: &str) -> Result<Value, String> {
    match kind {
        Kind::String => Ok(Value::String(text.to_owned())),
        Kind::Bytes => bytes(text),
        Kind::Bool => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            other => Err(format!("expected true or false, found `{}`", shown(other))),
        },
        Kind::Enum(descriptor) => match text.parse() {
            Ok(number) => enum_by_number(descriptor, number),
            Err(_) => enum_by_name(descriptor, text),
        },
        Kind::Message(message) => {
            let name = message.full_name();
            Err(format!("is a {name}, which is more than one value"))
        }
        kind => number_as_text(kind, text),
    }
}

/// The beginning of what was sent.
pub(crate) fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(SHOWN_MAX)]
}

fn bytes(text: &str) -> Result<Value, String> {
    let is_url_safe = text.contains(['-', '_']);
    let alphabet = if is_url_safe { &URL_SAFE } else { &STANDARD };
    let decoded = alphabet.decode(text);
    let decoded = decoded.map_err(|error| format!("is not base64: {error}"))?;
    Ok(Value::Bytes(Bytes::from(decoded)))
}

fn number_as_text(kind: &Kind, text: &str) -> Result<Value, String> {
    let special = match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    };
    match (kind, special) {
        (Kind::Double, Some(value)) => return Ok(Value::F64(value)),
        #[expect(clippy::cast_possible_truncation, reason = "they are the same in both")]
        (Kind::Float, Some(value)) => return Ok(Value::F32(value as f32)),
        _ => {}
    }
    let malformed = || format!("expected a number, found `{}`", shown(text));
    // Space around a number is a number to those who read JSON, and to nobody else.
    if text.starts_with(char::is_whitespace) || text.ends_with(char::is_whitespace) {
        return Err(malformed());
    }
    let number: Number = serde_json::from_str(text).map_err(|_| malformed())?;
    numeric(kind, &number)
}

fn numeric(kind: &Kind, number: &Number) -> Result<Value, String> {
    let value = match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => integer(number).map(Value::I32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => integer(number).map(Value::I64),
        Kind::Uint32 | Kind::Fixed32 => integer(number).map(Value::U32),
        Kind::Uint64 | Kind::Fixed64 => integer(number).map(Value::U64),
        Kind::Double => number.as_f64().map(Value::F64),
        Kind::Float => number.as_f64().and_then(single).map(Value::F32),
        _ => None,
    };
    value.ok_or_else(|| format!("{number} is no {}", words(kind)))
}

fn words(kind: &Kind) -> &'static str {
    match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "whole number of 32 bits",
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "whole number of 64 bits",
        Kind::Uint32 | Kind::Fixed32 => "whole number of 32 bits from zero up",
        Kind::Uint64 | Kind::Fixed64 => "whole number of 64 bits from zero up",
        _ => "number of 32 bits",
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "what is too large is refused"
)]
fn single(value: f64) -> Option<f32> {
    let single = value as f32;
    single.is_finite().then_some(single)
}

/// A whole number, also one that is written with a fraction or an exponent.
pub(crate) fn integer<I: TryFrom<i128>>(number: &Number) -> Option<I> {
    /// Where numbers with fractions begin to leave out whole ones; beyond, which was meant is
    /// known only of powers of two, and of those the range decides.
    const LARGEST: f64 = 1e30;
    let exact = number.as_i64().map(i128::from);
    let exact = exact.or_else(|| number.as_u64().map(i128::from));
    let whole = exact.or_else(|| {
        let value = number.as_f64().filter(|it| it.fract() == 0.0)?;
        #[expect(clippy::cast_possible_truncation, reason = "it is whole, and in range")]
        (value.abs() < LARGEST).then_some(value as i128)
    })?;
    I::try_from(whole).ok()
}

/// The value `name` of an enum.
///
/// # Errors
///
/// If there is none.
pub(crate) fn enum_by_name(descriptor: &EnumDescriptor, name: &str) -> Result<Value, String> {
    let found = descriptor.get_value_by_name(name);
    let found = found.ok_or_else(|| {
        let (name, kind) = (shown(name), descriptor.full_name());
        format!("{kind} has no value `{name}`")
    })?;
    Ok(Value::EnumNumber(found.number()))
}

/// The value `number` of an enum; one that is not known is passed on where the contract allows it.
///
/// # Errors
///
/// If it may not be.
pub(crate) fn enum_by_number(descriptor: &EnumDescriptor, number: i32) -> Result<Value, String> {
    let is_closed = descriptor.parent_file().syntax() == Syntax::Proto2;
    if is_closed && descriptor.get_value(number).is_none() {
        let kind = descriptor.full_name();
        return Err(format!("{kind} has no value with the number {number}"));
    }
    Ok(Value::EnumNumber(number))
}

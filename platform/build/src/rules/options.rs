//! Reads the options of `buf.validate`, by name.

use prost_reflect::{
    DynamicMessage, FieldDescriptor, FileDescriptor, MessageDescriptor, OneofDescriptor, Value,
};

/// Full name of the option on fields.
pub(super) const FIELD: &str = "buf.validate.field";
/// Full name of the option on messages.
pub(super) const MESSAGE: &str = "buf.validate.message";
/// Full name of the option on oneofs.
pub(super) const ONEOF: &str = "buf.validate.oneof";

/// Why most rules are refused.
pub(super) const NOT_HONOURED: &str = "is not one that gantry-build honours";

/// When the rules of a field are passed over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ignore {
    Unset,
    Zero,
    Always,
}

/// The rules of a field, of an item, or of a key or value of a map.
pub(super) struct FieldRules {
    pub(super) required: bool,
    pub(super) ignore: Option<Ignore>,
    pub(super) typed: Option<TypedRules>,
}

/// The rules that go with a type.
pub(super) struct TypedRules {
    /// The type, as `FieldRules` names it: `string`.
    pub(super) name: String,
    /// Each rule that is set, by name.
    pub(super) set: Vec<(String, Value)>,
}

/// Rules on a message as a whole.
#[derive(Default)]
pub(super) struct MessageRules {
    pub(super) oneofs: Vec<FieldSet>,
}

/// Fields of which at most one may be set.
pub(super) struct FieldSet {
    pub(super) fields: Vec<String>,
    pub(super) required: bool,
}

impl FieldRules {
    const NONE: Self = Self {
        required: false,
        ignore: None,
        typed: None,
    };

    /// The rules of `field`.
    pub(super) fn of(field: &FieldDescriptor, refuse: impl Fn(&str, &str)) -> Self {
        option(&field.options(), FIELD).map_or(Self::NONE, |rules| Self::read(&rules, refuse))
    }

    /// The rules in `rules`, a `buf.validate.FieldRules`.
    pub(super) fn read(rules: &DynamicMessage, refuse: impl Fn(&str, &str)) -> Self {
        let mut read = Self::NONE;
        for (name, value) in set_in(rules, "", &refuse) {
            match (name.as_str(), &value) {
                ("required", Value::Bool(required)) => read.required = *required,
                ("ignore", Value::EnumNumber(0)) => read.ignore = Some(Ignore::Unset),
                ("ignore", Value::EnumNumber(1)) => read.ignore = Some(Ignore::Zero),
                ("ignore", Value::EnumNumber(3)) => read.ignore = Some(Ignore::Always),
                (_, Value::Message(typed)) => {
                    let set = set_in(typed, &format!("{name}."), &refuse);
                    read.typed = Some(TypedRules { name, set });
                }
                _ => refuse(&name, NOT_HONOURED),
            }
        }
        read
    }
}

impl MessageRules {
    /// The rules of `message`.
    pub(super) fn of(message: &MessageDescriptor, refuse: impl Fn(&str, &str)) -> Self {
        let mut read = Self::default();
        let Some(rules) = option(&message.options(), MESSAGE) else {
            return read;
        };
        for (name, value) in set_in(&rules, "message.", &refuse) {
            match (name.as_str(), &value) {
                ("oneof", Value::List(sets)) => {
                    let sets = sets.iter().filter_map(Value::as_message);
                    read.oneofs.extend(sets.map(FieldSet::read));
                }
                _ => refuse(&format!("message.{name}"), NOT_HONOURED),
            }
        }
        read
    }

    /// Whether `field` is in one of the sets.
    pub(super) fn name(&self, field: &str) -> bool {
        let mut names = self.oneofs.iter().flat_map(|set| &set.fields);
        names.any(|name| name == field)
    }
}

impl FieldSet {
    fn read(set: &DynamicMessage) -> Self {
        let fields = set.get_field_by_name("fields");
        let fields = fields.as_deref().and_then(Value::as_list).unwrap_or(&[]);
        let required = set.get_field_by_name("required");
        Self {
            fields: fields
                .iter()
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect(),
            required: required.and_then(|value| value.as_bool()).unwrap_or(false),
        }
    }
}

/// Whether one of the fields of `oneof` must be set.
pub(super) fn oneof_is_required(oneof: &OneofDescriptor, refuse: impl Fn(&str, &str)) -> bool {
    let Some(rules) = option(&oneof.options(), ONEOF) else {
        return false;
    };
    let mut required = false;
    for (name, value) in set_in(&rules, "oneof.", &refuse) {
        match (name.as_str(), &value) {
            ("required", Value::Bool(value)) => required = *value,
            _ => refuse(&format!("oneof.{name}"), NOT_HONOURED),
        }
    }
    required
}

/// Whether `options` have the extension.
pub(super) fn is_set(options: &DynamicMessage, extension: &str) -> bool {
    option(options, extension).is_some()
}

fn option(options: &DynamicMessage, extension: &str) -> Option<DynamicMessage> {
    options
        .extensions()
        .find(|(descriptor, _)| descriptor.full_name() == extension)
        .and_then(|(_, value)| value.as_message().cloned())
}

/// Each rule that is set in `rules`, by name; refuses what has no name there.
fn set_in(
    rules: &DynamicMessage,
    prefix: &str,
    refuse: &impl Fn(&str, &str),
) -> Vec<(String, Value)> {
    for (extension, _) in rules.extensions() {
        let rule = format!("{prefix}({})", extension.full_name());
        refuse(&rule, NOT_HONOURED);
    }
    for unknown in rules.unknown_fields() {
        let rule = format!("{prefix}{}", unknown.number());
        refuse(&rule, "is unknown to the validate.proto in use");
    }
    rules
        .fields()
        .map(|(field, value)| (field.name().to_owned(), value.clone()))
        .collect()
}

/// The line at which the thing at `path` is declared.
pub(crate) fn line(file: &FileDescriptor, path: &[i32]) -> Option<i32> {
    let info = file.file_descriptor_proto().source_code_info.as_ref()?;
    let place = info.location.iter().find(|at| at.path == path)?;
    place.span.first().map(|line| line + 1)
}

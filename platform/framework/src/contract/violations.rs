//! The rules a message breaks, as many of them as fit into an answer.

use std::fmt::{self, Write as _};

use prost_types::{Any, Duration, FieldMask, ListValue, Struct, Timestamp, Value};

/// Violations told to a caller; what is broken beyond them is only said to be there.
const COUNT_MAX: usize = 100;

/// Bytes of paths and descriptions told to a caller. They travel in a header, in base64 and with a
/// few bytes around each, and many peers take no more than 8 KiB of headers.
const BYTES_MAX: usize = 4_096;

/// Bytes of a caller's map key that are shown to it.
const KEY_MAX: usize = 64;

/// A message with rules, generated from `buf.validate` options.
pub trait Validate {
    /// Adds every broken rule of this message, and of the messages in it, to `violations`.
    fn validate(&self, violations: &mut Violations);
}

/// The broken rules of one message, in field order; entries of a map are in no order.
///
/// Holds at most a hundred, and at most what fits into the headers of an answer, then one last
/// entry that says there are more.
#[derive(Debug, Default)]
pub struct Violations {
    path: Vec<(&'static str, Option<At>)>,
    found: Vec<Violation>,
    bytes: usize,
    full: bool,
}

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path to the field from the request: `lines[0].quantity`.
    pub field: String,
    /// What the value must be, as a sentence for the caller.
    pub description: String,
    /// The rule, as `buf.validate` names it: `uint32.gte`.
    pub rule: &'static str,
}

/// Which element of a repeated field or map.
#[derive(Debug)]
pub enum At {
    /// The item of this number, from zero.
    Index(usize),
    /// The entry with this key, as it is shown: text in quotes.
    Key(String),
}

impl At {
    /// The entry with this key.
    pub fn key(key: &impl fmt::Debug) -> Self {
        let mut shown = format!("{key:?}");
        if shown.len() > KEY_MAX {
            shown.truncate(shown.floor_char_boundary(KEY_MAX));
            shown.push('…');
        }
        Self::Key(shown)
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "[{index}]"),
            Self::Key(key) => write!(f, "[{key}]"),
        }
    }
}

impl Violations {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that `field` of the current message breaks `rule`; without a name, the message does.
    pub fn add(&mut self, field: &'static str, rule: &'static str, description: &str) {
        self.note(field, None, rule, description);
    }

    /// Notes that an element of `field` breaks `rule`.
    pub fn add_element(
        &mut self,
        field: &'static str,
        at: &At,
        rule: &'static str,
        description: &str,
    ) {
        self.note(field, Some(at), rule, description);
    }

    /// Checks the message that `field` of the current one holds.
    pub fn within(&mut self, field: &'static str, message: &impl Validate) {
        self.descend(field, None, message);
    }

    /// Checks the message that an element of `field` is.
    pub fn within_element(&mut self, field: &'static str, at: At, message: &impl Validate) {
        self.descend(field, Some(at), message);
    }

    /// Whether more would not be kept, so that there is no use in looking for them.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Whether no rule is broken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// What was found.
    #[must_use]
    pub fn found(&self) -> &[Violation] {
        &self.found
    }

    /// What was found, to keep.
    #[must_use]
    pub fn into_found(self) -> Vec<Violation> {
        self.found
    }

    fn descend(&mut self, field: &'static str, at: Option<At>, message: &impl Validate) {
        if !self.full {
            self.path.push((field, at));
            message.validate(self);
            self.path.pop();
        }
    }

    fn note(&mut self, name: &str, at: Option<&At>, rule: &'static str, description: &str) {
        if self.full {
            return;
        }
        let field = self.path_to(name, at);
        self.bytes += field.len() + description.len();
        self.full = self.found.len() == COUNT_MAX || self.bytes > BYTES_MAX;
        // The first is kept whatever its size, since it alone can be put right.
        if self.full && !self.found.is_empty() {
            self.found.push(Violation {
                field: String::new(),
                description: "more rules are broken than are listed".to_owned(),
                rule: "more",
            });
        } else {
            self.found.push(Violation {
                field: shortened(field),
                description: shortened(description.to_owned()),
                rule,
            });
        }
    }

    fn path_to(&self, name: &str, at: Option<&At>) -> String {
        let mut path = String::new();
        let outer = self.path.iter().map(|(name, at)| (*name, at.as_ref()));
        for (name, at) in outer.chain([(name, at)]) {
            if !path.is_empty() && !name.is_empty() {
                path.push('.');
            }
            path.push_str(name);
            if let Some(at) = at {
                let _ = write!(path, "{at}");
            }
        }
        path
    }
}

/// `text` cut to what a single entry may take.
fn shortened(mut text: String) -> String {
    const MAX: usize = BYTES_MAX / 4;
    if text.len() > MAX {
        text.truncate(text.floor_char_boundary(MAX));
        text.push('…');
    }
    text
}

impl<T: Validate> Validate for Box<T> {
    fn validate(&self, violations: &mut Violations) {
        (**self).validate(violations);
    }
}

/// Types of `google.protobuf` that a method can take as they are; they have no rules.
macro_rules! without_rules {
    ($($type:ty),* $(,)?) => {
        $(impl Validate for $type {
            fn validate(&self, _: &mut Violations) {}
        })*
    };
}

without_rules!(
    (),
    bool,
    f32,
    f64,
    i32,
    i64,
    u32,
    u64,
    String,
    Vec<u8>,
    Any,
    Duration,
    FieldMask,
    ListValue,
    Struct,
    Timestamp,
    Value,
);

#[cfg(test)]
mod tests;

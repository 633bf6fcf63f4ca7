//! A value before it is understood.

use std::fmt;

use ::config::{Value, ValueKind};

/// A value as a layer gives it: files give typed values, the environment and the command line
/// give text that is understood by what is expected.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    inner: Inner<'a>,
}

/// Without the value, which may be a secret.
impl fmt::Debug for Given<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given").finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
enum Inner<'a> {
    Loose(&'a str),
    Typed(&'a Value),
}

impl<'a> Given<'a> {
    pub(super) fn new(value: &'a Value, loose: bool) -> Self {
        let inner = match &value.kind {
            ValueKind::String(text) if loose => Inner::Loose(text),
            _ => Inner::Typed(value),
        };
        Self { inner }
    }

    /// As text.
    #[must_use]
    pub fn text(self) -> Option<&'a str> {
        match self.inner {
            Inner::Loose(text) => Some(text),
            Inner::Typed(value) => match &value.kind {
                ValueKind::String(text) => Some(text),
                _ => None,
            },
        }
    }

    /// As a whole number.
    #[must_use]
    pub fn whole(self) -> Option<i128> {
        match self.inner {
            Inner::Loose(text) => text.trim().replace('_', "").parse().ok(),
            Inner::Typed(value) => match value.kind {
                ValueKind::I128(number) => Some(number),
                _ => None,
            },
        }
    }

    /// As a number, which is finite.
    #[must_use]
    pub fn number(self) -> Option<f64> {
        let number = match self.inner {
            Inner::Loose(text) => text.trim().parse().ok()?,
            Inner::Typed(value) => match value.kind {
                ValueKind::Float(number) => number,
                // Whole numbers a person writes for a share or a factor are small.
                #[allow(clippy::cast_precision_loss)]
                ValueKind::I128(number) => number as f64,
                _ => return None,
            },
        };
        number.is_finite().then_some(number)
    }

    /// As true or false.
    #[must_use]
    pub fn switch(self) -> Option<bool> {
        match self.inner {
            Inner::Loose(text) => text.trim().parse().ok(),
            Inner::Typed(value) => match value.kind {
                ValueKind::Boolean(switch) => Some(switch),
                _ => None,
            },
        }
    }

    /// As a list: an array in a file, comma-separated elsewhere.
    #[must_use]
    pub fn list(self) -> Option<Vec<Given<'a>>> {
        match self.inner {
            Inner::Loose(text) if text.trim().is_empty() => Some(Vec::new()),
            Inner::Loose(text) => {
                let parts = text.split(',').map(str::trim);
                Some(
                    parts
                        .map(|part| Given {
                            inner: Inner::Loose(part),
                        })
                        .collect(),
                )
            }
            Inner::Typed(value) => match &value.kind {
                ValueKind::Array(values) => Some(
                    values
                        .iter()
                        .map(|value| Given::new(value, false))
                        .collect(),
                ),
                _ => None,
            },
        }
    }

    /// What a table holds under `name`.
    #[must_use]
    pub fn field(self, name: &str) -> Option<Given<'a>> {
        match self.inner {
            Inner::Typed(Value {
                kind: ValueKind::Table(table),
                ..
            }) => table.get(name).map(|value| Given {
                inner: match &value.kind {
                    ValueKind::String(text) => Inner::Loose(text),
                    _ => Inner::Typed(value),
                },
            }),
            _ => None,
        }
    }

    /// Whether it is text without a character, from the environment or the command line.
    #[must_use]
    pub fn is_blank(self) -> bool {
        matches!(self.inner, Inner::Loose(text) if text.trim().is_empty())
    }

    /// In TOML, shortened to what fits a message.
    pub(super) fn show(self) -> String {
        let shown = match self.inner {
            Inner::Loose(text) => quoted(text),
            Inner::Typed(value) => match &value.kind {
                ValueKind::String(text) => quoted(text),
                ValueKind::Table(_) => "{…}".to_owned(),
                ValueKind::Array(values) => {
                    let shown = values.iter().map(|value| Given::new(value, false).show());
                    format!("[{}]", shown.collect::<Vec<_>>().join(", "))
                }
                ValueKind::Float(number) => toml::Value::Float(*number).to_string(),
                other => other.to_string(),
            },
        };
        if shown.chars().count() <= SHOWN_MAX {
            return shown;
        }
        let start: String = shown.chars().take(SHOWN_MAX).collect();
        format!("{start}…")
    }
}

/// Characters of a wrong value that a message repeats.
const SHOWN_MAX: usize = 80;

/// A string as TOML writes it.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

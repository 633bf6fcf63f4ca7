//! Typed events, declared with [`event!`](crate::telemetry::event!).

use std::time::Duration;

#[doc(hidden)]
pub use tracing;

/// Something that happened, declared once: a log line, and an event of the span it happens in.
pub trait Event {
    /// The message, the same every time.
    const MESSAGE: &'static str;
    /// What it means.
    const DESCRIPTION: &'static str;
    /// Names and meanings of its fields.
    const FIELDS: &'static [(&'static str, &'static str)];

    /// Writes it. Costs one cached check where nobody listens.
    fn emit(&self);
}

/// A type that a field of an event can have.
pub trait Field {
    /// The value as log lines and spans take it.
    type Value<'a>: tracing::Value
    where
        Self: 'a;

    /// Reads the value.
    fn value(&self) -> Self::Value<'_>;
}

macro_rules! plain {
    ($($type:ty)*) => {$(
        impl Field for $type {
            type Value<'a> = Self;

            fn value(&self) -> Self {
                *self
            }
        }
    )*};
}

plain!(bool i32 i64 u16 u32 u64 usize f64 &'static str);

impl Field for String {
    type Value<'a> = &'a str;

    fn value(&self) -> &str {
        self
    }
}

/// In seconds.
impl Field for Duration {
    type Value<'a> = f64;

    fn value(&self) -> f64 {
        self.as_secs_f64()
    }
}

impl<T: Field> Field for Option<T> {
    type Value<'a>
        = Option<T::Value<'a>>
    where
        T: 'a;

    fn value(&self) -> Option<T::Value<'_>> {
        self.as_ref().map(Field::value)
    }
}

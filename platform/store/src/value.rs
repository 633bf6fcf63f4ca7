//! What goes into statements and comes out of them.

use sqlx::{
    Arguments as _, Row as _,
    any::{AnyArguments, AnyRow},
};

use crate::{Error, Kind};

/// A value to bind: the types that mean the same on every engine.
///
/// Times are microseconds since 1970 as integers, identifiers text, truth 0 or 1.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// `BIGINT`.
    Integer(i64),
    /// `TEXT`.
    Text(String),
    /// `BLOB` or `BYTEA`.
    Bytes(Vec<u8>),
    /// An absent `BIGINT`.
    NoInteger,
    /// An absent `TEXT`.
    NoText,
}

// Values may be anything a person typed: only their type is ever shown.
impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Integer(_) => "Integer",
            Self::Text(_) => "Text",
            Self::Bytes(_) => "Bytes",
            Self::NoInteger => "NoInteger",
            Self::NoText => "NoText",
        })
    }
}

impl Value {
    pub(crate) fn add_to(self, arguments: &mut AnyArguments) {
        match self {
            Self::Integer(value) => arguments.add(value),
            Self::Text(value) => arguments.add(value),
            Self::Bytes(value) => arguments.add(value),
            Self::NoInteger => arguments.add(None::<i64>),
            Self::NoText => arguments.add(None::<String>),
        }
        .expect("these types encode without a fault");
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::Integer(value.into())
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Integer(value.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Integer(value.into())
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(value.to_vec())
    }
}

impl From<Option<i64>> for Value {
    fn from(value: Option<i64>) -> Self {
        value.map_or(Self::NoInteger, Self::Integer)
    }
}

impl From<Option<&str>> for Value {
    fn from(value: Option<&str>) -> Self {
        value.map_or(Self::NoText, |value| Self::Text(value.to_owned()))
    }
}

/// One row of an answer, read by column name.
pub struct Row {
    statement: &'static str,
    row: AnyRow,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row")
            .field("statement", &self.statement)
            .finish_non_exhaustive()
    }
}

macro_rules! columns {
    ($($(#[doc = $doc:literal])* $name:ident: $type:ty;)*) => {$(
        $(#[doc = $doc])*
        ///
        /// # Errors
        ///
        /// If there is no such column, or it is of another type: a mistake in the statement.
        pub fn $name(&self, column: &str) -> Result<$type, Error> {
            self.row
                .try_get(column)
                .map_err(|error| Error::new(self.statement, error))
        }
    )*};
}

impl Row {
    pub(crate) fn new(statement: &'static str, row: AnyRow) -> Self {
        Self { statement, row }
    }

    columns! {
        /// The integer in `column`.
        integer: i64;
        /// The integer in `column`, where there is one.
        optional_integer: Option<i64>;
        /// The text in `column`.
        text: String;
        /// The text in `column`, where there is one.
        optional_text: Option<String>;
        /// The bytes in `column`.
        bytes: Vec<u8>;
    }

    /// The integer in `column` as a narrower type or one without a sign.
    ///
    /// # Errors
    ///
    /// As [`Row::integer`], and if the value does not fit: nothing this service wrote.
    pub fn narrow<T: TryFrom<i64>>(&self, column: &str) -> Result<T, Error> {
        T::try_from(self.integer(column)?).map_err(|_| Error::of_kind(self.statement, Kind::Broken))
    }

    /// The error for a row whose content no version of the service writes.
    #[must_use]
    pub fn unreadable(&self) -> Error {
        Error::of_kind(self.statement, Kind::Broken)
    }
}

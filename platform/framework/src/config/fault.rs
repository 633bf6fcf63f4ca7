//! What is wrong with a configuration, and where it says so.

use std::{fmt, sync::Arc};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Written in the program, beside the key.
    Default,
    /// A line of a file, or of another named text.
    File {
        /// The file as it was named, not made absolute.
        name: Arc<str>,
        /// From 1.
        line: usize,
        /// From 1, in characters; 0 where a whole line is meant.
        column: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A `--set` on the command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File {
                name,
                line: 0,
                column: _,
            } => f.write_str(name),
            Self::File {
                name,
                line,
                column: 0,
            } => write!(f, "{name}:{line}"),
            Self::File { name, line, column } => write!(f, "{name}:{line}:{column}"),
            Self::Variable(name) => f.write_str(name),
            Self::Flag => f.write_str("--set"),
        }
    }
}

/// One thing that is wrong. Displayed as one line: `origin: what is wrong`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where to mend it.
    pub origin: Origin,
    /// The key's full path, as in `limits.calls_max`; empty where no key is meant.
    pub key: String,
    /// What is wrong and what is expected instead. Never shows a secret.
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.reason)
    }
}

/// Everything that is wrong with a configuration, at once: files by name and line, then the
/// environment, then the command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Faults {
    list: Vec<Fault>,
}

impl Faults {
    pub(crate) fn new(mut list: Vec<Fault>) -> Self {
        list.sort();
        list.dedup();
        Self { list }
    }

    /// The faults, never none.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.list.iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.list.as_slice() {
            [one] => one.fmt(f),
            many => {
                write!(f, "{} faults in the configuration", many.len())?;
                many.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
            }
        }
    }
}

impl std::error::Error for Faults {}

/// The closest of `known` to a misspelt `word`, if one is close enough to be meant.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = 1 + word.chars().count() / 4;
    known
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

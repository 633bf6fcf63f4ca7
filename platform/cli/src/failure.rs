//! How a verb ends: the exit codes scripts rely on, and the one line that says why.

use std::{fmt, process::ExitCode};

/// An exit code of `gantry`; the numbers are part of its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Fine,
    /// It did not work.
    Failed,
    /// The command line or a configuration file is wrong; trying again will not help.
    Usage,
    /// `gantry wait` waited as long as it was told to.
    WaitTimedOut,
    /// `gantry wait` waits for something that will not come by itself.
    WaitFailed,
    /// A second signal cut the drain short, or a signal cut a call short.
    Interrupted,
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::WaitTimedOut => 17,
            Self::WaitFailed => 18,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a verb did not do what it was asked; printed once, by `main`.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    text: String,
}

impl Failure {
    /// It did not work.
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::new(Exit::Failed, text)
    }

    /// What was asked for, or a file, is wrong.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self {
            exit,
            text: text.into(),
        }
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The known name nearest to a mistyped one, as a sentence to append: ` (did you mean "orders"?)`.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .min()
        .map(|(_, known)| format!(" (did you mean \"{known}\"?)"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_another_word_is_not() {
        let known = ["accounts", "catalog", "orders"];
        assert_eq!(" (did you mean \"orders\"?)", nearest("order", known));
        assert_eq!(" (did you mean \"catalog\"?)", nearest("catalgo", known));
        assert_eq!("", nearest("payments", known));
    }
}

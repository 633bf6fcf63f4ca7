//! What is written on an event that comes again later, or never.

use gantry::status::chain;
use gantry_store::Timestamp;

use super::{facts::Facts, handler::Failure};
use crate::{broker::Headers, dead::Reason, envelope::rfc3339, headers};

/// Longest error written on a dead letter, in bytes.
const ERROR_MAX: usize = 1_024;

/// How an attempt failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The handler said so.
    Said(Failure),
    /// It panicked.
    Panicked,
    /// It took too long.
    TimedOut,
    /// Nothing here handles its type; another instance may, as while a new version is rolled out.
    UnknownType,
    /// Its transaction was broken off by the database, again and again, and then the database was there.
    BrokenOff(gantry_store::Error),
    /// What it wrote could not be kept.
    NotKept(gantry_store::Error),
}

impl Fault {
    /// Whether a further attempt makes no sense.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Said(Failure::Reject(_)))
    }

    /// Whether a further attempt makes sense a moment later.
    pub(crate) fn is_brief(&self) -> bool {
        !matches!(self, Self::UnknownType | Self::BrokenOff(_))
    }

    /// Why the event becomes a dead letter of it.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Said(Failure::Reject(_)) => Reason::Rejected,
            Self::Said(Failure::Retry(_)) | Self::BrokenOff(_) | Self::NotKept(_) => {
                Reason::AttemptsUsedUp
            }
            Self::Panicked => Reason::Panicked,
            Self::TimedOut => Reason::TimedOut,
            Self::UnknownType => Reason::UnknownType,
        }
    }

    /// What went wrong, for people. Of a panic not even the message: it may quote the event.
    pub(crate) fn error(&self) -> String {
        let mut text = match self {
            Self::Said(Failure::Retry(source) | Failure::Reject(source)) => chain(source.as_ref()),
            Self::BrokenOff(source) | Self::NotKept(source) => chain(source),
            Self::Panicked => "the handler panicked".to_owned(),
            Self::TimedOut => "the handler took too long".to_owned(),
            Self::UnknownType => "nothing here handles its type".to_owned(),
        };
        text.truncate(text.floor_char_boundary(ERROR_MAX));
        text
    }
}

/// Why an event is a dead letter.
#[derive(Debug)]
pub(crate) struct Dead {
    pub(crate) reason: Reason,
    /// What went wrong, for people.
    pub(crate) error: String,
    pub(crate) attempts: u32,
}

impl Dead {
    pub(crate) fn new(reason: Reason, error: String, attempts: u32) -> Self {
        Self {
            reason,
            error,
            attempts,
        }
    }
}

/// What an event that comes again carries: how often it was tried, and since when.
pub(crate) fn put_off(facts: &Facts, attempts: u32) -> Headers {
    let first_seen = rfc3339(facts.first_seen);
    headers([
        (headers::ATTEMPT, attempts.to_string()),
        (headers::FIRST_SEEN, first_seen),
        (headers::HOLD, "0".to_owned()),
    ])
}

/// What a dead letter of `group` carries.
pub(crate) fn dead(group: &str, dead: Dead) -> Headers {
    headers([
        (headers::DEAD_REASON, dead.reason.as_str().to_owned()),
        (headers::DEAD_ERROR, dead.error),
        (headers::DEAD_ATTEMPTS, dead.attempts.to_string()),
        (headers::DEAD_GROUP, group.to_owned()),
        (headers::DEAD_TIME, rfc3339(Timestamp::now())),
    ])
}

fn headers<const COUNT: usize>(all: [(&str, String); COUNT]) -> Headers {
    all.map(|(name, value)| (name.to_owned(), value)).into()
}

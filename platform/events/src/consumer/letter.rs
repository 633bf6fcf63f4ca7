//! What is written on an event that comes again later, or never.

use gantry::{status::chain, telemetry};
use gantry_store::Timestamp;

use super::{facts::Facts, handler::Failure};
use crate::{broker::Headers, envelope::rfc3339, headers};

/// Longest error written on a dead letter, in bytes.
const ERROR_MAX: usize = 1_024;

telemetry::label! {
    /// Why an event became a dead letter.
    pub(crate) enum Reason {
        /// Its headers do not say which it is, or its body is none of its type.
        Malformed = "malformed",
        /// Nothing here handles its type.
        UnknownType = "unknown_type",
        /// Its handler says that it will never go well.
        Rejected = "rejected",
        /// All its attempts failed.
        AttemptsUsedUp = "attempts_used_up",
        /// All its attempts failed, the last one by a panic.
        Panicked = "panicked",
        /// All its attempts failed, the last one by taking too long.
        TimedOut = "timed_out",
    }
}

/// How an attempt failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The handler said so.
    Said(Failure),
    /// It panicked.
    Panicked,
    /// It took too long.
    TimedOut,
    /// What it wrote could not be kept.
    NotKept(gantry_store::Error),
}

impl Fault {
    /// Whether a further attempt makes no sense.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Said(Failure::Reject(_)))
    }

    /// Why the event becomes a dead letter of it.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Said(Failure::Reject(_)) => Reason::Rejected,
            Self::Said(Failure::Retry(_)) | Self::NotKept(_) => Reason::AttemptsUsedUp,
            Self::Panicked => Reason::Panicked,
            Self::TimedOut => Reason::TimedOut,
        }
    }

    /// What went wrong, for people. Of a panic not even the message: it may quote the event.
    pub(crate) fn error(&self) -> String {
        let mut text = match self {
            Self::Said(Failure::Retry(source) | Failure::Reject(source)) => chain(source.as_ref()),
            Self::NotKept(source) => chain(source),
            Self::Panicked => "the handler panicked".to_owned(),
            Self::TimedOut => "the handler took too long".to_owned(),
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

//! What can go wrong with a statement.

use std::{fmt, time::Duration};

use gantry::status;
use tonic::Status;

/// When to come back to a database that is busy: another writer is done by then.
const PAUSE_BUSY: Duration = Duration::from_millis(200);

/// When to come back to a database that does not answer.
const PAUSE_AWAY: Duration = Duration::from_secs(2);

/// A statement that failed, by its name; the values it was given are never part of it.
#[derive(Debug)]
pub struct Error {
    statement: &'static str,
    kind: Kind,
    source: Option<sqlx::Error>,
}

/// What a failure means to whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No connection was free in time, or another writer held the database for too long.
    Busy,
    /// The statement took longer than it may; whether it took effect is unknown outside a
    /// transaction.
    TimedOut,
    /// The database cannot be reached, or is being closed.
    Unavailable,
    /// There is no room left to write.
    Full,
    /// A row with that key exists.
    Conflict,
    /// Anything else: a mistake in a statement or damage to the database.
    Broken,
}

impl Kind {
    pub(crate) fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolTimedOut => Self::Busy,
            sqlx::Error::PoolClosed
            | sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::WorkerCrashed => Self::Unavailable,
            sqlx::Error::Database(error) if error.is_unique_violation() => Self::Conflict,
            sqlx::Error::Database(error) => error.code().map_or(Self::Broken, |code| {
                // SQLite's extended codes as numbers: the low byte is the family.
                match code.parse::<u32>().map(|code| code & 0xff) {
                    Ok(5 | 6) => Self::Busy,
                    Ok(10 | 14) => Self::Unavailable,
                    Ok(13) => Self::Full,
                    _ => Self::Broken,
                }
            }),
            _ => Self::Broken,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "the database is busy",
            Self::TimedOut => "the statement took too long",
            Self::Unavailable => "the database cannot be reached",
            Self::Full => "there is no room left to write",
            Self::Conflict => "a row with that key exists",
            Self::Broken => "the statement failed",
        })
    }
}

impl Error {
    pub(crate) fn new(statement: &'static str, source: sqlx::Error) -> Self {
        Self {
            statement,
            kind: Kind::of(&source),
            source: Some(source),
        }
    }

    pub(crate) fn of_kind(statement: &'static str, kind: Kind) -> Self {
        Self {
            statement,
            kind,
            source: None,
        }
    }

    /// What it means to whoever asked.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The name of the statement.
    #[must_use]
    pub fn statement(&self) -> &'static str {
        self.statement
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.statement, self.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// What a caller sees of a failed statement: that it may try again, and when, or that it was not
/// its fault.
/// The statement and its cause go to the log here, where the error ends.
impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let cause = status::chain(&error);
        match error.kind {
            Kind::Busy | Kind::TimedOut | Kind::Unavailable => {
                tracing::warn!(error = %cause, "statement failed for now");
                let pause = match error.kind {
                    Kind::Busy => PAUSE_BUSY,
                    _ => PAUSE_AWAY,
                };
                status::busy("the database is busy or away; try again", pause)
            }
            Kind::Full => {
                tracing::error!(error = %cause, "statement found no room to write");
                Status::resource_exhausted("the database is full")
            }
            Kind::Conflict | Kind::Broken => {
                tracing::error!(error = %cause, "statement failed");
                Status::internal("the database refused a statement")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a caller is told to come back, and when, exactly where that may help.
    /// Method: every kind of failure, read as a caller does.
    #[test]
    fn passing_failures_say_when_to_come_back() {
        let cases = [
            (Kind::Busy, tonic::Code::Unavailable, Some("200")),
            (Kind::TimedOut, tonic::Code::Unavailable, Some("2000")),
            (Kind::Unavailable, tonic::Code::Unavailable, Some("2000")),
            (Kind::Full, tonic::Code::ResourceExhausted, None),
            (Kind::Conflict, tonic::Code::Internal, None),
            (Kind::Broken, tonic::Code::Internal, None),
        ];
        for (kind, code, millis) in cases {
            let status = Status::from(Error::of_kind("test.any", kind));
            assert_eq!(code, status.code(), "{kind:?}");
            let pushback = status.metadata().get("grpc-retry-pushback-ms");
            let pushback = pushback.map(|it| it.to_str().unwrap());
            assert_eq!(millis, pushback, "{kind:?}");
        }
    }
}

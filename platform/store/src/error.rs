//! What can go wrong with a statement.

use std::{fmt, time::Duration};

use gantry::{BoxError, status};
use sqlx::postgres::PgDatabaseError;
use tonic::Status;

/// When to come back to a database that is busy: another writer is done by then.
const PAUSE_BUSY: Duration = Duration::from_millis(200);

/// When to come back to a database that does not answer.
const PAUSE_AWAY: Duration = Duration::from_secs(2);

/// A statement that failed, by its name; the values it was given are never part of it.
pub struct Error {
    statement: &'static str,
    kind: Kind,
    source: Option<BoxError>,
}

/// What a failure means to whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No connection was free in time, another writer held the database or a row for too long, or
    /// two of them were in each other's way; the same may succeed at once.
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
            // A server that ends in the middle of a sentence.
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed => Self::Unavailable,
            sqlx::Error::Database(error) if error.is_unique_violation() => Self::Conflict,
            sqlx::Error::Database(error) => {
                let code = error.code().unwrap_or_default();
                match error.try_downcast_ref::<PgDatabaseError>() {
                    Some(_) => Self::of_server(&code),
                    None => Self::of_file(&code),
                }
            }
            _ => Self::Broken,
        }
    }
}

impl Kind {
    /// SQLite's extended codes as numbers: the low byte is the family.
    fn of_file(code: &str) -> Self {
        match code.parse::<u32>().map(|code| code & 0xff) {
            Ok(5 | 6) => Self::Busy,
            Ok(10 | 14) => Self::Unavailable,
            Ok(13) => Self::Full,
            _ => Self::Broken,
        }
    }

    /// PostgreSQL's codes: the first two letters are the class.
    fn of_server(code: &str) -> Self {
        match code {
            // Serialization failure, deadlock, a lock that was not free in time, too many
            // connections: others were in the way.
            "40001" | "40P01" | "55P03" | "53300" => Self::Busy,
            // Ended by its timeout, or by a person.
            "57014" => Self::TimedOut,
            // A disk without room. Not 53400, a limit that one statement went beyond, as of the files that
            // it needs: others go on.
            "53100" => Self::Full,
            // A standby that takes no writes; a transaction that stood still for too long.
            "25006" | "25P03" | "53200" | "3D000" => Self::Unavailable,
            // Connection failures, refused logins, shutdowns, and errors of the system under it.
            _ => match code.get(..2) {
                Some("08" | "28" | "57" | "58") => Self::Unavailable,
                _ => Self::Broken,
            },
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
            source: Some(source.into()),
        }
    }

    pub(crate) fn of_kind(statement: &'static str, kind: Kind) -> Self {
        Self {
            statement,
            kind,
            source: None,
        }
    }

    /// The error of a library that was given what no statement can be run with: `source` says what.
    #[must_use]
    pub fn broken(statement: &'static str, source: impl Into<BoxError>) -> Self {
        Self {
            source: Some(source.into()),
            ..Self::of_kind(statement, Kind::Broken)
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

// What a server says beside its message names the values of a row.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("statement", &self.statement)
            .field("kind", &self.kind)
            .field("source", &self.source.as_ref().map(ToString::to_string))
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.statement, self.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
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

    /// Goal: what a server says is told apart by what a caller can do about it.
    /// Method: a code of each sort.
    #[test]
    fn codes_of_a_server_have_their_kinds() {
        for (code, kind) in [
            ("40001", Kind::Busy),
            ("40P01", Kind::Busy),
            ("55P03", Kind::Busy),
            ("53300", Kind::Busy),
            ("57014", Kind::TimedOut),
            ("57P01", Kind::Unavailable),
            ("57P03", Kind::Unavailable),
            ("08006", Kind::Unavailable),
            ("28P01", Kind::Unavailable),
            ("25006", Kind::Unavailable),
            ("53100", Kind::Full),
            ("42601", Kind::Broken),
            ("23503", Kind::Broken),
            ("é", Kind::Broken),
            ("", Kind::Broken),
        ] {
            assert_eq!(kind, Kind::of_server(code), "{code}");
        }
    }

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

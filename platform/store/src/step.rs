//! What a database is asked for, one thing after the other.

/// Something that a database is asked for; transactions and statements by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// A transaction is begun.
    Begin(&'static str),
    /// A statement is run.
    Statement(&'static str),
    /// A transaction is committed.
    Commit(&'static str),
    /// A transaction is rolled back.
    Rollback(&'static str),
}

impl Step {
    /// The name of the transaction or the statement.
    #[must_use]
    pub const fn name(self) -> &'static str {
        let (Self::Begin(name) | Self::Statement(name) | Self::Commit(name) | Self::Rollback(name)) =
            self;
        name
    }
}

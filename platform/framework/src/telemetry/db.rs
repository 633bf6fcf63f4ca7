//! What is measured and traced of database statements.
//!
//! A statement is known by a name fixed in the program; its text and its values appear nowhere.
//!
//! ```text
//! Database ──statement(name)──▶ Statement ──connected()──▶ ──end(Outcome)
//! ```

use tokio::time::Instant;
use tracing::{Span, field::Empty};

use super::{
    metric::{Family, Histogram, series},
    trace,
};
use crate::names::{field, metric, span};

super::label! {
    /// How a statement ended.
    pub enum Outcome {
        /// It did what it was to do.
        Ok = "ok",
        /// It failed.
        Error = "error",
        /// Whoever waited went away.
        Cancelled = "cancelled",
    }
}

/// One database, as this process uses it.
#[derive(Debug, Clone)]
pub struct Database {
    system: &'static str,
    duration: Family<Histogram, Outcome>,
    wait: Histogram,
}

impl Database {
    /// A database of `system`, by its OpenTelemetry name: `sqlite` or `postgresql`.
    #[must_use]
    pub fn new(system: &'static str) -> Self {
        Self {
            system,
            duration: Family::register(&metric::DB_STATEMENT_DURATION, &[]).visible(),
            wait: series(&metric::DB_POOL_WAIT, &[]),
        }
    }

    /// Starts to measure a statement, before it has a connection.
    #[must_use]
    pub fn statement(&self, name: &'static str) -> Statement {
        let span = tracing::info_span!(
            target: span::DB,
            span::STATEMENT,
            otel.name = name,
            otel.kind = "client",
            { field::DB_SYSTEM } = self.system,
            { field::DB_STATEMENT } = name,
            { field::DB_POOL_WAIT } = Empty,
            { field::ERROR_TYPE } = Empty,
            { field::OTEL_STATUS } = Empty,
        );
        trace::join_call(&span);
        Statement {
            database: self.clone(),
            began: Instant::now(),
            connected: None,
            span,
            outcome: Outcome::Cancelled,
        }
    }
}

/// A statement that runs, until dropped; dropped without an end it counts as cancelled.
#[derive(Debug)]
pub struct Statement {
    database: Database,
    began: Instant,
    connected: Option<Instant>,
    span: Span,
    outcome: Outcome,
}

impl Statement {
    /// The span to run the statement in.
    #[must_use]
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Notes that the pool gave a connection; what came before was the wait for it.
    pub fn connected(&mut self) {
        let now = Instant::now();
        let wait = now.duration_since(self.began);
        self.connected = Some(now);
        self.database.wait.record_duration(wait);
        self.span.record(field::DB_POOL_WAIT, wait.as_secs_f64());
    }

    /// Ends the statement.
    pub fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        match self.connected {
            Some(connected) => self
                .database
                .duration
                .with(self.outcome)
                .record_duration(connected.elapsed()),
            // A wait in vain is the longest there is; left out, it would flatter the pool.
            None => self.database.wait.record_duration(self.began.elapsed()),
        }
        if self.outcome != Outcome::Ok && !self.span.is_disabled() {
            // Entered because a span ends, for OpenTelemetry, when it was last left.
            self.span.in_scope(|| {
                self.span.record(field::ERROR_TYPE, self.outcome.as_str());
                self.span.record(field::OTEL_STATUS, "ERROR");
            });
        }
    }
}

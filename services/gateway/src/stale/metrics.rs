//! What is counted of stale answers.

use gantry::telemetry::{label, metrics};

label! {
    /// What was wrong with the backend in whose place an answer was given.
    pub enum Cause {
        /// It failed, is away, or took too long.
        Fault = "fault",
        /// It is asked for too much, and said so.
        Overload = "overload",
    }
}

metrics! {
    /// How answers are kept and given once more; clones share the counters.
    pub struct Metrics {
        /// Answers that were given once more, marked as stale, by what was wrong with the backend.
        answers: counter "gateway_stale_answers_total" { reason: Cause };
        /// Answers that are kept for when a backend cannot answer.
        entries: gauge "gateway_stale_entries";
        /// Bytes that they have.
        bytes: gauge "gateway_stale_bytes" bytes;
    }
}

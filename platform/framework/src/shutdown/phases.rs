//! One bounded step after the other.

use std::{future::Future, time::Duration};

use tokio::time::{self, Instant};

use crate::journal::{Journal, Kind};

/// Runs the steps of a drain, each within its bound, and says what each took.
#[derive(Debug)]
pub struct Phases {
    journal: Journal,
    begun: Instant,
}

/// How a phase ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It was done in time.
    Done(T),
    /// Its bound passed first; what it left undone was dropped.
    Cut,
}

impl Phases {
    /// Begins now.
    #[must_use]
    pub fn begin(journal: Journal) -> Self {
        Self {
            journal,
            begun: Instant::now(),
        }
    }

    /// Runs one step, for `bound` at most. What is not done by then is dropped.
    pub async fn run<F: Future>(
        &self,
        name: &'static str,
        bound: Duration,
        step: F,
    ) -> Outcome<F::Output> {
        let begun = Instant::now();
        let outcome = match time::timeout(bound, step).await {
            Ok(output) => Outcome::Done(output),
            Err(_) => Outcome::Cut,
        };
        let took = begun.elapsed();
        let detail = match outcome {
            Outcome::Done(_) => format!("done in {} ms", took.as_millis()),
            Outcome::Cut => format!("cut after {} ms", took.as_millis()),
        };
        tracing::info!(
            phase = name,
            ?took,
            done = outcome.is_done(),
            "drain phase ended"
        );
        self.journal.record(Kind::DrainPhase, name, detail);
        outcome
    }

    /// Time since the drain began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

impl<T> Outcome<T> {
    /// Whether the phase was done in time.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a step takes its own time when it is quick, its bound when it hangs, and both are
    /// in the journal in order.
    /// Method: one of each on the paused clock.
    #[tokio::test(start_paused = true)]
    async fn each_step_is_bounded_and_recorded() {
        let journal = Journal::new();
        let phases = Phases::begin(journal.clone());
        let bound = Duration::from_secs(3);

        let quick = phases
            .run("quick", bound, time::sleep(Duration::from_secs(1)))
            .await;
        let hung = phases
            .run("hung", bound, std::future::pending::<()>())
            .await;

        assert_eq!((Outcome::Done(()), Outcome::Cut), (quick, hung));
        assert_eq!(Duration::from_secs(4), phases.elapsed());
        let (past, _) = journal.watch();
        let lines: Vec<_> = past
            .iter()
            .map(|entry| (entry.subject.as_str(), entry.detail.as_str()))
            .collect();
        assert_eq!(
            vec![("quick", "done in 1000 ms"), ("hung", "cut after 3000 ms")],
            lines
        );
    }
}

//! How many calls per second are due, over time: stages one after another, each with a rate that
//! stays or changes evenly.
//!
//! Call `k` is due when the rate, summed up over time, has come to `k`: no call depends on another,
//! and each interval has exactly as many calls as the area under its part of the curve.

use std::time::Duration;

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stage {
    /// Calls per second at its beginning.
    pub(crate) from: f64,
    /// Calls per second at its end.
    pub(crate) to: f64,
    pub(crate) time: Duration,
}

impl Stage {
    /// Calls due in it.
    fn calls(&self) -> f64 {
        self.time.as_secs_f64() * f64::midpoint(self.from, self.to)
    }
}

/// The rates of a whole run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Rates {
    /// The same for as long as it goes on.
    Constant(f64),
    /// What each stage says, and nothing after the last.
    Stages(Vec<Placed>),
}

/// A stage, and what was before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Placed {
    pub(crate) stage: Stage,
    /// Since the beginning of the run.
    begins: Duration,
    /// Calls due before it.
    before: f64,
}

impl Rates {
    /// One stage after another.
    pub(crate) fn of(stages: &[Stage]) -> Self {
        let mut placed = Vec::new();
        let mut begins = Duration::ZERO;
        let mut before = 0.0;
        for stage in stages {
            placed.push(Placed {
                stage: *stage,
                begins,
                before,
            });
            begins += stage.time;
            before += stage.calls();
        }
        Self::Stages(placed)
    }

    /// How long the stages are, together.
    pub(crate) fn total(stages: &[Stage]) -> Duration {
        stages.iter().map(|stage| stage.time).sum()
    }

    /// When call `number` is due, since the beginning; none if it never is.
    pub(crate) fn due(&self, number: u64) -> Option<Duration> {
        #[allow(clippy::cast_precision_loss, reason = "exact to 2^53 calls")]
        let number = number as f64;
        match self {
            Self::Constant(rate) => Duration::try_from_secs_f64(number / rate).ok(),
            Self::Stages(stages) => {
                let after = stages.partition_point(|placed| placed.before <= number);
                // The last that has begun: those before it without a call of their own are over.
                let placed = stages.get(after.checked_sub(1)?)?;
                let due = placed.due(number - placed.before);
                // Rounded, it may have fallen between two stages.
                due.or_else(|| stages.get(after).map(|next| next.begins))
            }
        }
    }
}

impl Placed {
    /// When its call `number`, from 0, is due, since the beginning of the run.
    fn due(&self, number: f64) -> Option<Duration> {
        let Stage { from, to, time } = self.stage;
        if number >= self.stage.calls() {
            return None;
        }
        if number == 0.0 {
            return Some(self.begins);
        }
        // from·t + slope·t²/2 = number, solved for t without a difference of near numbers.
        let slope = (to - from) / time.as_secs_f64();
        let root = (from * from + 2.0 * slope * number).max(0.0).sqrt();
        let offset = Duration::try_from_secs_f64(2.0 * number / (from + root)).ok()?;
        Some(self.begins + offset.min(time))
    }
}

#[cfg(test)]
mod tests;

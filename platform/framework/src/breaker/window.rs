//! What became of the calls of the last seconds, exactly, in ten parts.
//!
//! A part falls out as a whole, so that between nine and ten tenths of the window are seen. Counts
//! belong to one generation of the breaker: what was counted before it opened says nothing once it
//! is closed again.

use std::time::Duration;

use super::{state::Moment, sync::Mutex};

/// Parts of the window.
const PARTS: u32 = 10;

/// How many calls ended, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// That say something.
    pub calls: u64,
    /// Of them, those that failed, softly or hard.
    pub failed: u64,
    /// Of them, those that took too long.
    pub slow: u64,
}

impl Counts {
    /// Share of calls that failed, from 0 to 1; 0 where there are none.
    #[must_use]
    pub fn failure_rate(&self) -> f64 {
        self.share(self.failed)
    }

    /// Share of calls that took too long, from 0 to 1; 0 where there are none.
    #[must_use]
    pub fn slow_rate(&self) -> f64 {
        self.share(self.slow)
    }

    #[allow(clippy::cast_precision_loss, reason = "so many calls nobody makes")]
    fn share(&self, part: u64) -> f64 {
        // A quotient, as it is the nearest number to the share: 7 of 100 are 0.07 as it is written.
        part as f64 / self.calls.max(1) as f64
    }

    fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.failed += other.failed;
        self.slow += other.slow;
    }

    fn take(&mut self, other: Self) {
        self.calls -= other.calls;
        self.failed -= other.failed;
        self.slow -= other.slow;
    }
}

/// The counts of one breaker.
#[derive(Debug)]
pub(super) struct Window(Mutex<Ring>);

/// Of which calls, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    /// What the calls belong to.
    pub(super) generation: u32,
    /// When they end.
    pub(super) now: Moment,
    /// How long they are counted.
    pub(super) window: Duration,
}

impl Default for Window {
    fn default() -> Self {
        Self(Mutex::new(Ring::default()))
    }
}

impl Window {
    /// Counts a call, unless the breaker, asked by `current`, is of another generation by now. Answers
    /// with all that is counted.
    pub(super) fn record(
        &self,
        stamp: Stamp,
        ended: Counts,
        current: impl FnOnce() -> u32,
    ) -> Option<Counts> {
        let mut ring = self.lock();
        // Asked under the lock: whoever comes later finds a ring of a generation that is no older.
        if current() != stamp.generation {
            return None;
        }
        ring.turn(stamp);
        ring.part().add(ended);
        ring.sum.add(ended);
        Some(ring.sum)
    }

    /// All that is counted.
    #[must_use]
    pub(super) fn counts(&self, stamp: Stamp) -> Counts {
        let mut ring = self.lock();
        if ring.generation != stamp.generation {
            return Counts::default();
        }
        ring.turn(stamp);
        ring.sum
    }

    fn lock(&self) -> super::sync::MutexGuard<'_, Ring> {
        // Nothing in here panics, and a ring is whole after each step.
        match self.0.lock() {
            Ok(ring) => ring,
            Err(poisoned) => poisoned.into_inner(),
        }
    }
}

#[derive(Debug, Default)]
struct Ring {
    generation: u32,
    /// Length of a part, in milliseconds.
    length: u64,
    /// The newest part, counted from the beginning.
    newest: u64,
    parts: [Counts; PARTS as usize],
    sum: Counts,
}

impl Ring {
    fn part(&mut self) -> &mut Counts {
        let at = self.newest % u64::from(PARTS);
        &mut self.parts[usize::try_from(at).expect("it is below the number of parts")]
    }

    /// Brings it to the moment of `stamp`; begins anew for another generation, or another window.
    fn turn(&mut self, stamp: Stamp) {
        let length = stamp.window.as_millis().div_ceil(PARTS.into()).max(1);
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let now = stamp.now.part_of(length);
        if self.generation != stamp.generation || self.length != length {
            *self = Self {
                generation: stamp.generation,
                length,
                newest: now,
                ..Self::default()
            };
        }
        // One that comes late, with a moment of before, is counted with those of now.
        let steps = now.saturating_sub(self.newest);
        if steps >= PARTS.into() {
            self.parts = Default::default();
            self.sum = Counts::default();
            self.newest = now;
            return;
        }
        for _ in 0..steps {
            self.newest += 1;
            let gone = std::mem::take(self.part());
            self.sum.take(gone);
        }
    }
}

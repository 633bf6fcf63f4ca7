//! The word that is a breaker's state: one atomic, changed by compare-and-swap alone.
//!
//! | bits | what they hold |
//! | --- | --- |
//! | 2 | whether it is closed, open or half-open |
//! | 5 | how many probes failed one after the other, as far as that can be told in them |
//! | 17 | the generation: how often any of this changed, so that calls of before are told apart |
//! | 40 | closed: hard failures in a row; open: when a probe may go; half-open: how long the one that went is waited for |
//!
//! A generation comes again after 131,072 changes: a call would have to outlast just as many to be
//! taken for one of now. Times are whole milliseconds, for 34 years.

use std::time::Duration;

use super::sync::atomic::{AtomicU64, Ordering};

const PROBES_BITS: u32 = 5;
const GENERATION_BITS: u32 = 17;
const VALUE_BITS: u32 = 40;

const PROBES_MAX: u32 = (1 << PROBES_BITS) - 1;
const GENERATION_MAX: u32 = (1 << GENERATION_BITS) - 1;
const VALUE_MAX: u64 = (1 << VALUE_BITS) - 1;

const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;

/// Milliseconds since a breaker was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    /// The first: whoever waits for it waits for nothing.
    const BEGIN: Self = Self(0);

    /// After `time`; what is left of a millisecond does not count.
    #[must_use]
    pub(super) fn after(time: Duration) -> Self {
        Self::saturating(time.as_millis())
    }

    /// After `time` or later; what is begun of a millisecond counts as one.
    #[must_use]
    pub(super) fn not_before(time: Duration) -> Self {
        Self::BEGIN.plus(time)
    }

    /// How long after the beginning.
    #[must_use]
    pub(super) fn time(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// Which part it is in, counted from the beginning, where each is so many milliseconds long.
    #[must_use]
    pub(super) fn part_of(self, length: u64) -> u64 {
        self.0 / length
    }

    /// Later by `time`, and never too early.
    fn plus(self, time: Duration) -> Self {
        Self::saturating(u128::from(self.0) + time.as_nanos().div_ceil(1_000_000))
    }

    fn saturating(millis: u128) -> Self {
        Self(u64::try_from(millis).unwrap_or(VALUE_MAX).min(VALUE_MAX))
    }
}

/// What calls meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// All pass.
    Closed {
        /// Hard failures since the last success.
        failures: u64,
    },
    /// None passes.
    Open {
        /// When one may, as a probe.
        until: Moment,
    },
    /// One passed, as a probe.
    HalfOpen {
        /// When the next may though nothing was heard of it.
        until: Moment,
    },
}

/// The word, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// What calls meet.
    pub(super) phase: Phase,
    /// Probes that failed one after the other.
    pub(super) failed_probes: u32,
    /// Which of all that came after each other.
    pub(super) generation: u32,
}

impl Seen {
    fn pack(self) -> u64 {
        let (tag, value) = match self.phase {
            Phase::Closed { failures } => (CLOSED, failures.min(VALUE_MAX)),
            Phase::Open { until } => (OPEN, until.0),
            Phase::HalfOpen { until } => (HALF_OPEN, until.0),
        };
        let head = tag << PROBES_BITS | u64::from(self.failed_probes.min(PROBES_MAX));
        let head = head << GENERATION_BITS | u64::from(self.generation);
        head << VALUE_BITS | value
    }

    fn unpack(word: u64) -> Self {
        let part = |shift: u32, max: u32| {
            let part = (word >> shift) & u64::from(max);
            u32::try_from(part).expect("no part but the last has more bits")
        };
        let until = Moment(word & VALUE_MAX);
        let above_value = VALUE_BITS + GENERATION_BITS;
        let phase = match word >> (above_value + PROBES_BITS) {
            CLOSED => Phase::Closed { failures: until.0 },
            OPEN => Phase::Open { until },
            _ => Phase::HalfOpen { until },
        };
        Self {
            phase,
            failed_probes: part(above_value, PROBES_MAX),
            generation: part(VALUE_BITS, GENERATION_MAX),
        }
    }

    /// What comes after it.
    fn then(self, phase: Phase, failed_probes: u32) -> Self {
        Self {
            phase,
            failed_probes,
            generation: (self.generation + 1) & GENERATION_MAX,
        }
    }

    fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed { .. })
    }
}

/// A call that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Passed {
    /// What it belongs to.
    pub(super) generation: u32,
    /// What there was before, where the call is the one probe.
    pub(super) probe: Option<Seen>,
}

/// One breaker's state.
#[derive(Debug)]
pub(super) struct Word(AtomicU64);

impl Default for Word {
    fn default() -> Self {
        let closed = Seen {
            phase: Phase::Closed { failures: 0 },
            failed_probes: 0,
            generation: 0,
        };
        Self(AtomicU64::new(closed.pack()))
    }
}

impl Word {
    /// What it is now.
    #[must_use]
    pub(super) fn load(&self) -> Seen {
        Seen::unpack(self.0.load(Ordering::Acquire))
    }

    /// Lets a call pass at `now`, as a probe that is waited for `probe_time_max` where it must be one.
    ///
    /// # Errors
    ///
    /// What is in its way.
    pub(super) fn admit(&self, now: Moment, probe_time_max: Duration) -> Result<Passed, Seen> {
        let changed = self.change(|seen| match seen.phase {
            Phase::Open { until } | Phase::HalfOpen { until } if now >= until => {
                let until = now.plus(probe_time_max);
                Some(seen.then(Phase::HalfOpen { until }, seen.failed_probes))
            }
            _ => None,
        });
        match changed {
            Ok((before, after)) => Ok(Passed {
                generation: after.generation,
                probe: Some(before),
            }),
            Err(seen) if seen.is_closed() => Ok(Passed {
                generation: seen.generation,
                probe: None,
            }),
            Err(seen) => Err(seen),
        }
    }

    /// A call of `generation` succeeded.
    pub(super) fn succeeded(&self, generation: u32) {
        let forgot = self.change(|seen| match seen.phase {
            Phase::Closed { failures } if failures > 0 && seen.generation == generation => {
                let phase = Phase::Closed { failures: 0 };
                Some(Seen { phase, ..seen })
            }
            _ => None,
        });
        // Mostly there is nothing to forget.
        forgot.ok();
    }

    /// A call of `generation` failed at `now`. Opens at the `limit`th in a row, for as long as `pause`
    /// says, and answers with how many there were.
    pub(super) fn failed(
        &self,
        generation: u32,
        limit: u64,
        now: Moment,
        pause: impl Fn(u32) -> Duration,
    ) -> Option<(u64, Seen)> {
        let changed = self.change(|seen| match seen.phase {
            Phase::Closed { failures } if seen.generation == generation => {
                let failures = failures + 1;
                if failures < limit {
                    let phase = Phase::Closed { failures };
                    return Some(Seen { phase, ..seen });
                }
                let until = now.plus(pause(0));
                Some(seen.then(Phase::Open { until }, 0))
            }
            _ => None,
        });
        let (before, after) = changed.ok()?;
        match before.phase {
            Phase::Closed { failures } if !after.is_closed() => Some((failures + 1, after)),
            _ => None,
        }
    }

    /// Opens what is closed, if it is still of `generation`, for as long as `pause` says.
    pub(super) fn trip(
        &self,
        generation: u32,
        now: Moment,
        pause: impl Fn(u32) -> Duration,
    ) -> Option<Seen> {
        let changed = self.change(|seen| {
            let until = now.plus(pause(0));
            let still = seen.is_closed() && seen.generation == generation;
            still.then(|| seen.then(Phase::Open { until }, 0))
        });
        changed.ok().map(|(_, after)| after)
    }

    /// The probe of `generation` is waited for until `by` at the latest.
    pub(super) fn hasten(&self, generation: u32, by: Moment) {
        let sooner = self.change(|seen| match seen.phase {
            Phase::HalfOpen { until } if seen.generation == generation && by < until => {
                let phase = Phase::HalfOpen { until: by };
                Some(Seen { phase, ..seen })
            }
            _ => None,
        });
        // Mostly it is not waited for any longer than that.
        sooner.ok();
    }

    /// The probe of `generation` passed: closes.
    pub(super) fn probe_passed(&self, generation: u32) -> Option<Seen> {
        self.end_probe(generation, |seen| {
            seen.then(Phase::Closed { failures: 0 }, 0)
        })
    }

    /// The probe of `generation` failed at `now`: opens for as long as `pause` says, which is told
    /// how many did so before.
    pub(super) fn probe_failed(
        &self,
        generation: u32,
        now: Moment,
        pause: impl Fn(u32) -> Duration,
    ) -> Option<Seen> {
        self.end_probe(generation, |seen| {
            let failed = (seen.failed_probes + 1).min(PROBES_MAX);
            let until = now.plus(pause(failed));
            seen.then(Phase::Open { until }, failed)
        })
    }

    /// The probe of `generation` ended and told nothing: the next call is one.
    pub(super) fn probe_left(&self, generation: u32) -> Option<Seen> {
        self.end_probe(generation, |seen| {
            let until = Moment::BEGIN;
            seen.then(Phase::HalfOpen { until }, seen.failed_probes)
        })
    }

    /// Closes whatever it is, and forgets what failed.
    pub(super) fn close(&self) -> (Seen, Seen) {
        let closed = |seen: Seen| seen.then(Phase::Closed { failures: 0 }, 0);
        self.change(|seen| Some(closed(seen)))
            .expect("there is always something to change")
    }

    fn end_probe(&self, generation: u32, end: impl Fn(Seen) -> Seen) -> Option<Seen> {
        let changed = self.change(|seen| {
            let its = matches!(seen.phase, Phase::HalfOpen { .. }) && seen.generation == generation;
            its.then(|| end(seen))
        });
        changed.ok().map(|(_, after)| after)
    }

    /// Changes it to what `next` makes of it, again if somebody else was faster: what it was, and
    /// what it is now.
    ///
    /// # Errors
    ///
    /// What it is, if `next` makes nothing of that.
    fn change(&self, next: impl Fn(Seen) -> Option<Seen>) -> Result<(Seen, Seen), Seen> {
        let mut word = self.0.load(Ordering::Acquire);
        loop {
            let seen = Seen::unpack(word);
            let after = next(seen).ok_or(seen)?;
            let swapped = self.0.compare_exchange_weak(
                word,
                after.pack(),
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            match swapped {
                Ok(_) => return Ok((seen, after)),
                Err(other) => word = other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the parts of the word do not touch each other, at whatever size.
    /// Method: the least and largest of each, and what does not fit; what comes after the last
    /// generation.
    #[test]
    fn parts_of_the_word_stay_apart() {
        for value in [0, 1, VALUE_MAX - 1, VALUE_MAX] {
            let until = Moment(value);
            let closed = Phase::Closed { failures: value };
            for phase in [closed, Phase::Open { until }, Phase::HalfOpen { until }] {
                for failed_probes in [0, 1, PROBES_MAX] {
                    for generation in [0, 1, GENERATION_MAX] {
                        let seen = Seen {
                            phase,
                            failed_probes,
                            generation,
                        };
                        assert_eq!(seen, Seen::unpack(seen.pack()));
                        let next = seen.then(phase, failed_probes);
                        assert_eq!(next, Seen::unpack(next.pack()));
                        assert_ne!(seen.generation, next.generation);
                    }
                }
            }
        }
        let much = Seen {
            phase: Phase::Closed { failures: u64::MAX },
            failed_probes: u32::MAX,
            generation: 0,
        };
        let most = Seen {
            phase: Phase::Closed {
                failures: VALUE_MAX,
            },
            failed_probes: PROBES_MAX,
            generation: 0,
        };
        assert_eq!(most, Seen::unpack(much.pack()));
    }

    /// Goal: what is due at a moment is not done before.
    /// Method: times that are no whole milliseconds, and more than fits.
    #[test]
    fn times_are_not_cut_short() {
        let half = Duration::from_micros(500);
        assert_eq!(Moment(0), Moment::after(half));
        assert_eq!(Moment(1), Moment::not_before(half));
        assert_eq!(Moment(2), Moment::not_before(half).plus(half));
        assert_eq!(Moment(1), Moment::not_before(2 * half));
        assert_eq!(Moment(VALUE_MAX), Moment::after(Duration::MAX));
        assert_eq!(Moment(VALUE_MAX), Moment(1).plus(Duration::MAX));
    }
}

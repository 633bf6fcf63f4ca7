//! How a run goes over time: a few hundred intervals at most, however long it is.
//!
//! Intervals are a second at first. Once there are too many, each two become one of twice the
//! length, so that a run of a day has as many as one of some minutes, and costs as much memory.

use std::time::Duration;

use tonic::Code;

use super::tally::{Codes, Times};

/// Intervals at most.
pub(crate) const INTERVALS_MAX: usize = 240;

/// What an interval is long at first.
const WIDTH: Duration = Duration::from_secs(1);

/// Significant digits of a percentile; with three, the intervals of all kinds would take 100 MB.
const DIGITS: u8 = 2;

/// The intervals of a run, each with its calls by kind.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) width: Duration,
    kinds: usize,
    pub(crate) intervals: Vec<Interval>,
}

/// The calls that were due in one interval.
#[derive(Debug)]
pub(crate) struct Interval {
    pub(crate) due: u64,
    pub(crate) dropped: u64,
    /// By kind.
    pub(crate) kinds: Vec<Slice>,
}

/// Calls of one kind in one interval.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    pub(crate) sent: u64,
    pub(crate) codes: Codes,
    /// From when a call was due to its end.
    pub(crate) latency: Times,
}

impl Series {
    pub(crate) fn new(kinds: usize) -> Self {
        Self {
            width: WIDTH,
            kinds,
            intervals: Vec::new(),
        }
    }

    /// A call that was due this long after the beginning found no place.
    pub(crate) fn dropped(&mut self, since: Duration) {
        let interval = self.interval(since);
        interval.due += 1;
        interval.dropped += 1;
    }

    /// A call that was due then was sent.
    pub(crate) fn sent(&mut self, since: Duration, kind: usize) {
        let interval = self.interval(since);
        interval.due += 1;
        if let Some(slice) = interval.kinds.get_mut(kind) {
            slice.sent += 1;
        }
    }

    /// A call that was due then has ended.
    pub(crate) fn ended(&mut self, since: Duration, kind: usize, code: Code, latency: Duration) {
        if let Some(slice) = self.interval(since).kinds.get_mut(kind) {
            slice.codes.count(code);
            slice.latency.record(latency);
        }
    }

    fn interval(&mut self, since: Duration) -> &mut Interval {
        let mut number = self.number(since);
        while number >= INTERVALS_MAX {
            self.coarsen();
            number = self.number(since);
        }
        while self.intervals.len() <= number {
            self.intervals.push(Interval::new(self.kinds));
        }
        &mut self.intervals[number]
    }

    fn number(&self, since: Duration) -> usize {
        usize::try_from(since.as_secs() / self.width.as_secs()).unwrap_or(usize::MAX)
    }

    fn coarsen(&mut self) {
        self.width *= 2;
        let mut halves = std::mem::take(&mut self.intervals).into_iter();
        while let Some(mut interval) = halves.next() {
            if let Some(second) = halves.next() {
                interval.add(&second);
            }
            self.intervals.push(interval);
        }
    }
}

impl Interval {
    fn new(kinds: usize) -> Self {
        Self {
            due: 0,
            dropped: 0,
            kinds: vec![Slice::new(); kinds],
        }
    }

    fn add(&mut self, other: &Self) {
        self.due += other.due;
        self.dropped += other.dropped;
        for (slice, other) in self.kinds.iter_mut().zip(&other.kinds) {
            slice.add(other);
        }
    }

    /// All calls, of whatever kind.
    pub(crate) fn total(&self) -> Slice {
        let mut total = Slice::new();
        for slice in &self.kinds {
            total.add(slice);
        }
        total
    }
}

impl Slice {
    fn new() -> Self {
        Self {
            sent: 0,
            codes: Codes::default(),
            latency: Times::with_digits(DIGITS),
        }
    }

    fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.codes.add(&other.codes);
        self.latency.add(&other.latency);
    }
}

#[cfg(test)]
mod tests;

//! Which of those that are ready takes a call: the cheaper of two taken at random, or one that is
//! due for a trial.

use std::sync::Arc;

use super::{
    load::{self, Load, Weighed},
    slow_start::Ramp,
};

/// One call in so many goes to any endpoint, where that is due for a trial.
const TRIAL_ONE_IN: u8 = 64;

/// One that may take calls, its load beside it: a pick looks at two loads and counts one endpoint's
/// owners. Whether it is ready still, its place for a call tells, without another look at what is
/// in no cache.
#[derive(Debug)]
pub(super) struct Candidate<T> {
    pub(super) load: Arc<Load>,
    /// The share of calls it comes to, 1 being ordinary.
    pub(super) weight: f32,
    /// When it began to come to its share, if that is not long ago, as [`load::millis`].
    pub(super) warm_from: Option<u32>,
    pub(super) endpoint: T,
}

/// Those that may take calls.
#[derive(Debug)]
pub(super) struct Candidates<T> {
    all: Vec<Candidate<T>>,
    /// How shares grow, where some do.
    warming: Option<Warming>,
    /// Whether those with an open breaker take calls as well.
    in_panic: bool,
}

#[derive(Debug)]
struct Warming {
    ramp: Ramp,
    /// Until when all of them are new alike: slowness against each other would help nobody.
    all_until: Option<u32>,
}

impl<T> Candidates<T> {
    pub(super) fn new(all: Vec<Candidate<T>>, ramp: Option<Ramp>, in_panic: bool) -> Self {
        let ramp = ramp.filter(|_| all.iter().any(|it| it.warm_from.is_some()));
        let warming = ramp.map(|ramp| {
            let begun: Option<Vec<_>> = all.iter().map(|it| it.warm_from).collect();
            // The one that began first leaves first. None began long ago, so that this does not wrap.
            let first = begun.and_then(|begun| begun.into_iter().min());
            Warming {
                all_until: first.map(|first| first.wrapping_add(ramp.window_millis())),
                ramp,
            }
        });
        Self {
            all,
            warming,
            in_panic,
        }
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Candidate<T>> {
        self.all.iter()
    }

    /// Whether `candidate` takes calls as far as its breaker goes.
    pub(super) fn is_open(&self, candidate: &Candidate<T>) -> bool {
        self.in_panic || !candidate.load.is_shut()
    }

    /// Now and then one that is due for a trial, which is begun.
    pub(super) fn trial(&self, at: u32, fits: impl Fn(&T) -> bool) -> Option<&Candidate<T>> {
        if fastrand::u8(..TRIAL_ONE_IN) != 0 {
            return None;
        }
        let any = fastrand::choice(&self.all)?;
        (self.is_open(any) && fits(&any.endpoint) && any.load.begin_trial(at)).then_some(any)
    }

    /// The cheaper of two taken at random; none where neither may take a call.
    pub(super) fn cheaper_of_two(&self, at: u32) -> Option<&Candidate<T>> {
        match self.all.as_slice() {
            [] => None,
            [only] => Some(only).filter(|only| self.is_open(only)),
            all => {
                let first = fastrand::usize(..all.len());
                let other = fastrand::usize(..all.len() - 1);
                let other = if other < first { other } else { other + 1 };
                let (first, other) = (&all[first], &all[other]);
                match (self.is_open(first), self.is_open(other)) {
                    (true, true) => {
                        let better = self
                            .weighed(first, at)
                            .is_as_good_as(self.weighed(other, at), at);
                        Some(if better { first } else { other })
                    }
                    (true, false) => Some(first),
                    (false, true) => Some(other),
                    (false, false) => None,
                }
            }
        }
    }

    /// The cheapest of all that may take a call.
    pub(super) fn cheapest(&self, at: u32, fits: impl Fn(&T) -> bool) -> Option<&Candidate<T>> {
        let cost = |it| self.weighed(it, at).cost(at);
        self.all
            .iter()
            .filter(|it| self.is_open(it) && fits(&it.endpoint))
            .min_by(|one, other| cost(one).total_cmp(&cost(other)))
    }

    fn weighed<'a>(&self, candidate: &'a Candidate<T>, at: u32) -> Weighed<'a> {
        let warming = self.warming.as_ref().zip(candidate.warm_from);
        let factor = warming.map_or(1.0, |(warming, from)| warming.factor(from, at));
        Weighed {
            load: &candidate.load,
            weight: candidate.weight * factor,
        }
    }
}

impl Warming {
    fn factor(&self, from: u32, at: u32) -> f32 {
        // Half the range is ahead: a window of more than 24 days is none.
        let all_new = self
            .all_until
            .is_some_and(|until| until.wrapping_sub(at) < u32::MAX / 2 && until != at);
        if all_new {
            return 1.0;
        }
        self.ramp.factor(load::seconds(at.wrapping_sub(from)))
    }
}

#[cfg(test)]
mod tests;

//! Which endpoints get no calls for a while, as they fail more than others do (gRFC A50).
//!
//! Every call's verdict is counted at its endpoint. From time to time the counts are taken, and
//! those endpoints are ejected that failed more than half of their calls, or succeeded much less
//! often than the mean; the worst first, and never more than a quarter of all. An ejection lasts
//! longer each time, and less again after times of good health.
//!
//! Two things that gRFC A50 has are mended. Its success rate ejects the worst of five however
//! little it is worse, so that one must be worse by some percentage points too. And it never
//! ejects two dead endpoints of nine, so that the share of failures is always looked at as well.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    classify::Verdict,
    config::{self, Check, LONGEST},
};

config::section! {
    /// When an endpoint gets no calls for failing more than others.
    pub struct Config {
        /// Time between looks at what the calls since the last one came to.
        pub interval: Duration = Duration::from_secs(10), in SHORTEST..=LONGEST, live;
        /// Endpoints that may be out at once, those with an open breaker included, in percent; one
        /// of a few may be. 0 ejects none.
        pub ejected_max_percent: u32 = 25, in 0..=100, live;
        /// How long the first ejection lasts. The next lasts this much longer, unless a look found
        /// nothing against the endpoint in between.
        pub ejection_min: Duration = Duration::from_secs(30), in SHORTEST..=LONGEST, live;
        /// How long an ejection lasts at most.
        pub ejection_max: Duration = Duration::from_mins(5), in SHORTEST..=LONGEST, live;
        /// By how much an ejection is lengthened at random, in percent at most, so that not all come
        /// back at once.
        pub ejection_jitter_percent: u32 = 10, in 0..=100, live;
        /// An endpoint that fails more calls than this is ejected, in percent, where the best of the others
        /// fails none; the more that fails, the more may.
        pub failure_percent: u32 = 50, in 1..=100, live;
        /// Calls without which an endpoint's share of failures says nothing.
        pub failure_calls_min: u32 = 20, in 1.., live;
        /// Endpoints with so many calls, without which none is ejected for its failures.
        pub failure_endpoints_min: usize = 2, in 1.., live;
        /// An endpoint is ejected whose share of successes is below the mean by so many standard
        /// deviations, and by `success_margin_percent`.
        pub success_deviations: f64 = 1.9, in 0.0..=100.0, live;
        /// By how many percentage points it must be below the mean, too: the worst of five is always
        /// two deviations below.
        pub success_margin_percent: u32 = 10, in 0..=100, live;
        /// Calls without which an endpoint's share of successes says nothing.
        pub success_calls_min: u32 = 100, in 1.., live;
        /// Endpoints with so many calls, without which no successes are compared.
        pub success_endpoints_min: usize = 5, in 1.., live;
    }
    validate = Config::check;
}

const SHORTEST: Duration = Duration::from_millis(10);

impl Config {
    fn check(&self, check: &mut Check<'_, '_>) {
        if self.ejection_max < self.ejection_min {
            check.refuse("ejection_max", "expected no less than ejection_min");
        }
    }

    /// How many of `all` endpoints may be out: one of two or three as well, and never the only one.
    fn out_max(&self, all: usize) -> usize {
        if all < 2 || self.ejected_max_percent == 0 {
            return 0;
        }
        let percent = usize::try_from(self.ejected_max_percent).unwrap_or(100);
        (all.saturating_mul(percent) / 100).max(1)
    }
}

crate::telemetry::label! {
    /// Why an endpoint was ejected.
    pub enum Reason {
        /// It failed a large share of its calls.
        FailurePercentage = "failure_percentage",
        /// It succeeded much less often than the mean.
        SuccessRate = "success_rate",
    }
}

/// What the calls of one endpoint came to, since this was last taken.
///
/// Both counts are in one word, that a sweep swaps for zero: a count is in the one interval or in
/// the other, and no pair is torn. Four thousand million calls fit between two sweeps.
#[derive(Debug, Default)]
pub(super) struct Tally(AtomicU64);

const FAILURE: u64 = 1 << 32;
const SUCCESS: u64 = 1;

impl Tally {
    /// Counts a call that ended.
    pub(super) fn count(&self, verdict: Verdict) {
        let one = match verdict {
            Verdict::Success => SUCCESS,
            Verdict::Hard | Verdict::Soft(_) => FAILURE,
            Verdict::Ignored | Verdict::Unserved => return,
        };
        self.0.fetch_add(one, Ordering::Relaxed);
    }

    #[allow(clippy::cast_possible_truncation)]
    pub(super) fn take(&self) -> Counts {
        let both = self.0.swap(0, Ordering::Relaxed);
        Counts {
            successes: both as u32,
            failures: (both >> 32) as u32,
        }
    }
}

/// What calls came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) successes: u32,
    pub(super) failures: u32,
}

impl Counts {
    fn calls(self) -> u32 {
        self.successes.saturating_add(self.failures)
    }

    /// Calls that failed, in percent; none of none.
    fn failure_percent(self) -> f64 {
        f64::from(self.failures) * 100.0 / f64::from(self.calls().max(1))
    }

    fn success_percent(self) -> f64 {
        100.0 - self.failure_percent()
    }
}

/// One endpoint as a sweep sees it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sample {
    pub(super) counts: Counts,
    /// Whether it is ejected already.
    pub(super) ejected: bool,
    /// Whether its breaker is open.
    pub(super) shut: bool,
}

/// An endpoint to eject.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Outlier {
    /// Its position among the samples.
    pub(super) index: usize,
    pub(super) reason: Reason,
    /// Calls it failed, in percent.
    pub(super) failure_percent: f64,
}

/// Whom to eject, the worst first; no more than may be out at once, with those that are. One whose
/// breaker is open is out already: that may be for a second, and again and again.
pub(super) fn judge(config: &Config, samples: &[Sample]) -> Vec<Outlier> {
    let max = config.out_max(samples.len());
    let count = |is: fn(&&Sample) -> bool| samples.iter().filter(is).count();
    let mut ejected = count(|sample| sample.ejected);
    let mut out = count(|sample| sample.ejected || sample.shut);
    let success_threshold = success_threshold(config, samples);
    let failing = Failing::new(config, samples);
    let reason = |index: usize, counts: Counts| {
        let failing = counts.calls() >= config.failure_calls_min
            && failing.is_compared(config)
            && counts.failure_percent() > failing.threshold(config, index);
        let behind = success_threshold.is_some_and(|threshold| {
            counts.calls() >= config.success_calls_min && counts.success_percent() < threshold
        });
        match (failing, behind) {
            (true, _) => Some(Reason::FailurePercentage),
            (false, true) => Some(Reason::SuccessRate),
            (false, false) => None,
        }
    };
    let candidates = samples.iter().enumerate();
    let candidates = candidates.filter(|(_, sample)| !sample.ejected);
    let mut outliers: Vec<_> = candidates
        .filter_map(|(index, sample)| {
            reason(index, sample.counts).map(|reason| Outlier {
                index,
                reason,
                failure_percent: sample.counts.failure_percent(),
            })
        })
        .collect();
    outliers.sort_by(|one, other| other.failure_percent.total_cmp(&one.failure_percent));
    outliers.retain(|outlier| {
        let newly_out = !samples[outlier.index].shut;
        let room = ejected < max && (out < max || !newly_out);
        ejected += usize::from(room);
        out += usize::from(room && newly_out);
        room
    });
    outliers
}

/// Endpoints with enough calls, and how often the two best of them succeed, in percent.
#[derive(Debug, Default)]
struct Failing {
    counted: usize,
    best: Option<(usize, f64)>,
    second: Option<f64>,
}

impl Failing {
    fn new(config: &Config, samples: &[Sample]) -> Self {
        let mut failing = Self::default();
        for (index, sample) in samples.iter().enumerate() {
            if sample.counts.calls() < config.failure_calls_min {
                continue;
            }
            failing.counted += 1;
            let success = sample.counts.success_percent();
            match failing.best {
                Some((_, best)) if success <= best => {
                    let second = failing.second.unwrap_or(success);
                    failing.second = Some(second.max(success));
                }
                best => {
                    failing.second = best.map(|(_, best)| best);
                    failing.best = Some((index, success));
                }
            }
        }
        failing
    }

    /// Whether there are enough to say anything.
    fn is_compared(&self, config: &Config) -> bool {
        self.counted >= config.failure_endpoints_min
    }

    /// Failures of the endpoint at `index` above this are too many: a share of what the best of the
    /// others succeeds. Where calls fail wherever they go, as for a caller whose calls always do, none of
    /// the endpoints is to blame more than another.
    fn threshold(&self, config: &Config, index: usize) -> f64 {
        let best = match self.best {
            Some((best, _)) if best == index => self.second,
            best => best.map(|(_, success)| success),
        };
        let best = best.unwrap_or(100.0);
        100.0 - best * f64::from(100 - config.failure_percent.min(100)) / 100.0
    }
}

/// Successes below this are too few, where enough endpoints had enough calls.
fn success_threshold(config: &Config, samples: &[Sample]) -> Option<f64> {
    let rates: Vec<_> = samples
        .iter()
        .filter(|sample| sample.counts.calls() >= config.success_calls_min)
        .map(|sample| sample.counts.success_percent())
        .collect();
    if rates.len() < config.success_endpoints_min {
        return None;
    }
    let count = f64::from(u32::try_from(rates.len()).unwrap_or(u32::MAX));
    let mean = rates.iter().sum::<f64>() / count;
    let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
    let by_deviation = mean - config.success_deviations * variance.sqrt();
    let by_margin = mean - f64::from(config.success_margin_percent);
    Some(by_deviation.min(by_margin))
}

/// Where an endpoint stands: whether it is ejected, and how often it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// One more for each ejection, one less for each interval of good health.
    multiplier: u32,
    ejected: Option<Ejected>,
}

/// An ejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejected {
    /// Why.
    pub reason: Reason,
    /// When it ends.
    pub until: Instant,
}

impl Standing {
    pub(super) fn ejected(&self) -> Option<Ejected> {
        self.ejected
    }

    /// Ejects it from `now` on, for how long. `jitter` is from 0 to 1.
    pub(super) fn eject(
        &mut self,
        config: &Config,
        reason: Reason,
        now: Instant,
        jitter: f64,
    ) -> Duration {
        self.multiplier = self.multiplier.saturating_add(1);
        let max = config.ejection_max.max(config.ejection_min);
        let length = config.ejection_min.saturating_mul(self.multiplier).min(max);
        let spread = jitter * f64::from(config.ejection_jitter_percent) / 100.0;
        let length = length + length.mul_f64(spread.clamp(0.0, 1.0));
        let until = now + length;
        self.ejected = Some(Ejected { reason, until });
        length
    }

    /// A sweep found nothing against it.
    pub(super) fn passed(&mut self) {
        if self.ejected.is_none() {
            self.multiplier = self.multiplier.saturating_sub(1);
        }
    }

    /// Ends the ejection if its time has come; whether it did.
    pub(super) fn release_at(&mut self, now: Instant) -> bool {
        let over = self.ejected.is_some_and(|ejected| ejected.until <= now);
        over && self.release()
    }

    /// Ends the ejection, if there is one; whether there was.
    pub(super) fn release(&mut self) -> bool {
        self.ejected.take().is_some()
    }
}

#[cfg(test)]
mod tests;

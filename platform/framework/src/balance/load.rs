//! How loaded an endpoint is: its latency, remembered with a bias to the worst, and its calls in
//! flight.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// How fast old measurements fade (Finagle's and linkerd's value).
const DECAY: Duration = Duration::from_secs(10);
/// What a call in flight at an endpoint that was never measured counts for: more than any
/// measured one, so that a new endpoint gets one call at a time until it has answered one.
const UNMEASURED_COST: f64 = 1e9;
/// An endpoint that said nothing for so long is tried again, whatever it was last seen to do.
const SILENCE: Duration = Duration::from_secs(1);
/// The same for one that failed: one that stands still has lost its connections by then, as it
/// answers no pings (those of the usual configuration), and costs no call more.
const SILENCE_CHARGED: Duration = Duration::from_secs(15);
/// Latencies that differ by no more than this factor are alike: by less, replicas of one kind do.
const ALIKE: f32 = 1.5;
const CALL: u64 = 1;
const UNHEARD: u64 = 1 << 32;
/// One that owes an answer to so many calls stands still, where nothing was heard of it for longer
/// than this, and for much longer than it takes as a rule: it costs what it has taken already.
const OWED_MIN: u64 = 4;
const QUIET_MIN: f32 = 0.1;
const QUIET_FACTOR: f32 = 10.0;
/// How much of what calls usually take one more counts for.
const USUAL_WEIGHT: f32 = 0.1;
/// Shortest latency; zero stands for "never measured".
const LATENCY_MIN: f32 = 1e-9;

/// Peak-EWMA latency times calls in flight, without locks.
///
/// A latency above the average replaces it at once; below, it pulls the average down with a time
/// constant of ten seconds. Nothing measured is a measurement too: the average decays toward
/// zero, so an endpoint that was slow is tried again in the end. A trial now and then finds out
/// earlier, see [`Load::begin_trial`].
///
/// In one cache line: a pick among many looks at two that are in no cache, and waits for each once.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Load {
    /// The same for all of one target, so that a pick looks at the clock once.
    epoch: Instant,
    /// Seconds as `f32` above, milliseconds since `epoch` of the last measurement below.
    latency: AtomicU64,
    /// Calls in flight below, in units of [`CALL`], and those of them of whose answer nothing was
    /// heard above, in units of [`UNHEARD`].
    calls: AtomicU64,
    /// When a call began while nothing was owed, in milliseconds since `epoch`.
    owing_since: AtomicU32,
    /// Calls in flight when it began anew: they were not sent to find out how it does now.
    pending_before: AtomicU32,
    /// What calls took before the latency held a penalty, and take since: seconds as `f32`; zero where
    /// that was never measured.
    usual: AtomicU32,
    /// Whether the latency holds a penalty.
    charged: AtomicBool,
    /// Whether it answered a call.
    proven: AtomicBool,
    /// Whether a call finds out how it does now.
    on_trial: AtomicBool,
    /// Whether its breaker is open: told here, so that no call goes to it until the next snapshot.
    shut: AtomicBool,
}

impl Load {
    pub(super) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            latency: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            owing_since: AtomicU32::new(0),
            pending_before: AtomicU32::new(0),
            usual: AtomicU32::new(0),
            charged: AtomicBool::new(false),
            proven: AtomicBool::new(false),
            on_trial: AtomicBool::new(false),
            shut: AtomicBool::new(false),
        }
    }

    /// What whoever returns to the same address begins with: the latency, unless it holds a
    /// penalty, and no calls. Those in flight go on where they are, and count there.
    pub(super) fn inherited(&self) -> Self {
        let latency = if self.charged.load(Ordering::Relaxed) {
            0
        } else {
            self.latency.load(Ordering::Relaxed)
        };
        Self {
            latency: AtomicU64::new(latency),
            ..Self::new(self.epoch)
        }
    }

    /// Forgets how it did: what is there now may have nothing to do with what failed.
    pub(super) fn begin_anew(&self) {
        self.proven.store(false, Ordering::Relaxed);
        self.charged.store(false, Ordering::Relaxed);
        self.pending_before
            .store(self.pending_count(), Ordering::Relaxed);
        self.latency.store(0, Ordering::Relaxed);
    }

    /// Whether its breaker is open.
    pub(super) fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Relaxed)
    }

    pub(super) fn set_shut(&self, shut: bool) {
        self.shut.store(shut, Ordering::Relaxed);
    }

    /// The average latency as of `now`, in seconds; none before the first measurement.
    pub(super) fn latency(&self, now: Instant) -> Option<f32> {
        let (latency, stamp) = unpack(self.latency.load(Ordering::Relaxed));
        let at = millis(self.epoch, now);
        (latency > 0.0).then(|| latency * fading(at.wrapping_sub(stamp)))
    }

    /// The same, or for how long it has been standing still.
    fn latency_at(&self, at: u32) -> Option<f32> {
        let (latency, stamp) = unpack(self.latency.load(Ordering::Relaxed));
        if latency <= 0.0 {
            return None;
        }
        let silent = at.wrapping_sub(stamp);
        let average = latency * fading(silent);
        if self.calls.load(Ordering::Relaxed) < OWED_MIN * UNHEARD {
            return Some(average);
        }
        let owing = at.wrapping_sub(self.owing_since.load(Ordering::Relaxed));
        let quiet = seconds(silent.min(owing));
        let still = quiet > QUIET_MIN && quiet > QUIET_FACTOR * average;
        Some(if still { quiet } else { average })
    }

    /// Begins a trial, where one says something: a call to an endpoint that is long silent, as its
    /// last answer was slow or failed, and that may do well by now. At most one at a time, and none
    /// where calls wait for their answers to begin, as these will tell: one that stands still holds
    /// no more of them. A stream whose answer has begun tells nothing more, however long it lasts.
    pub(super) fn begin_trial(&self, at: u32) -> bool {
        let (latency, stamp) = unpack(self.latency.load(Ordering::Relaxed));
        let silence = if self.charged.load(Ordering::Relaxed) {
            SILENCE_CHARGED
        } else {
            SILENCE
        };
        let silent = at.wrapping_sub(stamp);
        latency > 0.0
            && self.calls.load(Ordering::Relaxed) < UNHEARD
            && silent < u32::MAX / 2
            && u128::from(silent) >= silence.as_millis()
            && !self.on_trial.swap(true, Ordering::Relaxed)
    }

    pub(super) fn end_trial(&self) {
        self.on_trial.store(false, Ordering::Relaxed);
    }

    /// Takes in the answer to a trial: what was before it is history.
    pub(super) fn passed(&self, latency: Duration, now: Instant) {
        self.proven.store(true, Ordering::Relaxed);
        self.charged.store(false, Ordering::Relaxed);
        let measured = latency.as_secs_f32();
        self.update(now, |_, _| measured);
    }

    /// Takes in an answer that came at `now`.
    pub(super) fn answered(&self, latency: Duration, now: Instant) {
        self.proven.store(true, Ordering::Relaxed);
        self.note_usual(latency);
        self.observe(latency, now);
    }

    /// What calls usually take, in seconds: the average without what was charged for failures, which
    /// says nothing of how much time a call needs. None before the first measurement.
    pub(super) fn usual(&self, now: Instant) -> Option<f32> {
        if !self.charged.load(Ordering::Relaxed) {
            return self.latency(now);
        }
        let usual = f32::from_bits(self.usual.load(Ordering::Relaxed));
        (usual > 0.0).then_some(usual)
    }

    /// Takes in what a call took while the average holds a penalty. Of two at once one may be lost.
    fn note_usual(&self, latency: Duration) {
        if !self.charged.load(Ordering::Relaxed) {
            return;
        }
        let measured = latency.as_secs_f32().max(LATENCY_MIN);
        let usual = f32::from_bits(self.usual.load(Ordering::Relaxed));
        let next = measured.max(usual + (measured - usual) * USUAL_WEIGHT);
        self.usual.store(next.to_bits(), Ordering::Relaxed);
    }

    /// Whether whoever is there answered a call.
    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Takes in a latency measured at `now`.
    fn observe(&self, latency: Duration, now: Instant) {
        let measured = latency.as_secs_f32().max(LATENCY_MIN);
        self.update(now, |average, faded| {
            if measured > average {
                measured
            } else {
                average * faded + measured * (1.0 - faded)
            }
        });
    }

    /// Takes in a call that failed, as if it had taken `penalty`.
    pub(super) fn charge(&self, penalty: Duration, now: Instant) {
        if !self.charged.load(Ordering::Relaxed) {
            let usual = self.latency(now).unwrap_or_default();
            self.usual.store(usual.to_bits(), Ordering::Relaxed);
            self.charged.store(true, Ordering::Relaxed);
        }
        self.observe(penalty, now);
    }

    /// Takes in that an answer took longer than `latency`, and how much longer is not known.
    pub(super) fn observe_at_least(&self, latency: Duration, now: Instant) {
        if let Some(usual) = self.usual(now)
            && latency.as_secs_f32() > usual
        {
            self.note_usual(latency);
        }
        let measured = latency.as_secs_f32().max(LATENCY_MIN);
        self.update(now, |average, faded| (average * faded).max(measured));
    }

    fn update(&self, now: Instant, next: impl Fn(f32, f32) -> f32) {
        let now = millis(self.epoch, now);
        let updated = self
            .latency
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
                let (average, stamp) = unpack(packed);
                let faded = fading(now.wrapping_sub(stamp));
                Some(pack(next(average, faded).max(LATENCY_MIN), now))
            });
        debug_assert!(updated.is_ok(), "the update is unconditional");
    }

    /// Calls in flight.
    pub(super) fn pending(&self) -> usize {
        self.pending_count() as usize
    }

    #[allow(clippy::cast_possible_truncation)]
    fn pending_count(&self) -> u32 {
        self.calls.load(Ordering::Relaxed) as u32
    }

    /// A call begins at `now`.
    pub(super) fn begin(&self, now: Instant) {
        let before = self.calls.fetch_add(UNHEARD + CALL, Ordering::Relaxed);
        if before < UNHEARD {
            let at = millis(self.epoch, now);
            self.owing_since.store(at, Ordering::Relaxed);
        }
    }

    /// Something was heard of a call's answer, or never will be; once for each.
    pub(super) fn heard(&self) {
        self.calls.fetch_sub(UNHEARD, Ordering::Relaxed);
    }

    /// A call is over, after that.
    pub(super) fn end(&self) {
        self.calls.fetch_sub(CALL, Ordering::Relaxed);
    }
}

/// An endpoint's load beside its weight: the share of calls it is to have, 1 being ordinary.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weighed<'a> {
    pub(super) load: &'a Load,
    /// More than zero.
    pub(super) weight: f32,
}

impl Weighed<'_> {
    /// Whether a call does as well here as at `other`, or better. `at` is in [`millis`].
    ///
    /// Where latencies are alike, the calls in flight alone decide, each endpoint's by its weight:
    /// without many of them every call would go to the fastest, by however little it is that, or was
    /// when last measured.
    pub(super) fn is_as_good_as(self, other: Self, at: u32) -> bool {
        let (here, there) = (self.load.latency_at(at), other.load.latency_at(at));
        let alike = here
            .zip(there)
            .is_some_and(|(here, there)| here <= there * ALIKE && there <= here * ALIKE);
        if !alike {
            return self.cost_by(here) <= other.cost_by(there);
        }
        if self.weight.total_cmp(&other.weight).is_eq() {
            return self.load.pending_count() <= other.load.pending_count();
        }
        self.burden() <= other.burden()
    }

    /// Higher is worse; only the order of two costs means anything. `at` is in [`millis`].
    pub(super) fn cost(self, at: u32) -> f64 {
        self.cost_by(self.load.latency_at(at))
    }

    fn cost_by(self, latency: Option<f32>) -> f64 {
        let pending = self.load.pending_count();
        let (calls, weight) = (f64::from(pending), f64::from(self.weight));
        match latency {
            Some(latency) => f64::from(latency) * (calls + 1.0) / weight,
            None if pending <= self.load.pending_before.load(Ordering::Relaxed) => 0.0,
            None => UNMEASURED_COST + calls / weight,
        }
    }

    /// Calls in flight and a part of one, by weight. The part is at random: where none is in flight
    /// the lighter of two gets some of the calls all the same, and not all of them go to the other.
    fn burden(self) -> f64 {
        (f64::from(self.load.pending_count()) + fastrand::f64()) / f64::from(self.weight)
    }
}

/// Milliseconds since `epoch`. Wraps after 49 days; only differences are used.
#[allow(clippy::cast_possible_truncation)]
pub(super) fn millis(epoch: Instant, now: Instant) -> u32 {
    let elapsed = now.saturating_duration_since(epoch);
    let seconds = elapsed.as_secs() as u32;
    seconds
        .wrapping_mul(1_000)
        .wrapping_add(elapsed.subsec_millis())
}

/// A difference of [`millis`] in seconds.
pub(super) fn seconds(millis: u32) -> f32 {
    // A stamp slightly ahead of a racing reader's clock is no time at all.
    if millis > u32::MAX / 2 {
        return 0.0;
    }
    Duration::from_millis(millis.into()).as_secs_f32()
}

/// What is left of a value after `millis`.
fn fading(millis: u32) -> f32 {
    (-seconds(millis) / DECAY.as_secs_f32()).exp()
}

fn pack(latency: f32, stamp: u32) -> u64 {
    u64::from(latency.to_bits()) << 32 | u64::from(stamp)
}

#[allow(clippy::cast_possible_truncation)]
fn unpack(packed: u64) -> (f32, u32) {
    (f32::from_bits((packed >> 32) as u32), packed as u32)
}

#[cfg(test)]
mod tests;

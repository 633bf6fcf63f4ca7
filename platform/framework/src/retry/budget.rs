//! Bounds retries, and hedges beside them, to shares of the calls to a target.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::window::Window;

/// What was spent of what retries may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spent {
    /// What is spent now.
    pub used: f64,
    /// From when on nothing is tried again.
    pub max: f64,
    /// Tries that there were not for that, since the process began.
    pub refused: u64,
}

/// How much may be tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Retries for each call of the window.
    pub ratio: f64,
    /// Retries in each second beside those, so that a target with few calls has some.
    pub reserve: u32,
    /// How long calls and retries count; held to 1 s to 60 s.
    pub window: Duration,
}

impl Default for Share {
    /// A fifth of the calls of ten seconds, and ten a second.
    fn default() -> Self {
        Self {
            ratio: 0.2,
            reserve: 10,
            window: Duration::from_secs(10),
        }
    }
}

const SLICES: u32 = 10;
/// Hedges in each second beside their share, so that a target with few calls has some.
pub(super) const HEDGE_RESERVE: u32 = 1;

/// Calls to one target, and how many more requests were retries and hedges.
#[derive(Debug)]
pub struct Budget {
    share: Share,
    reserve: f64,
    calls: Window,
    retries: Window,
    refused: AtomicU64,
    hedges: Window,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(Share::default())
    }
}

impl Budget {
    /// With nothing spent.
    #[must_use]
    pub fn new(share: Share) -> Self {
        let bounds = (Duration::from_secs(1), Duration::from_mins(1));
        let window = share.window.clamp(bounds.0, bounds.1);
        Self {
            reserve: f64::from(share.reserve) * window.as_secs_f64(),
            share: Share { window, ..share },
            calls: Window::new(window, SLICES),
            retries: Window::new(window, SLICES),
            refused: AtomicU64::new(0),
            hedges: Window::new(window, SLICES),
        }
    }

    /// How much may be tried again, as it is held to.
    #[must_use]
    pub fn share(&self) -> Share {
        self.share
    }

    /// Counts a call.
    pub fn call(&self, now: Instant) {
        self.calls.count(now);
    }

    /// Counts a retry, if there is one left.
    #[must_use]
    pub fn withdraw(&self, now: Instant) -> bool {
        let fits = self.fits(&self.retries, self.share.ratio, self.reserve, now);
        if !fits {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    /// Counts a hedge, if there is one left of `ratio` hedges for each call, and one a second. Retries
    /// are none of its business, nor it of theirs.
    #[must_use]
    pub fn withdraw_hedge(&self, ratio: f64, now: Instant) -> bool {
        let reserve = f64::from(HEDGE_RESERVE) * self.share.window.as_secs_f64();
        self.fits(&self.hedges, ratio, reserve, now)
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "counts of a minute are far below 2^52"
    )]
    fn fits(&self, spent: &Window, ratio: f64, reserve: f64, now: Instant) -> bool {
        // Counted before it is known whether it may: of several at once, none takes what another
        // was given.
        spent.count(now);
        let fits = spent.sum(now) as f64 <= self.of_calls(ratio, reserve, now);
        if !fits {
            spent.take_back(now);
        }
        fits
    }

    /// Retries of the window, and how many there may be.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        reason = "counts of a minute are far below 2^52"
    )]
    pub fn spent(&self, now: Instant) -> Spent {
        Spent {
            used: self.retries.sum(now) as f64,
            max: self.allowed(now),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    fn allowed(&self, now: Instant) -> f64 {
        self.of_calls(self.share.ratio, self.reserve, now)
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "counts of a minute are far below 2^52"
    )]
    fn of_calls(&self, ratio: f64, reserve: f64, now: Instant) -> f64 {
        ratio * self.calls.sum(now) as f64 + reserve
    }
}

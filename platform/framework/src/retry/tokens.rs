//! Stops retries at a target where too much fails (gRFC A6, "Throttling Retry Attempts and Hedged
//! RPCs").

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Spent;

/// What one failure costs; tokens are counted in thousandths.
const FAILURE: u32 = 1_000;

/// Tokens of one target: a failure takes one, a success gives a part of one back, and while half of
/// them or fewer are left nothing is tried again.
#[derive(Debug)]
pub struct Tokens {
    left: AtomicU32,
    max: u32,
    gain: u32,
    refused: AtomicU64,
}

impl Default for Tokens {
    /// Ten, of which a success gives back a tenth: six failures in a row end retries, and where one
    /// of ten calls fails they go on.
    fn default() -> Self {
        Self::new(10, 100)
    }
}

impl Tokens {
    /// So many tokens, all there, up to four million; a success gives back so many `thousandths` of
    /// one.
    #[must_use]
    pub fn new(max: u32, thousandths: u16) -> Self {
        let max = max.saturating_mul(FAILURE);
        Self {
            left: AtomicU32::new(max),
            max,
            gain: thousandths.into(),
            refused: AtomicU64::new(0),
        }
    }

    /// Takes one for a failure; whether enough are left for another try.
    pub fn failed(&self) -> bool {
        let order = Ordering::Relaxed;
        let take = |left: u32| Some(left.saturating_sub(FAILURE));
        let before = self.left.fetch_update(order, order, take);
        let left = before.unwrap_or_default().saturating_sub(FAILURE);
        let enough = left > self.max / 2;
        if !enough {
            self.refused.fetch_add(1, order);
        }
        enough
    }

    /// What failures have taken and no success has given back, and of how many.
    #[must_use]
    pub fn spent(&self) -> Spent {
        let whole = f64::from(self.max) / f64::from(FAILURE);
        Spent {
            used: whole - self.left(),
            max: whole / 2.0,
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// Gives back a part of one. Only reads where all are there, as they usually are: calls that
    /// succeed do not contend for it.
    pub fn succeeded(&self) {
        let order = Ordering::Relaxed;
        let give = |left: u32| (left < self.max).then(|| (left + self.gain).min(self.max));
        let _: Result<u32, u32> = self.left.fetch_update(order, order, give);
    }

    /// How many are left.
    #[must_use]
    pub fn left(&self) -> f64 {
        f64::from(self.left.load(Ordering::Relaxed)) / f64::from(FAILURE)
    }
}

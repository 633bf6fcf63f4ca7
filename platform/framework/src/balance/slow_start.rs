//! How an endpoint comes to its share of calls: what is cold gets few, and more from second to
//! second.

use std::time::Duration;

use super::config::SlowStart;

/// The window counts from its first second: before that nothing is known yet.
const FIRST: f32 = 1.0;

/// The growth of a share over time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ramp {
    /// Seconds; more than zero.
    window: f32,
    least: f32,
    exponent: f32,
}

impl Ramp {
    /// None where shares are whole at once.
    #[allow(clippy::cast_possible_truncation)]
    pub(super) fn new(config: &SlowStart) -> Option<Self> {
        let least = config.weight_min_percent.clamp(1, 100);
        (!config.window.is_zero()).then(|| Self {
            window: config.window.as_secs_f32(),
            least: Duration::from_millis(u64::from(least) * 10).as_secs_f32(),
            exponent: 1.0 / config.aggression.clamp(0.1, 10.0) as f32,
        })
    }

    pub(super) fn window_millis(&self) -> u32 {
        let millis = Duration::from_secs_f32(self.window).as_millis();
        u32::try_from(millis).unwrap_or(u32::MAX)
    }

    /// What is there of a share `seconds` after its beginning: from the least to 1.
    pub(super) fn factor(&self, seconds: f32) -> f32 {
        let part = (seconds.max(FIRST) / self.window).min(1.0);
        part.powf(self.exponent).max(self.least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a share grows from a tenth to the whole within half a minute.
    /// Method: the numbers of the reference at 1, 3, 15 and 30 s; the same, faster at first.
    #[test]
    fn a_share_grows_over_the_window() {
        let ramp = Ramp::new(&SlowStart::default()).unwrap();
        for (seconds, expected) in [(0.0, 0.1), (1.0, 0.1), (3.0, 0.1), (15.0, 0.5), (30.0, 1.0)] {
            let factor = ramp.factor(seconds);
            assert!((factor - expected).abs() < 1e-6, "{seconds}: {factor}");
        }
        let faster = SlowStart {
            aggression: 2.0,
            ..SlowStart::default()
        };
        let factor = Ramp::new(&faster).unwrap().factor(7.5);
        assert!((factor - 0.5).abs() < 1e-6, "{factor}");
        let none = SlowStart {
            window: Duration::ZERO,
            ..SlowStart::default()
        };
        assert_eq!(None, Ramp::new(&none));
    }
}

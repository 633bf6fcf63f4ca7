//! Growing, jittered pauses between tries.
//!
//! The shape is gRPC's connection backoff: the first pause is `min`, each following one
//! `multiplier` times longer up to `max`, and every pause is spread by `jitter` so that many
//! clients do not come back at the same moment.

use std::time::Duration;

/// The pauses a [`Backoff`] produces.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// First pause. Above zero.
    pub min: Duration,
    /// Longest pause before jitter. At least `min`.
    pub max: Duration,
    /// Growth from one pause to the next. At least 1.
    pub multiplier: f64,
    /// Spread either way, as a share of the pause: 0.2 means ±20 %. From 0 to below 1.
    pub jitter: f64,
}

impl Default for Config {
    /// gRPC's connection backoff: 1 s growing by 1.6 to 2 min, ±20 %.
    fn default() -> Self {
        Self {
            min: Duration::from_secs(1),
            max: Duration::from_mins(2),
            multiplier: 1.6,
            jitter: 0.2,
        }
    }
}

impl Config {
    /// The pause after `before` others, jittered: for whoever keeps their number, and no [`Backoff`].
    ///
    /// # Panics
    ///
    /// If [`Backoff::new`] would refuse this.
    #[must_use]
    pub fn pause_after(&self, before: u32) -> Duration {
        let exponent = i32::try_from(before).unwrap_or(i32::MAX);
        let grown = self.min.as_secs_f64() * self.multiplier.powi(exponent);
        let grown = Duration::try_from_secs_f64(grown).unwrap_or(self.max);
        self.spread(grown.min(self.max))
    }

    fn spread(&self, pause: Duration) -> Duration {
        let spread = self.jitter * (2.0 * fastrand::f64() - 1.0);
        pause.mul_f64(1.0 + spread)
    }
}

/// What is wrong with a [`Config`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A first pause of zero would try without pause.
    #[error("min is 0, which retries without a pause")]
    MinZero,
    /// The longest pause is shorter than the first.
    #[error("max is below min")]
    MaxBelowMin,
    /// Pauses would shrink.
    #[error("multiplier is below 1, which shrinks the pauses")]
    MultiplierBelowOne,
    /// The spread could reach zero or below.
    #[error("jitter is not within 0 and 1")]
    JitterOutOfRange,
}

/// Produces the pauses of one sequence of tries.
#[derive(Debug, Clone)]
pub struct Backoff {
    config: Config,
    pause: Duration,
}

impl Backoff {
    /// Starts a sequence.
    ///
    /// # Errors
    ///
    /// If `config` could produce a zero or shrinking pause.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        if config.min.is_zero() {
            return Err(ConfigError::MinZero);
        }
        if config.max < config.min {
            return Err(ConfigError::MaxBelowMin);
        }
        if config.multiplier.is_nan() || config.multiplier < 1.0 {
            return Err(ConfigError::MultiplierBelowOne);
        }
        if !(0.0..1.0).contains(&config.jitter) {
            return Err(ConfigError::JitterOutOfRange);
        }
        Ok(Self {
            pause: config.min,
            config,
        })
    }

    /// The next pause, jittered; the one after it is longer.
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = pause.mul_f64(self.config.multiplier).min(self.config.max);
        self.config.spread(pause)
    }

    /// Begins again at the first pause, after a success.
    pub fn reset(&mut self) {
        self.pause = self.config.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: pauses grow from `min` to `max` and begin again after a success.
    /// Method: no jitter, so the whole sequence is known.
    #[test]
    fn pauses_grow_to_the_longest_and_begin_again() {
        let config = Config {
            min: Duration::from_secs(1),
            max: Duration::from_secs(3),
            multiplier: 2.0,
            jitter: 0.0,
        };
        let mut backoff = Backoff::new(config).unwrap();

        let pauses: Vec<_> = (0..4).map(|_| backoff.next_pause().as_secs()).collect();
        assert_eq!(vec![1, 2, 3, 3], pauses);
        let numbers = [0, 1, 2, 3, 1_000, u32::MAX];
        let pauses = numbers.map(|before| config.pause_after(before).as_secs());
        assert_eq!([1, 2, 3, 3, 3, 3], pauses);

        backoff.reset();
        assert_eq!(1, backoff.next_pause().as_secs());
    }

    /// Goal: jitter spreads pauses over its whole share, and not beyond.
    /// Method: a thousand first pauses, seeded, against 0.8 to 1.2 of the plain one.
    #[test]
    fn jitter_fills_its_share_and_no_more() {
        fastrand::seed(7);
        let mut backoff = Backoff::new(Config::default()).unwrap();
        let mut pauses: Vec<_> = (0..1_000)
            .map(|_| {
                backoff.reset();
                backoff.next_pause().as_secs_f64()
            })
            .collect();
        pauses.sort_by(f64::total_cmp);
        let (shortest, longest) = (pauses[0], pauses[999]);
        assert!((0.8..0.82).contains(&shortest), "{shortest}");
        assert!((1.18..=1.2).contains(&longest), "{longest}");
    }

    /// Goal: a sequence that would hammer or shrink is refused.
    /// Method: each bad field alone.
    #[test]
    fn senseless_pauses_are_refused() {
        let good = Config::default();
        let cases = [
            (
                Config {
                    min: Duration::ZERO,
                    ..good
                },
                ConfigError::MinZero,
            ),
            (
                Config {
                    max: Duration::from_millis(1),
                    ..good
                },
                ConfigError::MaxBelowMin,
            ),
            (
                Config {
                    multiplier: 0.9,
                    ..good
                },
                ConfigError::MultiplierBelowOne,
            ),
            (
                Config {
                    multiplier: f64::NAN,
                    ..good
                },
                ConfigError::MultiplierBelowOne,
            ),
            (
                Config {
                    jitter: 1.0,
                    ..good
                },
                ConfigError::JitterOutOfRange,
            ),
            (
                Config {
                    jitter: -0.1,
                    ..good
                },
                ConfigError::JitterOutOfRange,
            ),
        ];
        for (config, expected) in cases {
            assert_eq!(Some(expected), Backoff::new(config).err());
        }
    }
}

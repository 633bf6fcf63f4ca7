//! Points in time as databases keep them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry::contract::prost_types;

use crate::{Error, Row, Value};

/// A point in time to the microsecond; in a table a `BIGINT`, microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Now, by this machine's clock. For what is written down; durations are measured with
    /// `tokio::time`.
    #[must_use]
    // Rows outlive the process and are read by others: only the wall clock means something there.
    #[allow(clippy::disallowed_methods)]
    pub fn now() -> Self {
        #[cfg(any(test, feature = "testing"))]
        if let Some(now) = crate::testing::now() {
            return now;
        }
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// The time `micros` microseconds after 1970 began.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970 began.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970 began.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// What is beyond whole seconds, in nanoseconds.
    #[must_use]
    pub fn subsecond_nanos(self) -> i32 {
        let micros = self.0.rem_euclid(1_000_000);
        // Less than a second of them always fits.
        i32::try_from(micros * 1_000).unwrap_or_default()
    }

    /// The time `duration` later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros_of(duration)))
    }

    /// The time `duration` earlier.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros_of(duration)))
    }
}

fn micros_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl From<Timestamp> for Value {
    fn from(time: Timestamp) -> Self {
        Self::Integer(time.0)
    }
}

impl From<Timestamp> for prost_types::Timestamp {
    fn from(time: Timestamp) -> Self {
        Self {
            seconds: time.seconds(),
            nanos: time.subsecond_nanos(),
        }
    }
}

impl Row {
    /// The point in time in `column`.
    ///
    /// # Errors
    ///
    /// As [`Row::integer`].
    pub fn time(&self, column: &str) -> Result<Timestamp, Error> {
        self.integer(column).map(Timestamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the parts add up, before 1970 too, and lengths beyond the range stop at its ends.
    /// Method: a few times around zero and the limits.
    #[test]
    fn parts_add_up_and_lengths_saturate() {
        for micros in [
            0,
            1,
            999_999,
            1_000_000,
            1_700_000_000_123_456,
            -1,
            -1_000_001,
        ] {
            let time = Timestamp::from_micros(micros);
            let nanos = i64::from(time.subsecond_nanos());
            assert!((0..1_000_000_000).contains(&nanos), "{micros}");
            assert_eq!(
                micros,
                time.seconds() * 1_000_000 + nanos / 1_000,
                "{micros}"
            );
            let message = prost_types::Timestamp::from(time);
            assert_eq!(
                (time.seconds(), time.subsecond_nanos()),
                (message.seconds, message.nanos)
            );
        }
        let time = Timestamp::from_micros(5);
        assert_eq!(7, time.after(Duration::from_micros(2)).micros());
        assert_eq!(3, time.before(Duration::from_micros(2)).micros());
        assert_eq!(i64::MAX, time.after(Duration::MAX).micros());
    }
}

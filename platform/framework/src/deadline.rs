//! When a call's caller stops waiting.
//!
//! A deadline is a point in time, fixed once where a call enters the process. On the wire it is a
//! length, `grpc-timeout`, so clocks need not agree. Enforcing it, on bodies too, is done by the
//! server's and the client's stacks; this module holds what both share.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use tokio::time::Instant;

/// The header that carries what remains of a deadline ("PROTOCOL-HTTP2", `Timeout`).
pub static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// A point in time after which nobody waits for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline `timeout` from now. A length beyond what the clock can hold is none.
    #[must_use]
    pub fn after(timeout: Duration) -> Option<Self> {
        Self::since(Instant::now(), timeout)
    }

    /// As [`Deadline::after`], counted from `instant`.
    #[must_use]
    pub fn since(instant: Instant, timeout: Duration) -> Option<Self> {
        instant.checked_add(timeout).map(Self)
    }

    /// The deadline at `instant`.
    #[must_use]
    pub fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// The point in time.
    #[must_use]
    pub fn instant(self) -> Instant {
        self.0
    }

    /// What is left; zero once it has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    #[must_use]
    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// The earlier of two deadlines, where there are any.
    #[must_use]
    pub fn earlier(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }
}

/// Why a `grpc-timeout` could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("grpc-timeout is not one to eight digits and one of the units H, M, S, m, u, n")]
pub struct MalformedTimeout;

/// Reads a `grpc-timeout`: one to eight digits and a unit.
///
/// # Errors
///
/// If it is anything else. A server answers INTERNAL to it, as grpc-go does: a caller whose
/// deadline cannot be read would otherwise be served without one.
pub fn parse_timeout(value: &HeaderValue) -> Result<Duration, MalformedTimeout> {
    let Some((unit, digits)) = value.as_bytes().split_last() else {
        return Err(MalformedTimeout);
    };
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return Err(MalformedTimeout);
    }
    let amount = digits
        .iter()
        .fold(0_u64, |amount, digit| amount * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Ok(Duration::from_secs(amount * 3_600)),
        b'M' => Ok(Duration::from_secs(amount * 60)),
        b'S' => Ok(Duration::from_secs(amount)),
        b'm' => Ok(Duration::from_millis(amount)),
        b'u' => Ok(Duration::from_micros(amount)),
        b'n' => Ok(Duration::from_nanos(amount)),
        _ => Err(MalformedTimeout),
    }
}

/// Writes a `grpc-timeout` in the finest unit that fits eight digits, rounded down, so that the
/// callee never believes it has longer than its caller waits.
#[must_use]
#[expect(
    clippy::missing_panics_doc,
    reason = "digits and a letter are a header value"
)]
pub fn format_timeout(timeout: Duration) -> HeaderValue {
    const MAX: u128 = 99_999_999;
    let units: [(u128, u8); 5] = [
        (timeout.as_nanos(), b'n'),
        (timeout.as_micros(), b'u'),
        (timeout.as_millis(), b'm'),
        (u128::from(timeout.as_secs()), b'S'),
        (u128::from(timeout.as_secs() / 60), b'M'),
    ];
    let (amount, unit) = units
        .into_iter()
        .find(|(amount, _)| *amount <= MAX)
        .unwrap_or_else(|| (u128::from(timeout.as_secs() / 3_600).min(MAX), b'H'));
    // By hand, because every call made writes one: the formatter costs five times as much.
    let mut left = u32::try_from(amount).unwrap_or(u32::MAX);
    let mut text = [unit; 9];
    let mut first = text.len() - 1;
    for digit in text[..8].iter_mut().rev() {
        *digit = b"0123456789"[(left % 10) as usize];
        first -= 1;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    HeaderValue::from_bytes(&text[first..]).expect("digits and a letter are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every unit is read; what is not a timeout is refused.
    /// Method: values from the specification and their near misses.
    #[test]
    fn timeouts_are_read_as_specified() {
        let good = [
            ("1H", Duration::from_hours(1)),
            ("2M", Duration::from_mins(2)),
            ("3S", Duration::from_secs(3)),
            ("100m", Duration::from_millis(100)),
            ("99999999u", Duration::from_micros(99_999_999)),
            ("0n", Duration::ZERO),
        ];
        for (value, expected) in good {
            assert_eq!(
                Ok(expected),
                parse_timeout(&HeaderValue::from_static(value))
            );
        }
        for value in [
            "",
            "m",
            "1",
            "1s",
            "-1S",
            "1.5S",
            "123456789n",
            " 1S",
            "1 S",
        ] {
            assert!(
                parse_timeout(&HeaderValue::from_static(value)).is_err(),
                "{value:?}"
            );
        }
    }

    /// Goal: what is written is never longer than what was meant, and loses at most one unit.
    /// Method: write and read back lengths around each unit's limit.
    #[test]
    fn written_timeouts_round_down() {
        for nanos in [
            0,
            1,
            99_999_999,
            100_000_000,
            99_999_999_999,
            123_456_789_012_345,
        ] {
            let meant = Duration::from_nanos(nanos);
            let read = parse_timeout(&format_timeout(meant)).unwrap();
            assert!(read <= meant, "{meant:?} became {read:?}");
            assert!(
                meant < read + Duration::from_secs(1),
                "{meant:?} became {read:?}"
            );
        }
        let longest = parse_timeout(&format_timeout(Duration::MAX)).unwrap();
        assert_eq!(Duration::from_hours(99_999_999), longest);
    }

    /// Goal: of two deadlines the earlier holds, and none is no limit.
    /// Method: all four combinations.
    #[tokio::test(start_paused = true)]
    async fn the_earlier_deadline_holds() {
        let soon = Deadline::after(Duration::from_secs(1));
        let late = Deadline::after(Duration::from_secs(9));
        assert_eq!(soon, Deadline::earlier(soon, late));
        assert_eq!(soon, Deadline::earlier(late, soon));
        assert_eq!(soon, Deadline::earlier(None, soon));
        assert_eq!(None, Deadline::earlier(None, None));
    }
}

//! How much time and how many attempts the calls of a method can take.

use std::time::Duration;

use super::{Policy, Share, Way, budget::HEDGE_RESERVE, course::JITTER};
use crate::contract::Idempotency;

/// What beside its policy bounds the calls of a method at one target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// What a second try would do.
    pub idempotency: Idempotency,
    /// Whether the caller sends a stream.
    pub client_streaming: bool,
    /// Longest time of a call, if it has one.
    pub timeout: Option<Duration>,
    /// How long an attempt waits for an endpoint that can take it.
    pub wait_max: Duration,
    /// How often a request is sent again that reached no handler: for each call, hedged for each
    /// attempt.
    pub repeats_max: u32,
    /// How much of all calls may be tried again.
    pub share: Share,
}

/// What calls can come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// How they are tried.
    pub way: Way,
    /// Longest time of a call, if it has one.
    pub timeout: Option<Duration>,
    /// The longest that one waits for the beginning of its answer: for all attempts, with the pauses and
    /// waits between them, and no longer than `timeout`. A pause that a server asks for is not in it, and of
    /// requests that are too large to be sent again each attempt has all of `timeout`.
    pub latency_max: Option<Duration>,
    /// What of that are attempts, each to its own time; nothing where they have none.
    pub attempts_time: Option<Duration>,
    /// What of that are pauses before other attempts, at their longest.
    pub pauses_time: Duration,
    /// What of that are waits for an endpoint.
    pub waits_time: Duration,
    /// Attempts of one call that handlers may see.
    pub attempts_max: u32,
    /// How often it is sent beside those and reaches none.
    pub repeats_max: u32,
    /// Attempts for each of many calls, as their target's budget has it, if all of them fail.
    pub amplification: f64,
    /// Attempts in each second beside those.
    pub spare_per_second: u32,
}

impl Policy {
    /// What calls of a method can come to that follow this.
    #[must_use]
    pub fn bounds(&self, terms: &Terms) -> Bounds {
        let way = self.way(terms.idempotency);
        // A stream is sent to one after the other, and each has all the time it takes.
        let attempts_max = match way {
            Way::Once => 1,
            Way::Hedged if !terms.client_streaming => self.hedges_max(),
            Way::Retried | Way::Hedged => self.attempts_max(),
        };
        let hedged = way == Way::Hedged && !terms.client_streaming;
        let again = attempts_max - 1;
        let attempts_max = u32::from(attempts_max);
        let pauses_time = if hedged {
            // What is measured has a bound, too.
            self.hedge_delay(Some(Duration::MAX)) * u32::from(again)
        } else {
            let pauses = (0..again).map(|number| self.pause(number));
            pauses.map(|pause| pause.mul_f64(1.0 + JITTER)).sum()
        };
        // Hedged ones are on their way at once, and the last of them has all of its own.
        let (sent, repeats_max) = if hedged {
            (1 + terms.repeats_max, terms.repeats_max * attempts_max)
        } else {
            (attempts_max + terms.repeats_max, terms.repeats_max)
        };
        let timed = way == Way::Retried && !terms.client_streaming;
        let attempt_timeout = self.attempt_timeout().filter(|_| timed);
        let attempts_time = attempt_timeout.map(|time| time * sent);
        let waits_time = terms.wait_max * sent;
        let whole = attempts_time.map(|time| time + pauses_time + waits_time);
        let (ratio, spare) = if hedged {
            (self.hedge_budget(), HEDGE_RESERVE)
        } else {
            (0.0, 0)
        };
        let amplification = (1.0 + terms.share.ratio + ratio).min(f64::from(attempts_max));
        Bounds {
            way,
            timeout: terms.timeout,
            latency_max: whole.into_iter().chain(terms.timeout).min(),
            attempts_time,
            pauses_time,
            waits_time,
            attempts_max,
            repeats_max,
            amplification,
            spare_per_second: if again > 0 {
                terms.share.reserve + spare
            } else {
                0
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::{Config, Hedge};

    const MS: Duration = Duration::from_millis(1);

    fn terms(idempotency: Idempotency) -> Terms {
        Terms {
            idempotency,
            client_streaming: false,
            timeout: Some(5_000 * MS),
            wait_max: 100 * MS,
            repeats_max: 4,
            share: Share::default(),
        }
    }

    fn policy() -> Policy {
        let retry = Config {
            attempt_timeout: 200 * MS,
            ..Config::default()
        };
        let hedge = Hedge {
            attempts_max: 4,
            delay: 30 * MS,
            ..Hedge::default()
        };
        Policy::new(&retry, &hedge)
    }

    /// Goal: time and attempts are those that the stack may take, to the millisecond.
    /// Method: a method that is retried, hedged or neither, by its contract; each number by hand.
    #[test]
    fn each_bound_is_exact() {
        let policy = policy();
        let retried = policy.bounds(&terms(Idempotency::Idempotent));
        let expected = Bounds {
            way: Way::Retried,
            timeout: Some(5_000 * MS),
            // (3 + 4) x 200 + 1.2 x (50 + 100) + (3 + 4) x 100.
            latency_max: Some(2_280 * MS),
            attempts_time: Some(1_400 * MS),
            pauses_time: 180 * MS,
            waits_time: 700 * MS,
            attempts_max: 3,
            repeats_max: 4,
            amplification: 1.2,
            spare_per_second: 10,
        };
        assert_eq!(expected, retried);

        let hedged = policy.bounds(&terms(Idempotency::NoSideEffects));
        let expected = Bounds {
            way: Way::Hedged,
            latency_max: Some(5_000 * MS),
            attempts_time: None,
            pauses_time: 90 * MS,
            waits_time: 500 * MS,
            attempts_max: 4,
            repeats_max: 16,
            // A fifth for those after a failure, and a twentieth for those without an answer.
            amplification: 1.25,
            spare_per_second: 11,
            ..expected
        };
        assert_eq!(expected, hedged);

        let once = policy.bounds(&terms(Idempotency::Unknown));
        let expected = Bounds {
            way: Way::Once,
            pauses_time: Duration::ZERO,
            attempts_max: 1,
            repeats_max: 4,
            amplification: 1.0,
            spare_per_second: 0,
            ..expected
        };
        assert_eq!(expected, once);
    }

    /// Goal: the time of the call is the most, and a stream without has no bound.
    /// Method: less time than attempts take; none; a stream from the caller, whose attempts have no time.
    #[test]
    fn the_time_of_the_call_is_the_most() {
        let of = |terms: Terms| policy().bounds(&terms).latency_max;
        let terms = terms(Idempotency::Idempotent);
        let timeout = |timeout| Terms { timeout, ..terms };
        assert_eq!(Some(2_000 * MS), of(timeout(Some(2_000 * MS))));
        assert_eq!(Some(2_280 * MS), of(timeout(None)));
        let streams = Terms {
            client_streaming: true,
            ..timeout(None)
        };
        assert_eq!(None, of(streams));
        let without = Policy::new(&Config::default(), &Hedge::default());
        assert_eq!(None, without.bounds(&timeout(None)).latency_max);
    }
}

//! How much is refused: a number that goes up and down step by step.
//!
//! Each criticality is ten steps, the least first: a tenth of its calls each. So what is let in changes
//! little at once, and comes to rest near what the process can do; all or nothing would swing from one
//! to the other.

use std::time::Duration;

use tokio::time::Instant;

use super::Config;
use crate::caller::Criticality;

/// Steps of one criticality.
pub(super) const CLASS: u32 = 10;
/// The two lesser criticalities are refused, and nothing else.
const SHEDDABLE: u32 = 2 * CLASS;
/// All but the highest is refused.
const ALL_BUT_ONE: u32 = 3 * CLASS;
/// Everything is refused.
const ALL: u32 = 4 * CLASS;
/// Steps up at a time; down it is one.
const UP: u32 = 2;
/// How many times as late as they may be tasks must begin for calls to be refused that somebody waits for.
const SEVERE: u32 = 5;
/// With so few calls in flight it is not these that make a process late, but others on its machine, and
/// to refuse what somebody waits for would help nobody.
const FEW: usize = 16;
/// How long the rule for busy processors holds after it has last refused something.
const COOL: Duration = Duration::from_secs(1);

/// How many tenths of the calls of a criticality are refused.
pub(super) fn tenths(steps: u32, criticality: Criticality) -> u32 {
    steps.saturating_sub(criticality as u32 * CLASS).min(CLASS)
}

/// Which share of the calls of a criticality is refused, from 0 to 1.
pub(super) fn share(steps: u32, criticality: Criticality) -> f64 {
    f64::from(tenths(steps, criticality)) / f64::from(CLASS)
}

/// What was found.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Signs {
    /// How late tasks begin to run.
    pub(super) lag: Duration,
    /// Processor time used, from 0 to 1.
    pub(super) cpu: f64,
    /// Memory used, from 0 to 1.
    pub(super) memory: f64,
    /// How many calls are in flight.
    pub(super) in_flight: usize,
    /// Whether that is more than the process needs.
    pub(super) crowded: bool,
}

/// What is refused: nothing at first.
#[derive(Debug, Default)]
pub(super) struct Level {
    steps: u32,
    /// When busy processors were last a reason.
    busy: Option<Instant>,
    /// Whether memory is nearly used up.
    short: bool,
}

impl Level {
    /// Follows what was found; asked for ten times a second.
    pub(super) fn follow(&mut self, signs: Signs, config: &Config, now: Instant) -> u32 {
        let memory = percent(signs.memory);
        let busy = self.is_busy(signs, config, now);
        let spare = memory + 2 < config.memory_soft_percent.max(3);
        self.short = memory >= config.memory_soft_percent || (self.short && !spare);
        if memory >= config.memory_max_percent {
            self.steps = ALL;
            return self.steps;
        }
        let too_many = signs.crowded && signs.in_flight > FEW;
        let ceiling = if signs.lag >= config.lag_max * SEVERE && too_many {
            ALL_BUT_ONE
        } else if signs.lag >= config.lag_max || busy || memory >= config.memory_soft_percent {
            SHEDDABLE
        } else {
            0
        };
        // Between what begins it and what ends it, it stays as it is.
        let calm = signs.lag < config.lag_max / 2 && !busy && spare;
        self.steps = if self.steps < ceiling {
            (self.steps + UP).min(ceiling)
        } else if calm || self.steps > ceiling.max(SHEDDABLE) {
            self.steps.saturating_sub(1)
        } else {
            self.steps
        };
        self.steps
    }

    /// Whether memory was nearly used up at the last look, or before and is not much less so.
    pub(super) fn is_short_of_memory(&self) -> bool {
        self.short
    }

    /// Whether busy processors are a reason. Once they were, it is enough for a second that there are
    /// more calls than needed: the processors are less busy because of what is refused.
    fn is_busy(&mut self, signs: Signs, config: &Config, now: Instant) -> bool {
        let hot = percent(signs.cpu) >= config.cpu_max_percent;
        let recent = self.busy.is_some_and(|last| now - last <= COOL);
        let busy = signs.crowded && (hot || recent);
        if busy && hot {
            self.busy = Some(now);
        }
        busy
    }
}

/// A share as a percentage, rounded down.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn percent(share: f64) -> u32 {
    // What is meant to be 0.85 may be a little less.
    (share * 100.0 + 1e-6) as u32
}

/// What of it people are told: which criticalities are refused, in part or as a whole.
pub(super) fn in_words(steps: u32) -> &'static str {
    match steps {
        0 => "nothing is refused",
        1..=10 => "SHEDDABLE calls are refused, more and more",
        11..=20 => "SHEDDABLE_PLUS calls and all that matter less are refused, more and more",
        21..=30 => "CRITICAL calls and all that matter less are refused, more and more",
        _ => "all calls are refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Signs = Signs {
        lag: Duration::ZERO,
        cpu: 0.0,
        memory: 0.0,
        in_flight: 1,
        crowded: false,
    };

    fn lag(millis: u64) -> Signs {
        Signs {
            lag: Duration::from_millis(millis),
            in_flight: 17,
            crowded: true,
            ..QUIET
        }
    }

    /// The steps after `times` looks, a tenth of a second apart, that found the same.
    fn after(level: &mut Level, signs: Signs, times: u32, now: &mut Instant) -> u32 {
        let config = Config::default();
        let mut steps = 0;
        for _ in 0..times {
            *now += Duration::from_millis(100);
            steps = level.follow(signs, &config, *now);
        }
        steps
    }

    /// Goal: what matters least goes first, a part at a time, and comes back slower; in between nothing
    /// changes.
    /// Method: tasks that are late, a little less late, and not late.
    #[tokio::test(start_paused = true)]
    async fn it_moves_step_by_step_and_stays_in_between() {
        let (mut level, mut now) = (Level::default(), Instant::now());
        let level = &mut level;
        assert_eq!(0, after(level, lag(19), 50, &mut now));
        assert_eq!(2, after(level, lag(20), 1, &mut now));
        assert_eq!(4, after(level, lag(20), 1, &mut now));
        assert_eq!(4, after(level, lag(19), 50, &mut now), "in between");
        assert_eq!(4, after(level, lag(10), 50, &mut now), "in between");
        assert_eq!(
            20,
            after(level, lag(99), 50, &mut now),
            "what somebody waits for stays"
        );
        assert_eq!(22, after(level, lag(100), 1, &mut now));
        assert_eq!(
            30,
            after(level, lag(900), 50, &mut now),
            "the highest stays"
        );
        assert_eq!(
            20,
            after(level, lag(50), 50, &mut now),
            "back to what that is a reason for"
        );
        assert_eq!(19, after(level, lag(9), 1, &mut now));
        assert_eq!(
            0,
            after(level, lag(9), 19, &mut now),
            "two seconds for all of it"
        );
    }

    /// Goal: what somebody waits for is not refused as others on the machine make the process late.
    /// Method: far too late, with few calls in flight, and with no more than it needs.
    #[tokio::test(start_paused = true)]
    async fn with_few_calls_being_late_is_no_fault_of_theirs() {
        let (mut level, mut now) = (Level::default(), Instant::now());
        let few = Signs {
            in_flight: 16,
            ..lag(900)
        };
        let needed = Signs {
            crowded: false,
            ..lag(900)
        };
        assert_eq!(20, after(&mut level, few, 50, &mut now));
        assert_eq!(20, after(&mut level, needed, 50, &mut now));
        assert_eq!(22, after(&mut level, lag(900), 1, &mut now));
    }

    /// Goal: tenths are of one criticality after the other.
    /// Method: every step.
    #[test]
    fn each_criticality_is_ten_steps() {
        for (steps, expected) in [
            (0, [0, 0, 0, 0]),
            (1, [1, 0, 0, 0]),
            (10, [10, 0, 0, 0]),
            (15, [10, 5, 0, 0]),
            (30, [10, 10, 10, 0]),
            (40, [10, 10, 10, 10]),
        ] {
            assert_eq!(expected, Criticality::ALL.map(|it| tenths(steps, it)));
        }
    }

    /// Goal: memory is a reason from 92 % on, for all from 95 % on at once; not without a bound on it.
    /// Method: shares around both.
    #[tokio::test(start_paused = true)]
    async fn memory_refuses_in_two_stages() {
        let memory = |memory| Signs { memory, ..QUIET };
        let (mut level, mut now) = (Level::default(), Instant::now());
        let level = &mut level;
        assert_eq!(0, after(level, memory(0.919), 9, &mut now));
        assert_eq!(20, after(level, memory(0.92), 50, &mut now));
        assert_eq!(40, after(level, memory(0.95), 1, &mut now));
        assert_eq!(20, after(level, memory(0.94), 50, &mut now));
        assert_eq!(20, after(level, memory(0.91), 50, &mut now), "in between");
        assert_eq!(0, after(level, memory(0.85), 50, &mut now));
    }

    /// Goal: busy processors alone, or many calls alone, are no reason; both are, and for a second after the
    /// processors were busy the calls are.
    /// Method: the four cases in turn.
    #[tokio::test(start_paused = true)]
    async fn busy_processors_count_with_too_many_calls_alone() {
        let cpu = |cpu, crowded| Signs {
            cpu,
            crowded,
            ..QUIET
        };
        let (mut level, mut now) = (Level::default(), Instant::now());
        let level = &mut level;
        assert_eq!(0, after(level, cpu(1.0, false), 50, &mut now));
        assert_eq!(0, after(level, cpu(0.84, true), 50, &mut now));
        assert_eq!(2, after(level, cpu(0.85, true), 1, &mut now));
        assert_eq!(
            20,
            after(level, cpu(0.5, true), 10, &mut now),
            "for a second"
        );
        assert_eq!(19, after(level, cpu(0.5, true), 1, &mut now));
        assert_eq!(0, after(level, cpu(0.5, true), 50, &mut now));
    }

    /// Goal: what somebody waits for is let in again as soon as what was severe is over, also where it
    /// does not get quite calm.
    /// Method: memory, and lag, from the worst to just what is between.
    #[tokio::test(start_paused = true)]
    async fn nothing_severe_outlasts_its_reason() {
        let memory = |memory| Signs { memory, ..QUIET };
        for (worst, between) in [(memory(0.95), memory(0.91)), (lag(100), lag(15))] {
            let (mut level, mut now) = (Level::default(), Instant::now());
            assert!(after(&mut level, worst, 50, &mut now) >= ALL_BUT_ONE);
            assert_eq!(SHEDDABLE, after(&mut level, between, 50, &mut now));
        }
    }
}

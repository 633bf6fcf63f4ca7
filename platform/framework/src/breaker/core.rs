//! The breaker itself, without a name, a journal or metrics: one of these per endpoint costs little.
//!
//! It never reads the clock and owns no task: time comes with each question, and what is due by then
//! happens then.

use std::{fmt, time::Duration};

use tokio::time::Instant;

use super::{
    config::{Config, Mode},
    state::{Moment, Phase, Seen, Word},
    sync::atomic::{AtomicU8, Ordering},
    window::{Counts, Stamp, Window},
};
use crate::{classify::Verdict, telemetry::platform::BreakerState as State};

/// Decides by how calls end whether more may pass.
///
/// Whoever makes a call asks [`Core::admit`] and says [`Core::end`], once and in any case; dropped
/// calls end as [`Verdict::Ignored`]. Both answer with the [`Change`] that they made.
#[derive(Debug)]
pub struct Core {
    origin: Instant,
    word: Word,
    window: Window,
    /// What was forced, as [`Core::force`] writes it.
    forced: AtomicU8,
}

/// What a call would meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admits {
    /// It would pass.
    Yes,
    /// It would pass as the one that tries again.
    Probe,
    /// It would be refused.
    No(Open),
}

/// A call was refused, because of how those before it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("refused for now, as calls before failed")]
pub struct Open {
    /// What the breaker is.
    pub state: State,
    /// When it would let a call pass if nothing happened until then.
    pub until: Instant,
    /// When another try is worth while; no later than `until`.
    pub pause: Duration,
}

/// A call that passed, until it ends.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a call that passed must be ended"]
pub struct Ticket(Kind);

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// One of many.
    Counted(u32),
    /// The one that tries again.
    Probe(u32),
    /// One whose end says nothing here.
    Uncounted,
}

impl Ticket {
    /// Whether its call is the one that tries again.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        matches!(self.0, Kind::Probe(_))
    }
}

/// A call passed.
#[derive(Debug)]
pub struct Admission {
    /// To be handed to [`Core::end`].
    pub ticket: Ticket,
    /// What letting it pass changed.
    pub change: Option<Change>,
    /// Why it would have been refused, if the breaker only counted what it would do.
    pub would_refuse: Option<Open>,
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// What it was. The same as `to` where a probe told nothing, or another was let go in its place.
    pub from: State,
    /// What it is.
    pub to: State,
    /// Why.
    pub cause: Cause,
    /// How long it is so by itself, where it is not for ever.
    pub time: Option<Duration>,
}

/// Why a state changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cause {
    /// So many calls failed one after the other.
    InARow(u64),
    /// Too many of these failed.
    FailureRate(Counts),
    /// Too many of these were slow.
    SlowRate(Counts),
    /// It was open long enough.
    PauseOver,
    /// The call that tried again succeeded.
    ProbePassed,
    /// The call that tried again failed, or was slow.
    ProbeFailed,
    /// The call that tried again told nothing.
    ProbeLeft,
    /// Somebody wants it so.
    ByHand,
    /// What somebody wanted has ended.
    TimeOver,
    /// The configuration wants it so.
    Configured,
    /// Whoever is called now is another.
    Anew,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InARow(failures) => write!(f, "{failures} failures in a row"),
            Self::FailureRate(of) => write!(f, "{} of {} calls failed", of.failed, of.calls),
            Self::SlowRate(of) => write!(f, "{} of {} calls were slow", of.slow, of.calls),
            Self::PauseOver => f.write_str("its pause is over"),
            Self::ProbePassed => f.write_str("a call succeeded"),
            Self::ProbeFailed => f.write_str("a call failed again"),
            Self::ProbeLeft => f.write_str("a call told nothing"),
            Self::ByHand => f.write_str("set by hand"),
            Self::TimeOver => f.write_str("what was set by hand has ended"),
            Self::Configured => f.write_str("set by the configuration"),
            Self::Anew => f.write_str("it was restarted"),
        }
    }
}

/// How a call ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// What that says.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
    /// When it ended.
    pub now: Instant,
}

impl Core {
    /// A closed one, made at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            origin: now,
            word: Word::default(),
            window: Window::default(),
            forced: AtomicU8::new(0),
        }
    }

    /// What a call at `now` would meet; a few loads.
    #[must_use]
    pub fn admits_at(&self, now: Instant, config: &Config) -> Admits {
        match self.mode(config) {
            Mode::Disabled | Mode::MetricsOnly => return Admits::Yes,
            Mode::ForcedOpen => return Admits::No(forced(now, config)),
            Mode::Automatic => {}
        }
        let seen = self.word.load();
        match seen.phase {
            Phase::Closed { .. } => Admits::Yes,
            Phase::Open { until } | Phase::HalfOpen { until } if self.moment(now) >= until => {
                Admits::Probe
            }
            Phase::Open { .. } | Phase::HalfOpen { .. } => {
                Admits::No(self.refusal(seen, now, config))
            }
        }
    }

    /// Lets a call pass at `now`, or refuses it.
    ///
    /// # Errors
    ///
    /// While it is open, and while another call tries again.
    pub fn admit(&self, now: Instant, config: &Config) -> Result<Admission, Open> {
        let mode = self.mode(config);
        match mode {
            Mode::Disabled => return Ok(Admission::uncounted(None)),
            Mode::ForcedOpen => return Err(forced(now, config)),
            Mode::Automatic | Mode::MetricsOnly => {}
        }
        let time = config.probe_time_max;
        match self.word.admit(self.moment(now), time) {
            Ok(passed) => {
                let generation = passed.generation;
                let change = passed.probe.map(|before| Change {
                    from: state_of(before),
                    to: State::HalfOpen,
                    cause: Cause::PauseOver,
                    time: Some(time),
                });
                let kind = match change {
                    Some(_) => Kind::Probe(generation),
                    None => Kind::Counted(generation),
                };
                Ok(Admission {
                    ticket: Ticket(kind),
                    change,
                    would_refuse: None,
                })
            }
            Err(seen) => {
                let open = self.refusal(seen, now, config);
                if mode == Mode::MetricsOnly {
                    return Ok(Admission::uncounted(Some(open)));
                }
                Err(open)
            }
        }
    }

    /// Takes in how a call ended that passed. One that passed before the last change of state changes
    /// nothing.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a ticket is good for one end"
    )]
    pub fn end(&self, ticket: Ticket, ended: Ended, config: &Config) -> Option<Change> {
        let verdict = match self.mode(config) {
            Mode::Automatic | Mode::MetricsOnly => ended.verdict,
            Mode::Disabled | Mode::ForcedOpen => Verdict::Ignored,
        };
        let ended = Ended { verdict, ..ended };
        match ticket.0 {
            Kind::Uncounted => None,
            Kind::Counted(generation) => self.end_counted(generation, ended, config),
            Kind::Probe(generation) => self.end_probe(generation, ended, config),
        }
    }

    /// Waits for the call with `ticket` no longer than until `by`, where it is the one that tries again.
    pub fn hasten(&self, ticket: &Ticket, by: Instant) {
        if let Kind::Probe(generation) = ticket.0 {
            self.word.hasten(generation, self.not_before(by));
        }
    }

    /// What it is at this moment. It stays open until a call comes that may try again.
    #[must_use]
    pub fn state(&self, config: &Config) -> State {
        match self.mode(config) {
            Mode::ForcedOpen => State::ForcedOpen,
            Mode::Disabled => State::Disabled,
            Mode::Automatic | Mode::MetricsOnly => state_of(self.word.load()),
        }
    }

    /// Who decides: whoever forced it, or else `config`.
    #[must_use]
    pub fn mode(&self, config: &Config) -> Mode {
        self.forced().unwrap_or(config.state)
    }

    /// What decides in the place of the configuration, if anything does.
    #[must_use]
    pub fn forced(&self) -> Option<Mode> {
        match self.forced.load(Ordering::Acquire) {
            1 => Some(Mode::Automatic),
            2 => Some(Mode::ForcedOpen),
            3 => Some(Mode::Disabled),
            4 => Some(Mode::MetricsOnly),
            _ => None,
        }
    }

    /// Decides in the place of the configuration, or no more.
    pub fn force(&self, mode: Option<Mode>) {
        let number = match mode {
            None => 0,
            Some(Mode::Automatic) => 1,
            Some(Mode::ForcedOpen) => 2,
            Some(Mode::Disabled) => 3,
            Some(Mode::MetricsOnly) => 4,
        };
        self.forced.store(number, Ordering::Release);
    }

    /// Closes it at once for `cause`, and forgets what failed; calls under way do not count any more.
    pub fn close(&self, cause: Cause) -> Option<Change> {
        let (before, _) = self.word.close();
        let from = state_of(before);
        (from != State::Closed).then_some(Change {
            from,
            to: State::Closed,
            cause,
            time: None,
        })
    }

    /// What is counted at `now`: nothing, unless it is closed.
    #[must_use]
    pub fn counts(&self, now: Instant, config: &Config) -> Counts {
        let generation = self.word.load().generation;
        self.window.counts(self.stamp(generation, now, config))
    }

    /// Hard failures since the last success, where it is closed.
    #[must_use]
    pub fn failures_in_a_row(&self) -> u64 {
        match self.word.load().phase {
            Phase::Closed { failures } => failures,
            Phase::Open { .. } | Phase::HalfOpen { .. } => 0,
        }
    }

    /// When the next call may try again, where it is not closed.
    #[must_use]
    pub fn next_probe_at(&self) -> Option<Instant> {
        match self.word.load().phase {
            Phase::Closed { .. } => None,
            Phase::Open { until } | Phase::HalfOpen { until } => Some(self.instant(until)),
        }
    }

    fn end_counted(&self, generation: u32, ended: Ended, config: &Config) -> Option<Change> {
        let now = self.not_before(ended.now);
        let pause = |before| config.pauses().pause_after(before);
        let failed = match ended.verdict {
            Verdict::Ignored | Verdict::Unserved => return None,
            Verdict::Success => {
                self.word.succeeded(generation);
                false
            }
            Verdict::Soft(_) => true,
            Verdict::Hard => {
                let limit = match config.failures_in_a_row {
                    0 => u64::MAX,
                    limit => limit.into(),
                };
                if let Some((count, after)) = self.word.failed(generation, limit, now, pause) {
                    return Some(self.opened(State::Closed, after, ended, Cause::InARow(count)));
                }
                true
            }
        };
        let slow = config.is_slow(ended.took);
        let call = Counts {
            calls: 1,
            failed: failed.into(),
            slow: slow.into(),
        };
        let stamp = self.stamp(generation, ended.now, config);
        let current = || self.word.load().generation;
        let counts = self.window.record(stamp, call, current)?;
        let cause = if counts.calls < config.calls_min.into() {
            return None;
        } else if counts.failure_rate() >= config.failure_rate {
            Cause::FailureRate(counts)
        } else if counts.slow_rate() >= config.slow_rate {
            Cause::SlowRate(counts)
        } else {
            return None;
        };
        let after = self.word.trip(generation, now, pause)?;
        Some(self.opened(State::Closed, after, ended, cause))
    }

    fn end_probe(&self, generation: u32, ended: Ended, config: &Config) -> Option<Change> {
        let now = self.not_before(ended.now);
        let from = State::HalfOpen;
        // Whoever asked for a pause is given it, within bounds.
        let asked = match ended.verdict {
            Verdict::Success if !config.is_slow(ended.took) => {
                self.word.probe_passed(generation)?;
                return Some(Change {
                    from,
                    to: State::Closed,
                    cause: Cause::ProbePassed,
                    time: None,
                });
            }
            Verdict::Ignored | Verdict::Unserved => {
                self.word.probe_left(generation)?;
                return Some(Change {
                    from,
                    to: State::HalfOpen,
                    cause: Cause::ProbeLeft,
                    time: Some(Duration::ZERO),
                });
            }
            Verdict::Soft(pause) => pause.unwrap_or_default().min(config.pause_max),
            Verdict::Success | Verdict::Hard => Duration::ZERO,
        };
        let pause = |before| config.pauses().pause_after(before).max(asked);
        let after = self.word.probe_failed(generation, now, pause)?;
        Some(self.opened(from, after, ended, Cause::ProbeFailed))
    }

    fn opened(&self, from: State, after: Seen, ended: Ended, cause: Cause) -> Change {
        let time = match after.phase {
            Phase::Open { until } => Some(self.instant(until) - ended.now),
            Phase::Closed { .. } | Phase::HalfOpen { .. } => None,
        };
        Change {
            from,
            to: State::Open,
            cause,
            time,
        }
    }

    fn refusal(&self, seen: Seen, now: Instant, config: &Config) -> Open {
        let (until, most) = match seen.phase {
            Phase::Open { until } => (until, Duration::MAX),
            // Its end is near, or nobody knows when it comes.
            Phase::HalfOpen { until } => (until, config.pause_min),
            Phase::Closed { .. } => (self.moment(now), Duration::ZERO),
        };
        let until = self.instant(until);
        Open {
            state: state_of(seen),
            until,
            pause: until.saturating_duration_since(now).min(most),
        }
    }

    fn stamp(&self, generation: u32, now: Instant, config: &Config) -> Stamp {
        Stamp {
            generation,
            now: self.moment(now),
            window: config.window,
        }
    }

    fn moment(&self, now: Instant) -> Moment {
        Moment::after(now.saturating_duration_since(self.origin))
    }

    /// From when on pauses are counted, so that none is too short.
    fn not_before(&self, now: Instant) -> Moment {
        Moment::not_before(now.saturating_duration_since(self.origin))
    }

    fn instant(&self, moment: Moment) -> Instant {
        self.origin + moment.time()
    }
}

impl Admission {
    fn uncounted(would_refuse: Option<Open>) -> Self {
        Self {
            ticket: Ticket(Kind::Uncounted),
            change: None,
            would_refuse,
        }
    }
}

fn state_of(seen: Seen) -> State {
    match seen.phase {
        Phase::Closed { .. } => State::Closed,
        Phase::Open { .. } => State::Open,
        Phase::HalfOpen { .. } => State::HalfOpen,
    }
}

/// What a call meets that is refused because somebody wants it so: how long, nobody knows.
fn forced(now: Instant, config: &Config) -> Open {
    Open {
        state: State::ForcedOpen,
        until: now + config.pause_max,
        pause: config.pause_max,
    }
}

//! The states of one instance, and when it is started again. No I/O.

use std::{fmt, time::Duration};

use gantry::backoff::{self, Backoff};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// An instance that served this long has recovered: its next restart is quick again.
const STABLE: Duration = Duration::from_secs(30);

/// Failed starts in a row after which waiting for the instance is pointless.
const HOPELESS: u32 = 5;

/// What an instance does, as `gantry ps` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum State {
    /// Its process runs and has not served yet.
    Starting,
    /// It takes calls.
    Serving,
    /// It has served, and now says that it does not, or does not answer.
    NotServing,
    /// It was told to end, and finishes what it has.
    Draining,
    /// It has no process.
    Exited,
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "STARTING",
            Self::Serving => "SERVING",
            Self::NotServing => "NOT_SERVING",
            Self::Draining => "DRAINING",
            Self::Exited => "EXITED",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a look at the instance's health said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// gRPC health says SERVING, and the side port says ready.
    Serving,
    /// It says otherwise, or nothing.
    Not,
}

/// Follows one instance through its processes.
#[derive(Debug)]
pub(crate) struct Machine {
    state: State,
    /// Processes so far.
    launches: u32,
    /// Processes in a row that ended without having been stable.
    failures: u32,
    /// When the running process began to serve.
    served: Option<Instant>,
    /// Whether any of its processes has served.
    ever_served: bool,
    backoff: Backoff,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let backoff = Backoff::new(backoff::Config {
            min: Duration::from_millis(500),
            max: Duration::from_mins(1),
            multiplier: 2.0,
            jitter: 0.2,
        });
        Self {
            state: State::Exited,
            launches: 0,
            failures: 0,
            served: None,
            ever_served: false,
            backoff: backoff.expect("the bounds above are valid"),
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Processes after the first.
    pub(crate) fn restarts(&self) -> u32 {
        self.launches.saturating_sub(1)
    }

    /// Whether the running process, or the last one, has served.
    pub(crate) fn has_served(&self) -> bool {
        self.served.is_some()
    }

    /// Whether any of its processes has served.
    pub(crate) fn ever_served(&self) -> bool {
        self.ever_served
    }

    /// Whether it has failed so often in a row that it will not recover by itself.
    pub(crate) fn hopeless(&self) -> bool {
        self.failures >= HOPELESS
    }

    /// A process was started.
    pub(crate) fn launched(&mut self) {
        self.launches += 1;
        self.served = None;
        self.state = State::Starting;
    }

    /// Somebody looked.
    pub(crate) fn probed(&mut self, health: Health, now: Instant) {
        self.state = match (self.state, health) {
            (State::Draining | State::Exited, _) => self.state,
            (_, Health::Serving) => State::Serving,
            (State::Starting, Health::Not) => State::Starting,
            (_, Health::Not) => State::NotServing,
        };
        if self.state == State::Serving {
            self.served.get_or_insert(now);
            self.ever_served = true;
        }
    }

    /// It was told to end.
    pub(crate) fn draining(&mut self) {
        self.state = State::Draining;
    }

    /// The process ended, as it was told to.
    pub(crate) fn ended(&mut self) {
        self.state = State::Exited;
    }

    /// The process ended by itself; the pause before the next one.
    pub(crate) fn crashed(&mut self, now: Instant) -> Duration {
        self.state = State::Exited;
        if self.served.is_some_and(|since| now - since >= STABLE) {
            self.failures = 0;
            self.backoff.reset();
        } else {
            self.failures += 1;
        }
        self.backoff.next_pause()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time;

    use super::*;

    /// Goal: a process has to serve once before it can be `NOT_SERVING`, and an end is final.
    /// Method: walk through a life, one event at a time.
    #[tokio::test(start_paused = true)]
    async fn a_life_of_one_process() {
        let now = Instant::now();
        let mut machine = Machine::new();
        assert_eq!(State::Exited, machine.state());

        machine.launched();
        machine.probed(Health::Not, now);
        assert_eq!(State::Starting, machine.state());
        assert!(!machine.has_served());

        machine.probed(Health::Serving, now);
        assert_eq!(State::Serving, machine.state());
        machine.probed(Health::Not, now);
        assert_eq!(State::NotServing, machine.state());
        machine.probed(Health::Serving, now);
        assert_eq!(State::Serving, machine.state());

        machine.draining();
        machine.probed(Health::Serving, now);
        assert_eq!(State::Draining, machine.state());
        machine.ended();
        machine.probed(Health::Serving, now);
        assert_eq!(State::Exited, machine.state());
        assert_eq!(0, machine.restarts());
    }

    /// Goal: a crash loop slows down to a minute and is called hopeless; a stable run forgives.
    /// Method: crash six times at once, then serve for half a minute and crash again.
    #[tokio::test(start_paused = true)]
    async fn crash_loops_slow_down_until_a_stable_run() {
        let mut machine = Machine::new();
        let mut pauses = Vec::new();
        for _ in 0..10 {
            machine.launched();
            pauses.push(machine.crashed(Instant::now()).as_secs_f64());
        }
        assert!((0.4..=0.6).contains(&pauses[0]), "{pauses:?}");
        assert!((3.2..=4.8).contains(&pauses[3]), "{pauses:?}");
        assert!((48.0..=72.0).contains(&pauses[9]), "{pauses:?}");
        assert!(machine.hopeless());
        assert_eq!(9, machine.restarts());

        machine.launched();
        machine.probed(Health::Serving, Instant::now());
        time::advance(STABLE).await;
        let pause = machine.crashed(Instant::now());
        assert!(pause < Duration::from_secs(1), "{pause:?}");
        assert!(!machine.hopeless());
    }

    /// Goal: serving for a moment is no recovery.
    /// Method: a process that serves and dies at once, again and again.
    #[tokio::test(start_paused = true)]
    async fn a_moment_of_service_does_not_forgive() {
        let mut machine = Machine::new();
        let mut last = Duration::ZERO;
        for _ in 0..6 {
            machine.launched();
            machine.probed(Health::Serving, Instant::now());
            last = machine.crashed(Instant::now());
        }
        assert!(last > Duration::from_secs(10), "{last:?}");
    }
}

//! Refuses calls that matter less while the process is overloaded.
//!
//! Three signs say that it is: tasks begin to run late, which is what a queue is where nobody sees one;
//! its processors are busy, and more calls are in flight than it needs to be as fast as it was at its
//! best; its memory is nearly used up. While one of them holds, more and more is refused, from what matters
//! least on; when none does, it is let in again, slower. While memory is short, whoever has connections
//! is told that they are to become fewer.
//!
//! Whoever is refused may try elsewhere. Where many of those that come are such tries already, elsewhere
//! is no better, and they are told not to.
//!
//! ```text
//! watch (task) ──lag, Machine──▶ Level ──steps──▶ Shedder ◀── each call
//!                                  ▲                 │
//!                                  └── throughput ◀──┘ each answer
//! ```

mod level;
mod machine;
mod watch;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch as signal, time::Instant};
use tonic::Status;

use super::{
    board::{Board, Count, Fill, Filled, Kind},
    scattered,
};
use crate::{
    caller::Criticality,
    config::{self, LONGEST, Live},
    limit::{concurrency::Cap, throughput::Throughput},
    status::Refusal,
    telemetry::platform::{Limits, Load, RefusedByLimit},
    window::Window,
};

pub use machine::{Linux, Machine};

use level::{Level, Signs};

/// When a call that was refused is worth another try, give or take a half: a tenth of its kind is let
/// in again in a tenth of that at the earliest.
const PAUSE: Duration = Duration::from_secs(1);
/// In what time calls are counted that come again.
const RETRIES_WINDOW: Duration = Duration::from_secs(10);
const RETRIES_SLICES: u32 = 10;
/// With fewer calls nothing is known of where they come from.
const CALLS_MIN: u64 = 20;
/// From this share on, in percent, others refuse as well. Callers may try a fifth of their calls again,
/// which is a sixth of what comes if everybody refuses, and next to nothing if it is this process alone:
/// what is tried again goes elsewhere first.
const RETRIES_PERCENT: u64 = 10;

config::choice! {
    /// What is done with what is found.
    pub enum Mode {
        /// Nothing is refused, and nothing measured.
        Off = "off",
        /// Metrics say what would be refused.
        Shadow = "shadow",
        /// It is refused.
        On = "on",
    }
}

config::section! {
    /// When a process is overloaded, and refuses calls that matter less.
    pub struct Config {
        /// Whether it does; `shadow` counts what it would refuse.
        pub mode: Mode = Mode::On, live;
        /// How late tasks may begin to run, as a moving mean. Beyond it the two lesser criticalities are
        /// refused more and more; beyond five times as much, all but the highest, where more calls are in
        /// flight than are needed, and more than 16.
        pub lag_max: Duration = Duration::from_millis(20),
            in Duration::from_millis(1)..=LONGEST, live;
        /// Processor time used, in percent of what the process may use, from which on no more calls may be
        /// in flight than it needs; beyond that the two lesser criticalities are refused.
        pub cpu_max_percent: u32 = 85, in 1..=100, live;
        /// Memory used, in percent of what its control group may have, from which on the two lesser
        /// criticalities are refused, and connections told to go away (GOAWAY), each within 20 s.
        pub memory_soft_percent: u32 = 92, in 1..=100, live;
        /// The same, from which on all calls are refused.
        pub memory_max_percent: u32 = 95, in 1..=100, live;
    }
    validate = Config::check;
}

impl Config {
    fn check(&self, check: &mut config::Check<'_, '_>) {
        if self.memory_max_percent < self.memory_soft_percent {
            let text = "expected no less than memory_soft_percent";
            check.refuse("memory_max_percent", text);
        }
    }
}

config::section! {
    /// Whether calls of a method are refused while the process is overloaded.
    pub struct Policy {
        /// Never refuse them for that. They still count as calls in flight.
        pub exempt: bool = false, live;
        /// Refuse them as if they mattered so much, whatever they say; what they are the reason of
        /// is left as it is.
        pub level: Option<Criticality> = None, live;
    }
    validate = Policy::check;
}

impl Policy {
    fn check(&self, check: &mut config::Check<'_, '_>) {
        if self.exempt && self.level.is_some() {
            let text = "expected none beside exempt = true, which lets all in: leave out one of the two, \
                        or set level = \"\"";
            check.refuse_together("level", &["exempt"], text);
        }
    }

    /// As what a call is refused that matters so much; nothing where it never is.
    #[must_use]
    pub fn level(&self, own: Criticality) -> Option<Criticality> {
        (!self.exempt).then(|| self.level.unwrap_or(own))
    }
}

/// Decides of each call whether it is let in; clones decide alike.
#[derive(Debug, Clone)]
pub struct Shedder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Live<Config>,
    /// How many calls there are.
    cap: Cap,
    /// What [`Level`] has come to.
    steps: AtomicU32,
    throughput: Throughput,
    load: Load,
    refused: Limits,
    /// What was found last.
    signs: Mutex<Signs>,
    /// Calls that were refused, or would have been, of each criticality.
    counts: [Refused; Criticality::ALL.len()],
    /// What came while something was refused, and what of it came again.
    came: Window,
    came_again: Window,
    short_of_memory: signal::Sender<bool>,
}

/// What a call says of itself, as it comes.
#[derive(Debug, Clone, Copy)]
pub struct Coming {
    /// As what it is refused; nothing never is.
    pub level: Option<Criticality>,
    /// Whether it was tried before.
    pub again: bool,
}

/// Calls of one criticality that were refused.
#[derive(Debug, Default)]
struct Refused {
    refused: Count,
    would_refuse: Count,
}

impl Shedder {
    /// Lets everything in until somebody [watches](Self::watch). `cap` counts the calls of the process.
    #[must_use]
    pub fn new(config: Live<Config>, cap: Cap) -> Self {
        Self {
            shared: Arc::new(Shared {
                config,
                cap,
                steps: AtomicU32::new(0),
                throughput: Throughput::default(),
                load: Load::register(),
                refused: Limits::register(),
                signs: Mutex::default(),
                counts: Default::default(),
                came: Window::new(RETRIES_WINDOW, RETRIES_SLICES),
                came_again: Window::new(RETRIES_WINDOW, RETRIES_SLICES),
                short_of_memory: signal::Sender::new(false),
            }),
        }
    }

    /// Is seen on `board` from now on.
    pub fn show(&self, board: &Board) {
        board.show(&self.shared);
    }

    /// Lets a call in. What it is like is asked for where that is of any matter.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE if others matter more at this moment.
    pub fn admit(&self, coming: impl FnOnce() -> Coming) -> Result<(), Status> {
        match self.shared.steps.load(Ordering::Relaxed) {
            0 => Ok(()),
            steps => self.admit_at(steps, coming()),
        }
    }

    fn admit_at(&self, steps: u32, Coming { level, again }: Coming) -> Result<(), Status> {
        let (shared, now) = (&self.shared, Instant::now());
        shared.count(again, now);
        let Some(criticality) = level else {
            return Ok(());
        };
        let tenths = level::tenths(steps, criticality);
        if tenths == 0 || fastrand::u32(..level::CLASS) >= tenths {
            return Ok(());
        }
        shared.load.refuse(criticality);
        let counts = &shared.counts[criticality as usize];
        if shared.config.read(|config| config.mode) != Mode::On {
            counts.would_refuse.add();
            return Ok(());
        }
        counts.refused.add();
        shared.refused.refuse(RefusedByLimit::Overload);
        let text = format!("the process is overloaded; calls that are {criticality} are refused");
        Err(if shared.is_everywhere(now) {
            Refusal::Overload.status_without_retry(format!("{text}, and elsewhere as well"))
        } else {
            Refusal::Overload.status_with_pause(text, scattered(PAUSE))
        })
    }

    /// Whether memory is short, now and as that changes.
    #[must_use]
    pub fn short_of_memory(&self) -> signal::Receiver<bool> {
        self.shared.short_of_memory.subscribe()
    }

    /// Where answers are counted.
    #[must_use]
    pub fn throughput(&self) -> Throughput {
        self.shared.throughput.clone()
    }
}

impl Filled for Shared {
    fn fills(&self, _now: Instant) -> Vec<Fill> {
        let config = self.config.load();
        if config.mode == Mode::Off {
            return Vec::new();
        }
        let enforced = config.mode == Mode::On;
        let signs = *self.signs.lock().unwrap_or_else(PoisonError::into_inner);
        let percent = |percent: u32| f64::from(percent) / 100.0;
        let signs = [
            (
                Kind::Lag,
                signs.lag.as_secs_f64(),
                config.lag_max.as_secs_f64(),
            ),
            (Kind::Cpu, signs.cpu, percent(config.cpu_max_percent)),
            (
                Kind::Memory,
                signs.memory,
                percent(config.memory_soft_percent),
            ),
        ];
        let signs = signs.map(|(kind, used, max)| Fill {
            enforced,
            max: Some(max),
            ..Fill::new(kind, used)
        });
        let steps = self.steps.load(Ordering::Relaxed);
        let shed = Criticality::ALL.map(|criticality| {
            let counts = &self.counts[criticality as usize];
            Fill {
                key: criticality.to_string(),
                enforced,
                max: Some(1.0),
                refused: counts.refused.get(),
                would_refuse: counts.would_refuse.get(),
                ..Fill::new(Kind::Shed, level::share(steps, criticality))
            }
        });
        signs.into_iter().chain(shed).collect()
    }
}

impl Shared {
    fn count(&self, again: bool, now: Instant) {
        self.came.count(now);
        if again {
            self.came_again.count(now);
        }
    }

    /// Whether so much of what comes was refused before that it is refused wherever it comes.
    fn is_everywhere(&self, now: Instant) -> bool {
        let came = self.came.sum(now);
        came >= CALLS_MIN && self.came_again.sum(now) * 100 >= came * RETRIES_PERCENT
    }
}

impl Default for Shedder {
    fn default() -> Self {
        Self::new(Live::fixed(Config::default()), Cap::default())
    }
}

#[cfg(test)]
mod tests;

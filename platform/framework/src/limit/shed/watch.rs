//! Looks at how loaded the process is, again and again.

use std::{
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::{Level, Machine, Mode, Shedder, level};
use crate::{
    caller::Criticality,
    journal::{Journal, Kind},
};

/// How often it is looked whether tasks begin in time. While nothing is to do, that does not matter.
const PULSE: Duration = Duration::from_millis(5);
const PULSE_IDLE: Duration = Duration::from_millis(100);
/// How much of the mean one more look is.
const PULSE_WEIGHT: f64 = 0.1;
/// What a clock of milliseconds is late by, without anybody being late.
const PULSE_GRAIN: Duration = Duration::from_millis(1);
/// How often the level follows.
const STEP: Duration = Duration::from_millis(100);
/// How often the machine is asked.
const LOOK: Duration = Duration::from_millis(500);

impl Shedder {
    /// Watches the process until told to stop. What changes is written to `journal`.
    pub async fn watch(self, machine: impl Machine, journal: Journal, stopping: CancellationToken) {
        let watch = Watch::new(self, machine, journal);
        let _ = stopping.run_until_cancelled(watch.run()).await;
    }
}

struct Watch<M> {
    shedder: Shedder,
    machine: M,
    journal: Journal,
    level: Level,
    signs: level::Signs,
    /// In seconds.
    lag: f64,
    followed: Instant,
    looked: Instant,
}

/// Nobody decides any more when to let calls in again.
impl<M> Drop for Watch<M> {
    fn drop(&mut self) {
        self.shedder.shared.steps.store(0, Ordering::Relaxed);
        self.shedder.shared.short_of_memory.send_replace(false);
    }
}

impl<M: Machine> Watch<M> {
    fn new(shedder: Shedder, machine: M, journal: Journal) -> Self {
        let now = Instant::now();
        Self {
            shedder,
            machine,
            journal,
            level: Level::default(),
            signs: level::Signs::default(),
            lag: 0.0,
            followed: now,
            looked: now,
        }
    }

    async fn run(mut self) {
        loop {
            let pause = if self.is_idle() { PULSE_IDLE } else { PULSE };
            let due = Instant::now() + pause;
            time::sleep_until(due).await;
            let now = Instant::now();
            let late = (now - due).saturating_sub(PULSE_GRAIN);
            self.lag += (late.as_secs_f64() - self.lag) * PULSE_WEIGHT;
            if now - self.followed >= STEP {
                self.followed = now;
                self.follow(now);
            }
        }
    }

    fn is_idle(&self) -> bool {
        let shared = &self.shedder.shared;
        shared.steps.load(Ordering::Relaxed) == 0 && shared.cap.in_flight() == 0
    }

    fn follow(&mut self, now: Instant) {
        let shared = &self.shedder.shared;
        let config = shared.config.load();
        if now - self.looked >= LOOK {
            let passed = now - self.looked;
            self.looked = now;
            self.signs.cpu = self.machine.cpu(passed).unwrap_or(0.0);
            self.signs.memory = self.machine.memory().unwrap_or(0.0);
            shared.load.cpu(self.signs.cpu);
            shared.load.memory(self.signs.memory);
        }
        self.signs.lag = Duration::from_secs_f64(self.lag.max(0.0));
        shared.load.lag(self.signs.lag);
        self.signs.in_flight = shared.cap.in_flight();
        self.signs.crowded = shared.throughput.is_crowded(self.signs.in_flight);
        *shared.signs.lock().unwrap_or_else(PoisonError::into_inner) = self.signs;
        let steps = if config.mode == Mode::Off {
            self.level = Level::default();
            0
        } else {
            self.level.follow(self.signs, &config, now)
        };
        let before = shared.steps.swap(steps, Ordering::Relaxed);
        if before != steps {
            self.tell(before, steps, config.mode);
        }
        self.tell_of_memory(config.mode == Mode::On && self.level.is_short_of_memory());
    }

    /// Says whether memory is short, to those who have connections.
    fn tell_of_memory(&self, short: bool) {
        let changes = |told: &mut bool| std::mem::replace(told, short) != short;
        if !self
            .shedder
            .shared
            .short_of_memory
            .send_if_modified(changes)
        {
            return;
        }
        let detail = if short {
            "told to go away in turn: memory is short"
        } else {
            "stay: memory is no longer short"
        };
        let memory = self.signs.memory;
        if short {
            tracing::warn!(memory, "connections are told to go away: memory is short");
        } else {
            tracing::info!(memory, "connections stay: memory is no longer short");
        }
        self.journal.record(Kind::Shedding, "connections", detail);
    }

    fn tell(&self, before: u32, steps: u32, mode: Mode) {
        for criticality in Criticality::ALL {
            self.shedder
                .shared
                .load
                .refusing(criticality, level::share(steps, criticality));
        }
        let refused = level::in_words(steps);
        if level::in_words(before) == refused {
            return;
        }
        let level::Signs {
            lag, cpu, memory, ..
        } = self.signs;
        let tried = mode != Mode::On;
        if steps > before {
            tracing::warn!(
                refused,
                tried,
                ?lag,
                cpu,
                memory,
                "the process is overloaded"
            );
        } else {
            tracing::info!(
                refused,
                tried,
                ?lag,
                cpu,
                memory,
                "the process is less loaded"
            );
        }
        let signs = format!("lag {lag:.1?}, cpu {cpu:.2}, memory {memory:.2}");
        let signs = if tried {
            format!("{signs}; tried only")
        } else {
            signs
        };
        let detail = format!("{refused}: {signs}");
        self.journal.record(Kind::Shedding, "calls", detail);
    }
}

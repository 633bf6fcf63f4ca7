//! What stands between a process of the model and all that is outside of it: its database and its
//! broker. There it ends, or stands still, whatever it is at; so nothing of it gets past that point.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gantry_store::testing::{Step, Steps, Wait};
use tokio::{sync::Notify, time};

use super::tape::{Tape, What};

/// Where a process can end: see the tables of `gantry_events::relay` and `consumer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Point {
    /// Before the transaction of a change.
    P0,
    /// The change is written, its event is not.
    P1,
    /// Committed, nobody told.
    P2,
    /// Claimed, not published.
    P3,
    /// Published, not confirmed.
    P4,
    /// Confirmed, nothing written down.
    P5,
    /// Written down, not committed.
    P6,
    /// Received, before the transaction.
    C1,
    /// Effect and inbox are written, not committed.
    C2,
    /// Committed, not settled.
    C3,
    /// Settled.
    C4,
    /// An attempt has failed; that it comes again is not written down.
    Held,
}

/// What becomes of a process at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum There {
    /// It ends.
    Ends,
    /// It stands still.
    StandsStill,
}

impl Point {
    pub(super) const ALL: [Self; 12] = [
        Self::P0,
        Self::P1,
        Self::P2,
        Self::P3,
        Self::P4,
        Self::P5,
        Self::P6,
        Self::C1,
        Self::C2,
        Self::C3,
        Self::C4,
        Self::Held,
    ];

    /// As people write it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::P0 => "ends at P0",
            Self::P1 => "ends at P1",
            Self::P2 => "ends at P2",
            Self::P3 => "ends at P3",
            Self::P4 => "ends at P4",
            Self::P5 => "ends at P5",
            Self::P6 => "ends at P6",
            Self::C1 => "ends at C1",
            Self::C2 => "ends at C2",
            Self::C3 => "ends at C3",
            Self::C4 => "ends at C4",
            Self::Held => "ends before it is held",
        }
    }

    fn before(step: Step) -> Option<Self> {
        Some(match step {
            Step::Begin("ledger.post") => Self::P0,
            Step::Statement("events.next_sequence") => Self::P1,
            Step::Begin("events.settle") => Self::P5,
            Step::Commit("events.settle") => Self::P6,
            Step::Begin("events.consume") => Self::C1,
            Step::Commit("events.consume") => Self::C2,
            Step::Begin("events.hold") => Self::Held,
            _ => return None,
        })
    }

    fn after(step: Step) -> Option<Self> {
        Some(match step {
            Step::Commit("ledger.post") => Self::P2,
            Step::Commit("events.consume") => Self::C3,
            _ => return None,
        })
    }
}

/// How often each thing has happened.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Counts {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, what: &'static str, count: u64) {
        *self.lock().entry(what).or_default() += count;
    }

    pub(super) fn one(&self, what: &'static str) {
        self.add(what, 1);
    }

    pub(super) fn all(&self) -> BTreeMap<&'static str, u64> {
        self.lock().clone()
    }
}

/// What every process of a run shares.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) tape: Arc<Tape>,
    pub(super) counts: Counts,
    /// Told whenever a process has come to the point where it ends or stands still.
    pub(super) there: Arc<Notify>,
    /// Longest time that a step of the database takes.
    pub(super) step_max: Duration,
}

/// How a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Live,
    Still,
    Dead,
}

/// The gate of a process.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) name: Arc<str>,
    pub(super) run: Run,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    is: Is,
    /// Where something becomes of it, and how many times it gets past that before.
    at: Option<(Point, u8, There)>,
    /// Whether it has come to stand still there since that was asked for.
    came_to_stand: bool,
    /// Whether it stood still at any time since it was to end.
    stood: bool,
    random: fastrand::Rng,
}

impl Gate {
    pub(super) fn new(name: &str, run: Run, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            run,
            state: Mutex::new(State {
                is: Is::Live,
                at: None,
                came_to_stand: false,
                stood: false,
                random: fastrand::Rng::with_seed(seed),
            }),
            changed: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, done: impl Into<String>) {
        self.run.tape.add(&self.name, What::Done(done.into()));
    }

    /// Has that become of it at `point`, once it has got past that `before` times.
    pub(super) fn at(&self, point: Point, before: u8, there: There) {
        self.note(format!("at {point:?} after {before}: {there:?}"));
        self.lock().at = Some((point, before, there));
    }

    /// Has nothing become of it by itself any more.
    pub(super) fn spare(&self) {
        self.lock().at = None;
    }

    /// Whether it has come to stand still by itself since this was asked for.
    pub(super) fn came_to_stand(&self) -> bool {
        std::mem::take(&mut self.lock().came_to_stand)
    }

    /// It is to end by itself: from now on it is noted whether it stands still.
    pub(super) fn is_to_end(&self) {
        let mut state = self.lock();
        state.stood = state.is == Is::Still;
    }

    /// Whether it stood still since then.
    pub(super) fn stood(&self) -> bool {
        self.lock().stood
    }

    /// Has it end where it is.
    pub(super) fn end(&self) {
        self.lock().is = Is::Dead;
    }

    pub(super) fn is_dead(&self) -> bool {
        self.lock().is == Is::Dead
    }

    /// Has it stand still, or go on.
    pub(super) fn stand_still(&self, still: bool) {
        let mut state = self.lock();
        if state.is != Is::Dead {
            state.is = if still { Is::Still } else { Is::Live };
            state.stood |= still;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Waits for as long as the process stands still, and for good once it has ended.
    pub(super) async fn pass(&self) {
        loop {
            // Before the look: what changes after it is not missed.
            let changed = self.changed.notified();
            if self.lock().is == Is::Live {
                return;
            }
            changed.await;
        }
    }

    /// The process is at `point`: it may be the last thing it does.
    pub(super) async fn reach(&self, point: Point) {
        if let Some(there) = self.becomes(point) {
            self.note(format!("{there:?} at {point:?}"));
            self.run.counts.one(match there {
                There::Ends => point.name(),
                There::StandsStill => "stood still at a point",
            });
            self.run.there.notify_one();
        }
        self.pass().await;
    }

    /// What becomes of it at `point`, this time.
    fn becomes(&self, point: Point) -> Option<There> {
        let mut state = self.lock();
        let (at, before, there) = state.at?;
        if at != point || state.is != Is::Live {
            return None;
        }
        if before > 0 {
            state.at = Some((at, before - 1, there));
            return None;
        }
        state.at = None;
        match there {
            There::Ends => state.is = Is::Dead,
            There::StandsStill => {
                state.is = Is::Still;
                state.stood = true;
                state.came_to_stand = true;
            }
        }
        Some(there)
    }

    /// How long a step of the database takes this time.
    fn step_time(&self) -> Duration {
        let max = u64::try_from(self.run.step_max.as_micros()).unwrap_or(u64::MAX);
        let mut state = self.lock();
        // Most are quick.
        if state.random.u8(..4) > 0 {
            return Duration::ZERO;
        }
        Duration::from_micros(state.random.u64(..=max))
    }
}

impl Steps for Gate {
    fn before(&self, step: Step) -> Wait<'_> {
        Box::pin(async move {
            let takes = self.step_time();
            if !takes.is_zero() {
                time::sleep(takes).await;
            }
            if let Some(point) = Point::before(step) {
                self.reach(point).await;
            }
            self.pass().await;
            self.run.tape.add(&self.name, What::Asked(step));
        })
    }

    fn after(&self, step: Step) -> Wait<'_> {
        Box::pin(async move {
            if let Some(point) = Point::after(step) {
                self.reach(point).await;
            }
            self.pass().await;
        })
    }
}

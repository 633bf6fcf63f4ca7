//! The breaker: its word, its window, and the tickets of calls.

use loom::sync;

#[path = "../../../platform/framework/src/breaker/config.rs"]
pub mod config;
#[path = "../../../platform/framework/src/breaker/core.rs"]
pub mod core;
#[path = "../../../platform/framework/src/breaker/state.rs"]
mod state;
#[path = "../../../platform/framework/src/breaker/window.rs"]
pub mod window;

use std::{sync::LazyLock, time::Duration};

use gantry::{classify::Verdict, telemetry::platform::BreakerState as State};
use loom::thread;
use sync::Arc;
use tokio::time::Instant;

use self::{
    config::Config,
    core::{Admits, Change, Core, Ended, Ticket},
};

/// When it all begins.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
/// When the first pause is over.
static LATER: LazyLock<Instant> = LazyLock::new(|| *BEGIN + PAUSE);

const PAUSE: Duration = Duration::from_secs(1);

/// A breaker that opens after two failures in a row.
#[derive(Debug, Clone)]
struct Rig {
    core: Arc<Core>,
    config: Arc<Config>,
}

impl Rig {
    fn new(config: Config) -> Self {
        Self {
            core: Arc::new(Core::new(*BEGIN)),
            config: Arc::new(config),
        }
    }

    fn in_a_row() -> Self {
        Self::new(Config {
            failures_in_a_row: 2,
            pause_jitter: 0.0,
            ..Config::default()
        })
    }

    /// One whose pause is over at [`LATER`], and a call that passed before.
    fn opened() -> (Self, Ticket) {
        let rig = Self::in_a_row();
        let straggler = rig.pass(*BEGIN).expect("it is closed");
        for _ in 0..2 {
            let ticket = rig.pass(*BEGIN).expect("it is closed");
            rig.end(ticket, Verdict::Hard, *BEGIN);
        }
        assert_eq!(State::Open, rig.core.state(&rig.config));
        (rig, straggler)
    }

    fn pass(&self, now: Instant) -> Option<Ticket> {
        let admitted = self.core.admit(now, &self.config);
        admitted.ok().map(|admission| admission.ticket)
    }

    fn end(&self, ticket: Ticket, verdict: Verdict, now: Instant) -> Option<Change> {
        let took = Duration::ZERO;
        let ended = Ended { verdict, took, now };
        self.core.end(ticket, ended, &self.config)
    }

    fn state(&self) -> State {
        self.core.state(&self.config)
    }

    /// Does `work` on a thread.
    fn spawn<T: 'static>(&self, work: impl FnOnce(&Self) -> T + 'static) -> thread::JoinHandle<T> {
        let rig = self.clone();
        thread::spawn(move || work(&rig))
    }
}

/// Goal: however threads interleave, one call tries again, and the others are refused.
/// Method: three that ask at the end of the pause.
#[test]
fn one_of_three_tries_again() {
    loom::model(|| {
        let (rig, _) = Rig::opened();
        let others = [(); 2].map(|()| rig.spawn(|rig| rig.pass(*LATER)));
        let mine = rig.pass(*LATER);
        let passed = others.map(|other| other.join().unwrap());
        let passed = passed.into_iter().chain([mine]).flatten();
        assert_eq!(1, passed.count());
    });
}

/// Goal: a place that is given back is taken by one, and never by two at once.
/// Method: one that tries and tells nothing, while two others ask; and one more after all.
#[test]
fn a_place_that_is_given_back_is_taken_once() {
    loom::model(|| {
        let (rig, _) = Rig::opened();
        let trying = rig.pass(*LATER).expect("the pause is over");
        let asking = [(); 2].map(|()| rig.spawn(|rig| rig.pass(*LATER)));
        rig.end(trying, Verdict::Ignored, *LATER);
        let passed = asking.map(|it| it.join().unwrap());
        let passed: Vec<_> = passed.into_iter().flatten().collect();
        assert!(passed.len() <= 1, "{passed:?}");
        match rig.core.admits_at(*LATER, &rig.config) {
            Admits::Probe => assert!(passed.is_empty()),
            Admits::No(_) => assert_eq!(1, passed.len()),
            Admits::Yes => panic!("nobody succeeded"),
        }
    });
}

/// Goal: a call of before changes nothing, whenever it ends.
/// Method: one that ends well or badly, while another tries again, and succeeds or fails.
#[test]
fn a_straggler_changes_nothing() {
    for verdict in [Verdict::Success, Verdict::Hard] {
        for outcome in [Verdict::Success, Verdict::Hard] {
            loom::model(move || {
                let (rig, straggler) = Rig::opened();
                let late = rig.spawn(move |rig| rig.end(straggler, verdict, *LATER));
                let trying = rig.pass(*LATER).expect("the pause is over");
                let change = rig.end(trying, outcome, *LATER).expect("it decides");
                assert_eq!(None, late.join().unwrap());
                assert_eq!(change.to, rig.state());
                assert_eq!(0, rig.core.failures_in_a_row());
                assert_eq!(0, rig.core.counts(*LATER, &rig.config).calls);
            });
        }
    }
}

/// Goal: it opens once, and one caller is told so.
/// Method: two failures at once, where both in a row open it, and where the rate of each does.
#[test]
fn it_opens_once() {
    let by_rate = Config {
        failures_in_a_row: 0,
        calls_min: 1,
        pause_jitter: 0.0,
        ..Config::default()
    };
    let in_a_row = Config {
        failures_in_a_row: 2,
        calls_min: 1_000,
        ..by_rate.clone()
    };
    for config in [by_rate, in_a_row] {
        loom::model(move || {
            let rig = Rig::new(config.clone());
            let [mine, other] = [(); 2].map(|()| rig.pass(*BEGIN).expect("it is closed"));
            let other = rig.spawn(|rig| rig.end(other, Verdict::Hard, *BEGIN));
            let mine = rig.end(mine, Verdict::Hard, *BEGIN);
            assert_ne!(mine.is_some(), other.join().unwrap().is_some());
            assert_eq!(State::Open, rig.state());
        });
    }
}

/// Goal: no success is lost that ends a row of failures, and no failure that follows one.
/// Method: a failure and a success at once after one failure: it opens unless the success came first.
#[test]
fn a_row_is_counted_in_some_order() {
    loom::model(|| {
        let rig = Rig::in_a_row();
        let [first, second, good] = [(); 3].map(|()| rig.pass(*BEGIN).expect("it is closed"));
        rig.end(first, Verdict::Hard, *BEGIN);
        let failing = rig.spawn(move |rig| rig.end(second, Verdict::Hard, *BEGIN));
        rig.end(good, Verdict::Success, *BEGIN);
        let opened = failing.join().unwrap().is_some();
        let expected = if opened {
            (State::Open, 0)
        } else {
            (State::Closed, 1)
        };
        assert_eq!(expected, (rig.state(), rig.core.failures_in_a_row()));
    });
}

use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::{
    caller::Criticality::{Critical, CriticalPlus, Sheddable, SheddablePlus},
    config::Publisher,
    journal::{Journal, Kind},
    shutdown::Tasks,
    status::PUSHBACK,
    testing::telemetry::capture,
};

/// A machine that is as the test says: its processors, and its memory.
#[derive(Debug, Clone, Default)]
struct Told(Arc<(AtomicU32, AtomicU32)>);

impl Told {
    fn cpu(&self, percent: u32) {
        self.0.0.store(percent, Ordering::Relaxed);
    }

    fn memory(&self, percent: u32) {
        self.0.1.store(percent, Ordering::Relaxed);
    }
}

impl Machine for Told {
    fn cpu(&mut self, _: Duration) -> Option<f64> {
        Some(f64::from(self.0.0.load(Ordering::Relaxed)) / 100.0)
    }

    fn memory(&mut self) -> Option<f64> {
        Some(f64::from(self.0.1.load(Ordering::Relaxed)) / 100.0)
    }
}

/// A process that is watched.
struct Watched {
    shedder: Shedder,
    cap: Cap,
    machine: Told,
    journal: Journal,
    config: Publisher<Config>,
    tasks: Tasks,
}

impl Watched {
    fn new() -> Self {
        let config = Publisher::new(Config::default());
        let cap = Cap::default();
        let shedder = Shedder::new(config.live(), cap.clone());
        let (machine, journal) = (Told::default(), Journal::new());
        let tasks = Tasks::new(journal.clone());
        let watch = shedder
            .clone()
            .watch(machine.clone(), journal.clone(), tasks.stopping());
        tasks.spawn("load", watch);
        Self {
            shedder,
            cap,
            machine,
            journal,
            config,
            tasks,
        }
    }

    /// Which of 1000 calls of each criticality are refused, in tenths.
    fn refused(&self) -> [u32; 4] {
        Criticality::ALL.map(|criticality| {
            let refused =
                (0..1_000).filter(|_| self.shedder.admit(|| coming(criticality)).is_err());
            (u32::try_from(refused.count()).unwrap() + 50) / 100
        })
    }

    /// Lets time pass, in which every task begins `late`.
    async fn late(&self, late: Duration, passed: Duration) {
        let until = Instant::now() + passed;
        while Instant::now() < until {
            // Somebody has the one thread for so long: all that waits for time is late by that.
            time::advance(late + Duration::from_millis(6)).await;
            settle().await;
        }
    }

    fn entries(&self) -> Vec<String> {
        let (past, _) = self.journal.watch();
        let shed = past.into_iter().filter(|it| it.kind == Kind::Shedding);
        shed.map(|it| it.detail).collect()
    }
}

/// A call that is tried for the first time.
fn coming(criticality: Criticality) -> Coming {
    Coming {
        level: Some(criticality),
        again: false,
    }
}

/// Lets every task run that can.
async fn settle() {
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
}

const SECOND: Duration = Duration::from_secs(1);
const ON_TIME: Duration = Duration::ZERO;

/// Goal: a process whose tasks begin late refuses what matters less, and far too late, all but the
/// most; it is told once for each, and it recovers in less than five seconds.
/// Method: advance the clock in leaps while more calls are in flight than are answered.
#[tokio::test(start_paused = true)]
async fn a_process_that_is_late_refuses_what_matters_less() {
    let watched = Watched::new();
    let _calls: Vec<_> = (0..17).map(|_| watched.cap.admit().unwrap()).collect();
    settle().await;
    watched.late(Duration::from_millis(15), SECOND * 3).await;
    assert_eq!([0, 0, 0, 0], watched.refused());
    watched.late(Duration::from_millis(40), SECOND * 3).await;
    assert_eq!([10, 10, 0, 0], watched.refused());
    watched.late(Duration::from_millis(150), SECOND * 3).await;
    assert_eq!(
        [10, 10, 0, 0],
        watched.refused(),
        "nobody knows what it needs"
    );
    let answers = watched.shedder.throughput();
    answers.add(Duration::from_millis(1), Instant::now());
    watched.late(Duration::from_millis(150), SECOND * 3).await;
    assert_eq!([10, 10, 10, 0], watched.refused());
    watched.late(ON_TIME, SECOND * 5).await;
    assert_eq!([0, 0, 0, 0], watched.refused());

    let told: Vec<_> = watched.entries();
    let words = [
        "SHEDDABLE ",
        "SHEDDABLE_PLUS",
        "CRITICAL",
        "SHEDDABLE_PLUS",
        "SHEDDABLE ",
        "nothing",
    ];
    assert_eq!(words.len(), told.len(), "{told:#?}");
    for (word, told) in words.iter().zip(&told) {
        assert!(told.starts_with(word), "{word}: {told}");
    }
}

/// Goal: a refusal says why, and when to come back.
/// Method: no memory left, read as a caller does; metrics by criticality.
#[tokio::test(start_paused = true)]
async fn a_refusal_says_why_and_when_to_come_back() {
    let capture = capture();
    let watched = Watched::new();
    watched.machine.memory(95);
    watched.late(ON_TIME, SECOND).await;
    assert_eq!([10, 10, 10, 10], watched.refused());
    let refused = watched.shedder.admit(|| coming(CriticalPlus)).unwrap_err();
    assert_eq!(Code::Unavailable, refused.code());
    let details = refused.get_error_details();
    let reason = details.error_info().map(|it| it.reason.clone());
    assert_eq!(Some("OVERLOAD"), reason.as_deref());
    let pause = refused.metadata().get(PUSHBACK).unwrap().to_str().unwrap();
    assert!((500..=1_500).contains(&pause.parse().unwrap()), "{pause}");

    let value = |name, labels: &[(&str, &str)]| capture.value(name, labels);
    for criticality in Criticality::ALL {
        let label = [("criticality", criticality.as_str())];
        let refused = value("gantry_shed_refused_total", &label);
        let expected = if criticality == CriticalPlus {
            1_001.0
        } else {
            1_000.0
        };
        assert_eq!(Some(expected), refused);
        assert_eq!(Some(1.0), value("gantry_shed_ratio", &label));
    }
    let all = value("gantry_limit_refused_total", &[("reason", "overload")]);
    assert_eq!(Some(4_001.0), all);
    assert_eq!(Some(0.95), value("gantry_load_memory_ratio", &[]));
}

/// Goal: busy processors are a reason with more calls than are needed alone.
/// Method: as busy as can be with few calls, then with many, then less busy.
#[tokio::test(start_paused = true)]
async fn busy_processors_refuse_what_is_more_than_needed() {
    let watched = Watched::new();
    watched.machine.cpu(100);
    let answers = watched.shedder.throughput();
    (0..50).for_each(|_| answers.add(Duration::from_millis(100), Instant::now()));
    // 50 in a tenth of a second, a tenth of a second each.
    let mut calls: Vec<_> = (0..50).map(|_| watched.cap.admit().unwrap()).collect();
    watched.late(ON_TIME, SECOND * 2).await;
    assert_eq!([0, 0, 0, 0], watched.refused());
    calls.push(watched.cap.admit().unwrap());
    watched.late(ON_TIME, SECOND * 2).await;
    assert_eq!([10, 10, 0, 0], watched.refused());
    watched.machine.cpu(10);
    watched.late(ON_TIME, SECOND * 4).await;
    assert_eq!([0, 0, 0, 0], watched.refused());
}

/// Goal: it can be tried without refusing anything, and switched off, while it runs.
/// Method: no memory left, in each mode.
#[tokio::test(start_paused = true)]
async fn it_can_be_tried_and_switched_off() {
    let capture = capture();
    let mut watched = Watched::new();
    let mode = |mode| Config {
        mode,
        ..Config::default()
    };
    watched.config.publish(mode(Mode::Shadow));
    watched.machine.memory(99);
    watched.late(ON_TIME, SECOND).await;
    assert_eq!([0, 0, 0, 0], watched.refused());
    let would = |it: Criticality| {
        capture.value("gantry_shed_refused_total", &[("criticality", it.as_str())])
    };
    for criticality in [Sheddable, SheddablePlus, Critical, CriticalPlus] {
        assert_eq!(Some(1_000.0), would(criticality));
    }
    assert!(watched.entries().concat().ends_with("tried only"));
    watched.config.publish(mode(Mode::Off));
    watched.late(ON_TIME, SECOND).await;
    watched.refused();
    assert_eq!(Some(1_000.0), would(Sheddable));
    watched.config.publish(mode(Mode::On));
    watched.late(ON_TIME, SECOND).await;
    assert_eq!([10, 10, 10, 10], watched.refused());
}

/// Goal: the watch ends with its owner, and leaves nothing refused behind, as nobody would end that.
/// Method: stop it while all is refused; one that is told before it begins.
#[tokio::test(start_paused = true)]
async fn the_watch_ends_when_told() {
    let watched = Watched::new();
    watched.machine.memory(99);
    watched.late(ON_TIME, SECOND).await;
    assert_eq!([10, 10, 10, 10], watched.refused());
    assert!(watched.tasks.stop_within(SECOND).await.is_empty());
    assert_eq!([0, 0, 0, 0], watched.refused());

    let told = CancellationToken::new();
    told.cancel();
    let shedder = watched.shedder.clone();
    shedder.watch(Told::default(), Journal::new(), told).await;
}

/// Goal: where many of the calls that come were refused before, they are told to go nowhere; where few
/// were, to try again.
/// Method: no memory left; nine, then eleven of a hundred that come again, and hardly any calls at all.
#[tokio::test(start_paused = true)]
async fn what_is_refused_everywhere_is_not_tried_again() {
    let watched = Watched::new();
    watched.machine.memory(95);
    watched.late(ON_TIME, SECOND).await;
    for (calls, again, never) in [(100, 9, false), (100, 11, true), (19, 19, false)] {
        // What came before is forgotten.
        watched.late(ON_TIME, SECOND * 11).await;
        let mut last = None;
        for number in 0..calls {
            let coming = Coming {
                again: number < again,
                ..coming(Critical)
            };
            last = watched.shedder.admit(|| coming).err();
        }
        let refused = last.unwrap();
        assert_eq!(Code::Unavailable, refused.code());
        let pushback = refused.metadata().get(PUSHBACK).unwrap().to_str().unwrap();
        assert_eq!(never, pushback == "-1", "{again} of {calls}: {pushback}");
        let details = refused.get_error_details();
        assert_eq!(never, details.retry_info().is_none());
        let reason = details.error_info().map(|it| it.reason.clone());
        assert_eq!(Some("OVERLOAD"), reason.as_deref());
    }
}

/// Goal: whoever has connections is told that memory is short, from 92 percent on until it is well below,
/// and not where that is only tried.
/// Method: shares around both bounds, in both modes; what is told, and what the journal has of it.
#[tokio::test(start_paused = true)]
async fn that_memory_is_short_is_told() {
    let mut watched = Watched::new();
    let short = watched.shedder.short_of_memory();
    for (percent, expected) in [(91, false), (92, true), (90, true), (89, false)] {
        watched.machine.memory(percent);
        watched.late(ON_TIME, SECOND).await;
        assert_eq!(expected, *short.borrow(), "{percent}");
    }
    watched.config.publish(Config {
        mode: Mode::Shadow,
        ..Config::default()
    });
    watched.machine.memory(99);
    watched.late(ON_TIME, SECOND).await;
    assert!(!*short.borrow());
    let (past, _) = watched.journal.watch();
    let of_connections = past.iter().filter(|it| it.subject == "connections");
    assert_eq!(2, of_connections.count());
}

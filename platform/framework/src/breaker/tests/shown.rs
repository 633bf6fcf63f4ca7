//! What a breaker tells of itself.

use super::*;
use crate::testing::telemetry::{self, Capture};

/// The states that the gauge of `capture` says it is in.
fn shown(capture: &Capture) -> Vec<&'static str> {
    let is = |state: &&State| {
        let labels = [("breaker", "bank"), ("state", state.as_str())];
        capture.value("gantry_breaker_state", &labels) == Some(1.0)
    };
    State::ALL.iter().filter(is).map(|it| it.as_str()).collect()
}

fn changes(journal: &Journal) -> Vec<String> {
    let (entries, _) = journal.watch();
    let told = entries.into_iter().map(|entry| {
        assert_eq!(
            (Kind::BreakerChanged, "bank"),
            (entry.kind, &*entry.subject)
        );
        entry.detail
    });
    told.collect()
}

/// Goal: what begins and ends stands in the journal with its reason, each change is counted, and the
/// gauge shows one state.
/// Method: a whole round, one given up by the way; by hand; what was written after each step.
#[tokio::test(start_paused = true)]
async fn changes_are_told_with_their_reasons() {
    let capture = telemetry::capture();
    let journal = Journal::new();
    let config = Config {
        failures_in_a_row: 3,
        ..by_rate(0.5, 4)
    };
    let breaker = Breaker::new("bank", Live::fixed(config), journal.clone());
    assert_eq!(vec!["closed"], shown(&capture));
    calls(&breaker, 3, Verdict::Hard);
    assert_eq!(vec!["open"], shown(&capture));
    time::advance(SECOND).await;
    drop(probe(&breaker));
    assert_eq!(vec!["half_open"], shown(&capture));
    probe(&breaker).end(Verdict::Hard);
    time::advance(2 * SECOND).await;
    probe(&breaker).end(Verdict::Success);
    assert_eq!(vec!["closed"], shown(&capture));
    calls(&breaker, 2, Verdict::Success);
    calls(&breaker, 2, Verdict::Soft(None));
    breaker.force(Some(Mode::ForcedOpen));
    assert_eq!(vec!["forced_open"], shown(&capture));
    breaker.force(Some(Mode::Disabled));
    breaker.force(None);
    breaker.close();
    assert_eq!(
        vec![
            "open for 1s: 3 failures in a row",
            "closed: a call succeeded",
            "open for 1s: 2 of 4 calls failed",
            "forced_open: set by hand",
            "disabled: set by hand",
            "open: set by hand",
            "closed: set by hand",
        ],
        changes(&journal)
    );
    let opened = [("breaker", "bank"), ("state", "open")];
    let count = capture.value("gantry_breaker_transitions_total", &opened);
    assert_eq!(Some(4.0), count);
}

/// Goal: refusals are counted, and those that only would have been are counted apart.
/// Method: an open one, that then only counts.
#[tokio::test(start_paused = true)]
async fn refusals_are_counted() {
    let capture = telemetry::capture();
    let breaker = opened(in_a_row(1));
    assert_eq!(0, passing(&breaker, 6).len());
    assert!(breaker.check().is_err());
    breaker.force(Some(Mode::MetricsOnly));
    assert_eq!(5, passing(&breaker, 5).len());
    assert!(breaker.check().is_ok());
    let count = |name| capture.value(name, &[("breaker", "bank")]);
    assert_eq!(Some(7.0), count("gantry_breaker_refused_total"));
    assert_eq!(Some(5.0), count("gantry_breaker_would_refuse_total"));
}

/// Goal: a snapshot says what it is, since when, why, and what comes next.
/// Method: one that counts, and the same once it is open.
#[tokio::test(start_paused = true)]
async fn a_snapshot_says_it_all() {
    let breaker = breaker(Config {
        slow_call: SECOND,
        ..in_a_row(3)
    });
    let made = Instant::now();
    let slow = breaker.admit().unwrap();
    time::advance(SECOND).await;
    slow.end(Verdict::Success);
    calls(&breaker, 2, Verdict::Hard);
    let counts = Counts {
        calls: 3,
        failed: 2,
        slow: 1,
    };
    let closed = Snapshot {
        mode: Mode::Automatic,
        by_hand: None,
        state: State::Closed,
        since: made,
        next_probe_at: None,
        counts,
        failures_in_a_row: 2,
        trips: 0,
    };
    assert_eq!(closed, breaker.snapshot());
    call(&breaker, Verdict::Hard);
    let open = Snapshot {
        state: State::Open,
        since: Instant::now(),
        next_probe_at: Some(Instant::now() + SECOND),
        counts: Counts::default(),
        failures_in_a_row: 0,
        trips: 1,
        ..closed
    };
    assert_eq!(open, breaker.snapshot());
}

//! What can be set, what cannot, and what happens when it is.

use super::*;
use crate::config::{self, Publisher, Sources};

/// Goal: settings that make no sense together are refused, each with what to change.
/// Method: one of each kind, and some that are fine.
#[test]
fn senseless_settings_are_refused() {
    for (toml, fault) in [
        (
            "failure_rate = 0.0",
            "failure_rate = 0.0: expected a number above 0, up to 1",
        ),
        (
            "slow_rate = 1.5",
            "slow_rate = 1.5: expected a number above 0, up to 1",
        ),
        (
            "pause_max = '500ms'",
            "pause_max = \"500ms\": expected no less than pause_min",
        ),
        (
            "pause_jitter = 1.0",
            "pause_jitter = 1.0: expected a number from 0 to below 1",
        ),
        (
            "slow_call = '2s'\nprobe_time_max = '2s'",
            "probe_time_max = \"2s\": expected more than slow_call, or a slow call that tries again \
             is given up before it is known to be slow",
        ),
        (
            "state = 'shut'",
            "state = \"shut\": expected one of \"automatic\", \"forced_open\", \"disabled\", \
             \"metrics_only\"",
        ),
        (
            "calls_min = 0",
            "calls_min = 0: expected a whole number from 1 to 1000000",
        ),
    ] {
        let faults = config::load::<Config>(Sources::new().text("a.toml", toml)).unwrap_err();
        let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(1, told.len(), "{told:?}");
        assert!(told[0].ends_with(fault), "{told:?}");
    }
    for toml in [
        "",
        "failures_in_a_row = 0\nfailure_rate = 1.0\nslow_call = '59s'\nslow_rate = 0.001",
        "pause_min = '1s'\npause_max = '1s'\npause_jitter = 0.0\nstate = 'metrics_only'",
    ] {
        let loaded = config::load::<Config>(Sources::new().text("a.toml", toml));
        assert!(loaded.is_ok(), "{toml}");
    }
}

/// Goal: each setting counts from when it changes.
/// Method: a row made shorter, a window made longer, a pause, while they are used.
#[tokio::test(start_paused = true)]
async fn settings_are_taken_while_it_runs() {
    let mut publisher = Publisher::new(in_a_row(10));
    let breaker = Breaker::new("bank", publisher.live(), Journal::new());
    calls(&breaker, 5, Verdict::Hard);
    publisher.publish(Config {
        pause_min: 7 * SECOND,
        ..in_a_row(6)
    });
    call(&breaker, Verdict::Hard);
    let at = breaker.next_probe_at().expect("it is open");
    assert_eq!(Instant::now() + 7 * SECOND, at);
    time::sleep_until(at).await;
    probe(&breaker).end(Verdict::Success);

    publisher.publish(by_rate(1.0, 4));
    calls(&breaker, 3, Verdict::Hard);
    publisher.publish(Config {
        window: 60 * SECOND,
        ..by_rate(1.0, 4)
    });
    // Counts of another window say nothing about this one.
    calls(&breaker, 3, Verdict::Hard);
    assert_eq!(State::Closed, breaker.state());
    time::advance(50 * SECOND).await;
    call(&breaker, Verdict::Hard);
    assert_eq!(State::Open, breaker.state());
}

/// Goal: an operator can refuse every call, let all pass, and go back, by configuration and by hand.
/// Method: each mode over a breaker that is closed, and one that is open; what calls meet.
#[tokio::test(start_paused = true)]
async fn operators_decide_in_its_place() {
    let mut publisher = Publisher::new(in_a_row(2));
    let breaker = Breaker::new("bank", publisher.live(), Journal::new());
    breaker.force(Some(Mode::ForcedOpen));
    let open = breaker.admit().unwrap_err();
    assert_eq!((State::ForcedOpen, 100 * SECOND), (open.state, open.pause));
    time::advance(1_000 * SECOND).await;
    assert!(breaker.is_open(Instant::now()));
    breaker.force(None);
    call(&breaker, Verdict::Success);

    publisher.publish(Config {
        state: Mode::Disabled,
        ..in_a_row(2)
    });
    calls(&breaker, 100, Verdict::Hard);
    assert_eq!(State::Disabled, breaker.state());
    assert_eq!(1, breaker.snapshot().counts.calls, "that of before");
    breaker.force(Some(Mode::Automatic));
    calls(&breaker, 2, Verdict::Hard);
    assert_eq!(State::Open, breaker.state());
    breaker.force(None);
    assert_eq!(10, passing(&breaker, 10).len());
    breaker.force(Some(Mode::Automatic));
    assert_eq!(0, passing(&breaker, 10).len(), "it is what it was");
    breaker.close();
    assert_eq!(10, passing(&breaker, 10).len());
    assert_eq!(State::Closed, breaker.state());
}

/// Goal: what ends while an operator decides says nothing, and holds no place.
/// Method: calls that pass before and end during; the one that tries again among them.
#[tokio::test(start_paused = true)]
async fn what_ends_meanwhile_says_nothing() {
    let breaker = breaker(in_a_row(2));
    let before = passing(&breaker, 9);
    breaker.force(Some(Mode::ForcedOpen));
    for permit in before {
        permit.end(Verdict::Hard);
    }
    breaker.force(None);
    assert_eq!(State::Closed, breaker.state());
    calls(&breaker, 2, Verdict::Hard);
    time::advance(SECOND).await;
    let trying = probe(&breaker);
    breaker.force(Some(Mode::Disabled));
    trying.end(Verdict::Success);
    breaker.force(None);
    assert_eq!(State::HalfOpen, breaker.state());
    probe(&breaker).end(Verdict::Success);
    assert_eq!(State::Closed, breaker.state());
}

/// Goal: a breaker that only counts refuses nobody, and does all else as one that does not.
/// Method: failures that open it, calls that pass all the same, a pause, one that counts as a probe.
#[tokio::test(start_paused = true)]
async fn one_that_only_counts_refuses_nobody() {
    let breaker = breaker(Config {
        state: Mode::MetricsOnly,
        ..in_a_row(2)
    });
    calls(&breaker, 2, Verdict::Hard);
    assert_eq!(State::Open, breaker.state());
    assert!(!breaker.is_open(Instant::now()));
    // It would not have made these, and so learns nothing by them.
    calls(&breaker, 10, Verdict::Success);
    assert_eq!(State::Open, breaker.state());
    time::advance(SECOND).await;
    let trying = passing(&breaker, 1).remove(0);
    calls(&breaker, 10, Verdict::Hard);
    assert_eq!(State::HalfOpen, breaker.state());
    trying.end(Verdict::Success);
    assert_eq!(State::Closed, breaker.state());
}

/// Goal: what is set by hand for a time ends by itself, also where nobody calls, and is told of once;
/// what is set anew holds by its own time.
/// Method: forced open for ten seconds; again for twenty more; the list, a call and the journal.
#[tokio::test(start_paused = true)]
async fn what_is_set_for_a_time_ends() {
    let journal = Journal::new();
    let breaker = Breaker::new("bank", Live::fixed(in_a_row(2)), journal.clone());
    let open = |time| {
        let until = Some(Instant::now() + time);
        breaker.obey(Order::Mode(Mode::ForcedOpen), until);
    };
    open(10 * SECOND);
    time::advance(9 * SECOND).await;
    assert!(breaker.check().is_err());
    open(20 * SECOND);
    time::advance(19 * SECOND).await;
    assert!(breaker.is_open(Instant::now()));
    let by_hand = breaker.snapshot().by_hand.expect("it is");
    assert_eq!(Some(Instant::now() + SECOND), by_hand.until);
    time::advance(SECOND).await;
    let snapshot = breaker.snapshot();
    assert_eq!((State::Closed, None), (snapshot.state, snapshot.by_hand));
    call(&breaker, Verdict::Success);

    open(10 * SECOND);
    breaker.obey(Order::Close, None);
    time::advance(60 * SECOND).await;
    assert_eq!(State::Closed, breaker.state());
    let told: Vec<_> = journal.watch().0.into_iter().map(|it| it.detail).collect();
    let expected = [
        "forced_open: set by hand",
        "closed: what was set by hand has ended",
        "forced_open: set by hand",
        "closed: set by hand",
    ];
    assert_eq!(expected, *told);
}

//! What opens a breaker, and what does not.

use super::*;

const SOFT: Verdict = Verdict::Soft(None);

/// Goal: a success between them makes failures no row, whatever else ends there; the full row opens.
/// Method: two failures, a success, two failures; soft and ignored ends between; the third.
#[tokio::test(start_paused = true)]
async fn a_success_ends_a_row_of_failures() {
    let breaker = breaker(in_a_row(3));
    calls(&breaker, 2, Verdict::Hard);
    call(&breaker, Verdict::Success);
    calls(&breaker, 2, Verdict::Hard);
    calls(&breaker, 9, SOFT);
    calls(&breaker, 9, Verdict::Ignored);
    calls(&breaker, 9, Verdict::Unserved);
    assert_eq!(State::Closed, breaker.state());
    call(&breaker, Verdict::Hard);
    assert_eq!(State::Open, breaker.state());
}

/// Goal: a long good time buys no patience.
/// Method: a million successes, then failures until it opens.
#[tokio::test(start_paused = true)]
async fn a_million_successes_do_not_delay_it() {
    let breaker = breaker(Config::default());
    calls(&breaker, 1_000_000, Verdict::Success);
    calls(&breaker, 4, Verdict::Hard);
    assert_eq!(State::Closed, breaker.state());
    call(&breaker, Verdict::Hard);
    assert_eq!(State::Open, breaker.state());
}

/// Goal: a rate opens as soon as there are enough calls, however fast they come.
/// Method: failures one per second, and all in a millisecond; a window that asks for five.
#[tokio::test(start_paused = true)]
async fn a_rate_opens_at_the_least_number_of_calls() {
    for step in [SECOND, Duration::from_micros(200)] {
        let breaker = breaker(by_rate(0.5, 5));
        for _ in 0..4 {
            call(&breaker, Verdict::Hard);
            time::advance(step).await;
        }
        assert_eq!(State::Closed, breaker.state(), "{step:?}");
        call(&breaker, Verdict::Hard);
        assert_eq!(State::Open, breaker.state(), "{step:?}");
    }
}

/// Goal: a rate is that of the calls there are: none open nothing, and one failure in four opens
/// where every call must succeed, exactly at the share that is set.
/// Method: the strictest rates with no calls, with too few, and with just enough.
#[tokio::test(start_paused = true)]
async fn a_rate_is_exact() {
    for (rate, calls_min, successes, failures) in
        [(0.25, 4, 3, 1), (1.0, 4, 0, 4), (0.07, 100, 93, 7)]
    {
        let breaker = breaker(by_rate(rate, calls_min));
        time::advance(20 * SECOND).await;
        assert!(!breaker.is_open(Instant::now()), "no calls are no rate");
        calls(&breaker, successes, Verdict::Success);
        calls(&breaker, failures - 1, Verdict::Hard);
        assert_eq!(State::Closed, breaker.state(), "{rate}");
        call(&breaker, Verdict::Hard);
        assert_eq!(State::Open, breaker.state(), "{rate}");
    }
    let below = breaker(by_rate(0.5, 4));
    calls(&below, 100, Verdict::Success);
    calls(&below, 99, Verdict::Hard);
    assert_eq!(State::Closed, below.state());
    call(&below, Verdict::Hard);
    assert_eq!(State::Open, below.state());
}

/// Goal: who sheds load and says so is not taken for broken, but is left alone when it does so often.
/// Method: soft ends only: with a row, with a rate, and for the one call that tries again.
#[tokio::test(start_paused = true)]
async fn soft_ends_count_for_the_rate_and_fail_a_probe() {
    let row = breaker(in_a_row(2));
    calls(&row, 100, SOFT);
    assert_eq!(State::Closed, row.state());

    let rate = breaker(by_rate(0.5, 5));
    calls(&rate, 4, SOFT);
    assert_eq!(State::Closed, rate.state());
    call(&rate, SOFT);
    assert_eq!(State::Open, rate.state());

    time::advance(SECOND).await;
    probe(&rate).end(SOFT);
    assert_eq!(State::Open, rate.state());
    assert_eq!(
        Some(Instant::now() + 2 * SECOND),
        rate.next_probe_at(),
        "it failed"
    );
}

/// Goal: what ended long ago does not count.
/// Method: calls one short of enough, silence of a window, and as many again; then one more.
#[tokio::test(start_paused = true)]
async fn silence_for_a_window_begins_anew() {
    let breaker = breaker(by_rate(0.5, 5));
    calls(&breaker, 4, Verdict::Hard);
    time::advance(10 * SECOND).await;
    assert_eq!(Counts::default(), breaker.snapshot().counts);
    calls(&breaker, 4, Verdict::Hard);
    assert_eq!(State::Closed, breaker.state());
    call(&breaker, Verdict::Hard);
    assert_eq!(State::Open, breaker.state());
}

/// Goal: calls fall out of the window a tenth at a time, and not before their time.
/// Method: one call a second; what is counted from then on, second by second.
#[tokio::test(start_paused = true)]
async fn the_window_slides_by_tenths() {
    let breaker = breaker(by_rate(1.0, 1_000));
    for _ in 0..10 {
        call(&breaker, Verdict::Hard);
        time::advance(SECOND).await;
    }
    for left in (0..10).rev() {
        assert_eq!(left, breaker.snapshot().counts.calls);
        time::advance(SECOND).await;
    }
}

/// Goal: slow calls open by their own rate, whatever they end with, and a slow one that tries again
/// proves nothing.
/// Method: successes of a second where half of that is slow; then quick ones.
#[tokio::test(start_paused = true)]
async fn slow_calls_open_as_failures_do() {
    let slow_call = SECOND / 2;
    let breaker = breaker(Config {
        slow_call,
        slow_rate: 0.5,
        ..by_rate(1.0, 4)
    });
    let slowly = async |breaker: &Breaker| {
        let permit = breaker.admit().unwrap();
        time::advance(slow_call).await;
        permit.end(Verdict::Success);
    };
    calls(&breaker, 2, Verdict::Success);
    slowly(&breaker).await;
    assert_eq!(State::Closed, breaker.state());
    slowly(&breaker).await;
    assert_eq!(State::Open, breaker.state());
    time::advance(SECOND).await;
    slowly(&breaker).await;
    assert_eq!(State::Open, breaker.state(), "the one that tried was slow");
    time::advance(2 * SECOND).await;
    call(&breaker, Verdict::Success);
    assert_eq!(State::Closed, breaker.state());
}

/// Goal: a call that passed before it opened says nothing about the time after.
/// Method: calls of before that fail once it is closed again, one short of what opens it.
#[tokio::test(start_paused = true)]
async fn failures_of_before_do_not_count_after() {
    for config in [
        in_a_row(2),
        Config {
            failures_in_a_row: 2,
            ..by_rate(0.5, 3)
        },
    ] {
        let breaker = breaker(config);
        let before = passing(&breaker, 9);
        calls(&breaker, 2, Verdict::Hard);
        time::advance(SECOND).await;
        probe(&breaker).end(Verdict::Success);
        call(&breaker, Verdict::Hard);
        for permit in before {
            permit.end(Verdict::Hard);
        }
        assert_eq!(State::Closed, breaker.state());
        assert_eq!(1, breaker.snapshot().counts.calls);
        assert_eq!(1, breaker.snapshot().failures_in_a_row);
    }
}

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Goal: the probability is the book's, capped.
/// Method: a thousand requests, of which half, a quarter and none were accepted.
#[test]
fn the_probability_follows_requests_and_accepts() {
    let near = |expected: f64, accepts| (refusal(1_000, accepts) - expected).abs() < 1e-4;
    assert!(near(0.0, 1_000));
    assert!(near(0.0, 500));
    assert!(near(0.499_5, 250));
    assert!(near(REFUSED_MAX, 0), "0.999 is capped");
}

/// One second of `rate` calls, of which the target turns `failing` of a hundred away: how many went
/// through.
fn second(throttle: &Throttle, at: Instant, rate: u32, failing: u32) -> u32 {
    let mut passed = 0;
    for number in 0..rate {
        let now = at + SECOND / rate * number;
        if throttle.admit(now).is_err() {
            continue;
        }
        passed += 1;
        // Spread evenly over the calls.
        let failed = passed * failing % 100 < failing;
        let verdict = if failed {
            Verdict::Hard
        } else {
            Verdict::Success
        };
        throttle.judged(verdict, now, now);
    }
    passed
}

/// Goal: a target of which no call comes back is spared most of them and never all; one that is
/// back gets all within the window.
/// Method: a thousand calls a second for a minute in vain, then answered.
#[tokio::test(start_paused = true)]
async fn a_target_that_fails_is_spared_and_found_again() {
    fastrand::seed(37);
    let throttle = Throttle::default();
    let began = Instant::now();
    let mut at = began;
    for number in 0..60 {
        let passed = second(&throttle, at, 1_000, 100);
        // It takes ten calls to see it; from then on a tenth goes through.
        assert!((1..=180).contains(&passed), "{passed} in second {number}");
        at += SECOND;
    }
    let mut passed = 0;
    for _ in 0..60 {
        passed = second(&throttle, at, 1_000, 0);
        at += SECOND;
    }
    assert_eq!(1_000, passed, "a minute after it is back");
}

/// Goal: one call a second goes through, however few there are.
/// Method: eleven failures, then two calls a second: with a probability of 0.9 alone, some second of
/// thirty would pass none.
#[tokio::test(start_paused = true)]
async fn one_call_a_second_goes_through() {
    fastrand::seed(37);
    let throttle = Throttle::default();
    let mut at = Instant::now() + SECOND;
    for _ in 0..11 {
        let _: Result<(), Refused> = throttle.admit(at);
        throttle.judged(Verdict::Hard, at, at);
    }
    for number in 0..30 {
        at += SECOND;
        let passed = second(&throttle, at, 2, 100);
        assert!(passed >= 1, "second {number}");
    }
}

/// Goal: a target that turns less than half of the calls away gets them all, and so does one of
/// which little is known.
/// Method: 40 of 100 failing for a minute; nine failures of nine calls.
#[tokio::test(start_paused = true)]
async fn a_target_that_mostly_works_is_not_spared() {
    let throttle = Throttle::default();
    let mut at = Instant::now();
    for _ in 0..60 {
        assert_eq!(100, second(&throttle, at, 100, 40));
        at += SECOND;
    }
    let throttle = Throttle::default();
    assert_eq!(9, second(&throttle, at, 9, 100));
}

/// Goal: what is nobody's fault, and what takes long, lowers nothing.
/// Method: a thousand calls that never end, and a thousand that were cancelled.
#[tokio::test(start_paused = true)]
async fn only_what_is_the_targets_fault_counts() {
    let throttle = Throttle::default();
    let now = Instant::now();
    for _ in 0..1_000 {
        throttle.admit(now).unwrap();
        throttle.judged(Verdict::Ignored, now, now);
    }
    throttle.judged(Verdict::Hard, now, now);
    for _ in 0..1_000 {
        throttle.admit(now).unwrap();
    }
    // An overload that is told counts as well as a fault.
    for _ in 0..2_000 {
        throttle.judged(Verdict::Soft(None), now, now);
    }
    fastrand::seed(37);
    let refused = (0..100).filter(|_| throttle.admit(now).is_err()).count();
    assert!(refused > 70, "{refused}");
}

/// Goal: streams that end together, long after they began, keep nobody from beginning anew.
/// Method: a hundred that were admitted a window ago, and fail.
#[tokio::test(start_paused = true)]
async fn what_began_long_ago_counts_no_more() {
    let throttle = Throttle::default();
    let since = Instant::now();
    for _ in 0..100 {
        throttle.admit(since).unwrap();
    }
    tokio::time::advance(WINDOW).await;
    let now = Instant::now();
    for _ in 0..100 {
        throttle.judged(Verdict::Hard, since, now);
    }
    for _ in 0..100 {
        throttle.admit(now).expect("nothing failed of late");
    }
}

/// Goal: what never reached the target is nothing that it accepted.
/// Method: a thousand calls for which there was no endpoint, then a hundred that fail.
#[tokio::test(start_paused = true)]
async fn what_was_not_sent_is_not_accepted() {
    let throttle = Throttle::default();
    let now = Instant::now();
    for _ in 0..1_000 {
        throttle.admit(now).unwrap();
        throttle.unsent(now);
    }
    assert_eq!(0, throttle.admitted.sum(now));
    let passed = second(&throttle, now, 100, 100);
    assert!(passed < 60, "{passed}");
}

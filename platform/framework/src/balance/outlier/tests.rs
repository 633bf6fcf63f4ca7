//! The numbers of gRFC A50's implementations, and where ours differ on purpose.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Endpoints that had a hundred calls each, by how many of them succeeded.
fn samples(successes: &[u32]) -> Vec<Sample> {
    let samples = successes.iter().map(|successes| Sample {
        counts: Counts {
            successes: *successes,
            failures: 100 - successes,
        },
        ..Sample::default()
    });
    samples.collect()
}

fn ejected(config: &Config, samples: &[Sample]) -> Vec<(usize, Reason)> {
    let outliers = judge(config, samples).into_iter();
    outliers.map(|it| (it.index, it.reason)).collect()
}

/// Goal: one that succeeds far less often than the mean is ejected, and one that is the worst by
/// little is not.
/// Method: the vectors of Envoy and gRPC. The second is ejected there (its threshold is 99.04):
/// ours asks for ten percentage points beside the deviation, as any worst of five has two.
#[test]
fn the_success_rate_is_compared_with_the_mean() {
    let config = Config::default();
    let worst = ejected(&config, &samples(&[50, 100, 100, 100, 100]));
    assert_eq!(vec![(0, Reason::SuccessRate)], worst);
    let little_worse = samples(&[99, 100, 100, 100, 100]);
    assert!(ejected(&config, &little_worse).is_empty());
    let as_a50 = Config {
        success_margin_percent: 0,
        ..config.clone()
    };
    let worst = ejected(&as_a50, &little_worse);
    assert_eq!(vec![(0, Reason::SuccessRate)], worst);

    // Four endpoints are too few, and so are 99 calls at one of five.
    assert!(ejected(&config, &samples(&[50, 100, 100, 100])).is_empty());
    let mut fewer_calls = samples(&[50, 100, 100, 100, 100]);
    fewer_calls[4].counts.successes = 99;
    assert!(ejected(&config, &fewer_calls).is_empty());
}

/// Goal: two dead endpoints of nine are ejected.
/// Method: the vector of which A50's success rate ejects none, as its threshold is below zero: ours
/// looks at the share of failures as well, and 25 % of nine are two.
#[test]
fn two_dead_of_nine_are_ejected() {
    let config = Config::default();
    let two_dead = samples(&[0, 0, 100, 100, 100, 100, 100, 100, 100]);
    let both = vec![
        (0, Reason::FailurePercentage),
        (1, Reason::FailurePercentage),
    ];
    assert_eq!(both, ejected(&config, &two_dead));
    let by_rate_alone = Config {
        failure_percent: 100,
        ..config
    };
    assert!(ejected(&by_rate_alone, &two_dead).is_empty());
}

/// Goal: exactly half of the calls may fail, and a few calls or a single endpoint say nothing.
/// Method: 50 and 51 failures (the text of A50, where Envoy ejects at 50), 19 calls, and one
/// endpoint with calls.
#[test]
fn more_than_half_must_fail() {
    let config = Config::default();
    assert!(ejected(&config, &samples(&[50, 100])).is_empty());
    let expected = vec![(0, Reason::FailurePercentage)];
    assert_eq!(expected, ejected(&config, &samples(&[49, 100])));

    let mut few = samples(&[0, 100]);
    few[0].counts.failures = 19;
    assert!(ejected(&config, &few).is_empty());
    few[0].counts.failures = 20;
    assert_eq!(expected, ejected(&config, &few));
    few[1].counts.successes = 19;
    assert!(ejected(&config, &few).is_empty());
}

/// Goal: where calls fail wherever they go, no endpoint is to blame; one that is worse than the best by
/// far is.
/// Method: two that fail alike, and others beside a best one that fails some itself.
#[test]
fn what_fails_everywhere_is_nobodys_fault() {
    let config = Config::default();
    for alike in [[0, 0], [10, 10], [30, 20], [40, 40]] {
        assert!(ejected(&config, &samples(&alike)).is_empty(), "{alike:?}");
    }
    let expected = vec![(0, Reason::FailurePercentage)];
    for worse in [[0, 10], [9, 20], [29, 60], [49, 100]] {
        assert_eq!(expected, ejected(&config, &samples(&worse)), "{worse:?}");
    }
    let strict = Config {
        failure_percent: 20,
        ..config.clone()
    };
    assert!(ejected(&strict, &samples(&[48, 60])).is_empty());
    assert_eq!(expected, ejected(&strict, &samples(&[47, 60])));
    let alone = Config {
        failure_endpoints_min: 1,
        ..config
    };
    let mut nobody_else = samples(&[40, 100]);
    nobody_else[1].counts.successes = 19;
    assert_eq!(expected, ejected(&alone, &nobody_else));
}

/// Goal: no more are out at once than may be, the worst of them, and never the only one.
/// Method: all but one fail, of 1 to 40. A50 stops only when the share is reached already, so that
/// 30 % of four are two: ours rounds down, and ejects one. Of two 10 % are one in both.
#[test]
fn few_are_out_at_once() {
    let config = Config {
        failure_endpoints_min: 1,
        ..Config::default()
    };
    let count = |config: &Config, all: usize| {
        let mut successes = vec![0; all - 1];
        successes.push(100);
        ejected(config, &samples(&successes)).len()
    };
    let counts = [1, 2, 3, 4, 7, 8, 10, 40].map(|all| count(&config, all));
    assert_eq!([0, 1, 1, 1, 1, 2, 2, 10], counts);
    assert!(ejected(&config, &samples(&[0])).is_empty(), "the only one");

    let capped = |percent| Config {
        ejected_max_percent: percent,
        ..config.clone()
    };
    let counts =
        [(30, 4), (10, 10), (10, 2), (0, 10)].map(|(percent, all)| count(&capped(percent), all));
    assert_eq!([1, 1, 1, 0], counts);

    let worst = judge(&config, &samples(&[40, 10, 30, 100]));
    assert_eq!(vec![1], worst.iter().map(|it| it.index).collect::<Vec<_>>());
}

/// Goal: those that are out already, ejected or by their breaker, count among those that may be.
/// Method: eight, of which two may be: all but one fail. One is ejected; or one has its breaker open,
/// and being out already can be ejected without room; or so have three.
#[test]
fn those_that_are_out_count() {
    let config = Config::default();
    let failing = samples(&[0, 0, 0, 100, 100, 100, 100, 100]);
    let indices = |samples: &[Sample]| -> Vec<_> {
        let outliers = judge(&config, samples).into_iter();
        outliers.map(|it| it.index).collect()
    };
    let mut one_ejected = failing.clone();
    one_ejected[0].ejected = true;
    assert_eq!(vec![1], indices(&one_ejected));
    let mut one_shut = failing.clone();
    one_shut[2].shut = true;
    assert_eq!(vec![0, 2], indices(&one_shut));
    let mut three_shut = failing;
    three_shut[2..5].iter_mut().for_each(|it| it.shut = true);
    assert_eq!(vec![2], indices(&three_shut));
    three_shut[6].ejected = true;
    three_shut[7].ejected = true;
    assert!(indices(&three_shut).is_empty());
}

/// Goal: an ejection ends when its time is over, and the next is longer, unless it was well between.
/// Method: Envoy's times: 30 s, not at 9.999 s and at 30.001 s, then 60 s, then 30 s again after
/// an interval of health.
#[test]
fn an_ejection_lasts_longer_each_time() {
    let config = Config::default();
    let mut standing = Standing::default();
    let start = Instant::now();
    let eject = |standing: &mut Standing, at| standing.eject(&config, Reason::SuccessRate, at, 0.0);
    assert_eq!(30 * SECOND, eject(&mut standing, start));
    standing.passed();
    assert!(!standing.release_at(start + Duration::from_millis(9_999)));
    assert!(!standing.release_at(start + Duration::from_millis(29_999)));
    assert!(standing.release_at(start + Duration::from_millis(30_001)));
    assert!(!standing.release_at(start + 60 * SECOND), "once");

    assert_eq!(60 * SECOND, eject(&mut standing, start));
    assert!(standing.release());
    standing.passed();
    assert_eq!(60 * SECOND, eject(&mut standing, start));
    standing.release();
    standing.passed();
    standing.passed();
    standing.passed();
    assert_eq!(Standing::default(), standing);
    assert_eq!(30 * SECOND, eject(&mut standing, start));
}

/// Goal: an ejection is bounded, and spread by a tenth at most.
/// Method: the vector of A50: 10 s, five times, at most 15 s; the jitter at both ends.
#[test]
fn an_ejection_is_bounded() {
    let config = Config {
        ejection_min: 10 * SECOND,
        ejection_max: 15 * SECOND,
        ..Config::default()
    };
    let mut standing = Standing::default();
    let now = Instant::now();
    let lengths = [0.0; 5].map(|jitter| standing.eject(&config, Reason::SuccessRate, now, jitter));
    assert_eq!(
        [10, 15, 15, 15, 15].map(|seconds| seconds * SECOND),
        lengths
    );
    let spread = standing.eject(&config, Reason::SuccessRate, now, 1.0);
    assert_eq!(Duration::from_millis(16_500), spread);
    let mut often = Standing {
        multiplier: u32::MAX,
        ejected: None,
    };
    often.eject(&Config::default(), Reason::SuccessRate, now, 0.0);
    assert_eq!(now + 300 * SECOND, often.ejected().unwrap().until);
}

/// Goal: what says something about an endpoint is counted, once, and nothing else is.
/// Method: each verdict.
#[test]
fn verdicts_are_counted() {
    let tally = Tally::default();
    for verdict in [
        Verdict::Success,
        Verdict::Hard,
        Verdict::Soft(None),
        Verdict::Soft(Some(SECOND)),
        Verdict::Ignored,
        Verdict::Unserved,
    ] {
        tally.count(verdict);
    }
    let expected = Counts {
        successes: 1,
        failures: 3,
    };
    assert_eq!(expected, tally.take());
    assert_eq!(Counts::default(), tally.take());
}

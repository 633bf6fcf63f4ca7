mod hedging;
mod model;

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tonic::Code as Grpc;

use super::*;
use crate::{
    classify::Pushback,
    contract::Idempotency::{Idempotent, NoSideEffects, Unknown},
    status::{self, PUSHBACK},
    telemetry::platform::RefusedRetry as Why,
};

const MS: Duration = Duration::from_millis(1);

fn config(attempts_max: u8) -> Config {
    Config {
        attempts_max,
        ..Config::default()
    }
}

fn policy(attempts_max: u8) -> Policy {
    Policy::new(&config(attempts_max), &Hedge::default())
}

fn hedged(attempts_max: u8) -> Policy {
    let hedge = Hedge {
        attempts_max,
        ..Hedge::default()
    };
    Policy::new(&config(1), &hedge)
}

fn allowance() -> Allowance {
    Allowance::new(&"peer".into())
}

/// One that stands against nothing.
fn generous() -> Allowance {
    let share = Share {
        ratio: 1_000.0,
        ..Share::default()
    };
    allowance().with(Tokens::new(1_000_000, 100), Budget::new(share))
}

fn failure(code: Grpc) -> Failure {
    Failure {
        code,
        pushback: None,
        timed_out: false,
    }
}

fn pushed(pushback: Pushback) -> Failure {
    Failure {
        pushback: Some(pushback),
        ..failure(Grpc::Unavailable)
    }
}

const EASY: Circumstances = Circumstances {
    in_retry: false,
    replayable: true,
    left: None,
};

/// A target whose attempts end by their number.
struct Server<F> {
    attempts: usize,
    ends: F,
}

impl<F: Fn(usize) -> Grpc> Server<F> {
    fn new(ends: F) -> Self {
        Self { attempts: 0, ends }
    }

    /// A whole call: its code, and the number of its last attempt.
    fn call(&mut self, policy: &Policy, allowance: &Allowance) -> (Grpc, usize) {
        let now = Instant::now();
        allowance.call(now);
        let mut course = Course::default();
        loop {
            let number = self.attempts;
            self.attempts += 1;
            let code = (self.ends)(number);
            if code == Grpc::Ok {
                allowance.succeeded();
                return (code, number);
            }
            match course.after(failure(code), policy, EASY, allowance, now) {
                Next::Retry(_) => {}
                Next::Stop(_) => return (code, number),
            }
        }
    }
}

/// Goal: a call is tried as often as it may, and only after what is worth it.
/// Method: grpc-go's vector for four attempts, with UNAVAILABLE as what is tried again.
#[tokio::test(start_paused = true)]
async fn a_call_is_tried_as_often_as_it_may() {
    let mut server = Server::new(|number| match number {
        0 | 2 | 5 => Grpc::Ok,
        6 | 8 | 11 => Grpc::Internal,
        _ => Grpc::Unavailable,
    });
    let allowance = generous();
    let ends: Vec<_> = (0..7)
        .map(|_| server.call(&policy(4), &allowance))
        .collect();
    let expected = vec![
        (Grpc::Ok, 0),
        (Grpc::Ok, 2),
        (Grpc::Ok, 5),
        (Grpc::Internal, 6),
        (Grpc::Internal, 8),
        (Grpc::Internal, 11),
        (Grpc::Unavailable, 15),
    ];
    assert_eq!(expected, ends);
}

/// Goal: a target at which too much fails gets no retries until enough succeeds.
/// Method: grpc-go's vector for ten tokens of which a success gives back half of one, the tokens
/// after each call beside it.
#[tokio::test(start_paused = true)]
async fn retries_stop_at_half_of_the_tokens() {
    let mut server = Server::new(|number| match number {
        0 | 3 | 6 | 10..=14 | 16 | 18 => Grpc::Ok,
        _ => Grpc::Unavailable,
    });
    let allowance = allowance().with(Tokens::new(10, 500), Budget::default());
    let expected = [
        (Grpc::Ok, 0, 10.0),
        (Grpc::Ok, 3, 8.5),
        (Grpc::Ok, 6, 7.0),
        (Grpc::Unavailable, 8, 5.0),
        (Grpc::Unavailable, 9, 4.0),
        (Grpc::Ok, 10, 4.5),
        (Grpc::Ok, 11, 5.0),
        (Grpc::Ok, 12, 5.5),
        (Grpc::Ok, 13, 6.0),
        (Grpc::Ok, 14, 6.5),
        (Grpc::Ok, 16, 6.0),
        (Grpc::Unavailable, 17, 5.0),
    ];
    for (code, number, left) in expected {
        assert_eq!((code, number), server.call(&policy(4), &allowance));
        assert!((allowance.tokens.left() - left).abs() < 1e-9, "{number}");
    }
    // The last failure of a call counts as well, though nothing could follow it.
    let tokens = allowance.with(Tokens::default(), Budget::default());
    let mut course = Course::default();
    let next = course.after(
        failure(Grpc::Unavailable),
        &policy(1),
        EASY,
        &tokens,
        Instant::now(),
    );
    assert_eq!(Next::Stop(Stop::Refused(Why::Attempts)), next);
    assert!((tokens.tokens.left() - 9.0).abs() < 1e-9);
}

/// Goal: pauses grow by the multiplier up to the longest, each spread by a fifth and no more; one
/// that the server names replaces them, and the next is the first again.
/// Method: a thousand courses of five attempts, seeded; then one with a pause of the server's.
#[tokio::test(start_paused = true)]
async fn pauses_grow_until_the_server_names_one() {
    fastrand::seed(24);
    let policy = Policy::new(
        &Config {
            backoff_max: 300 * MS,
            ..config(5)
        },
        &Hedge::default(),
    );
    let allowance = generous();
    allowance.call(Instant::now());
    let ask = |course: &mut Course, failure| {
        allowance.call(Instant::now());
        match course.after(failure, &policy, EASY, &allowance, Instant::now()) {
            Next::Retry(pause) => pause,
            Next::Stop(stop) => panic!("{stop:?}"),
        }
    };
    let unavailable = failure(Grpc::Unavailable);
    let mut seen = vec![Vec::new(); 4];
    for _ in 0..1_000 {
        let mut course = Course::default();
        for pauses in &mut seen {
            pauses.push(ask(&mut course, unavailable).as_secs_f64());
        }
    }
    for (pauses, plain) in seen.iter_mut().zip([0.05, 0.1, 0.2, 0.3]) {
        pauses.sort_by(f64::total_cmp);
        let (least, most) = (pauses[0] / plain, pauses[999] / plain);
        assert!((0.8..0.82).contains(&least), "{plain}: {least}");
        assert!((1.18..=1.2).contains(&most), "{plain}: {most}");
    }

    let mut course = Course::default();
    ask(&mut course, unavailable);
    ask(&mut course, unavailable);
    let named = ask(&mut course, pushed(Pushback::After(1_000 * MS)));
    assert_eq!(1_000 * MS, named);
    assert_eq!(3, course.previous());
    let first = ask(&mut course, unavailable);
    assert!((40 * MS..=60 * MS).contains(&first), "{first:?}");
}

/// Goal: a server that says not to is obeyed, and counts as failing, whatever its code.
/// Method: such an answer of a code that is tried again, and of one that is not.
#[tokio::test(start_paused = true)]
async fn a_server_that_says_not_to_is_obeyed() {
    for code in [Grpc::Unavailable, Grpc::NotFound] {
        let allowance = allowance();
        let failure = Failure {
            pushback: Some(Pushback::Never),
            ..failure(code)
        };
        let now = Instant::now();
        let next = Course::default().after(failure, &policy(3), EASY, &allowance, now);
        assert_eq!(Next::Stop(Stop::Refused(Why::Pushback)), next);
        assert!((allowance.tokens.left() - 9.0).abs() < 1e-9);
    }
    // A pause that nobody can mean.
    let failure = pushed(Pushback::After(Duration::from_hours(1)));
    let now = Instant::now();
    let next = Course::default().after(failure, &policy(3), EASY, &allowance(), now);
    assert_eq!(Next::Stop(Stop::Refused(Why::Pushback)), next);
}

/// Goal: the header says when, and the details of the status where there is no header.
/// Method: each alone, both, and what cannot be read.
#[test]
fn the_header_says_when_and_else_the_details() {
    let busy = status::trailers(&status::busy("no place", 250 * MS));
    let with = |values: &[&'static str]| {
        let mut trailers: HeaderMap = busy.clone();
        trailers.remove(PUSHBACK);
        for value in values {
            trailers.append(PUSHBACK, HeaderValue::from_static(value));
        }
        pushback::read(&trailers)
    };
    assert_eq!(Some(Pushback::After(250 * MS)), with(&[]));
    assert_eq!(Some(Pushback::After(1_000 * MS)), with(&["1000"]));
    assert_eq!(Some(Pushback::After(Duration::ZERO)), with(&["0"]));
    for never in [&["-1"][..], &["xxx"], &["1000", "1000"]] {
        assert_eq!(Some(Pushback::Never), with(never));
    }
    assert_eq!(None, pushback::read(&HeaderMap::new()));
}

/// Goal: what stands against another try is told apart.
/// Method: each alone.
#[tokio::test(start_paused = true)]
async fn each_reason_against_another_try_holds_alone() {
    let after = |failure, circumstances| {
        let now = Instant::now();
        Course::default().after(failure, &policy(3), circumstances, &allowance(), now)
    };
    let unavailable = failure(Grpc::Unavailable);
    let refused = |reason| Next::Stop(Stop::Refused(reason));
    let cases = [
        (
            Why::Chain,
            Circumstances {
                in_retry: true,
                ..EASY
            },
        ),
        (
            Why::Replay,
            Circumstances {
                replayable: false,
                ..EASY
            },
        ),
        // The shortest pause is 40 ms.
        (
            Why::Deadline,
            Circumstances {
                left: Some(39 * MS),
                ..EASY
            },
        ),
    ];
    for (reason, circumstances) in cases {
        assert_eq!(refused(reason), after(unavailable, circumstances));
    }
    let enough = Circumstances {
        left: Some(61 * MS),
        ..EASY
    };
    assert!(matches!(after(unavailable, enough), Next::Retry(_)));
    let late = Circumstances {
        left: Some(1_000 * MS),
        ..EASY
    };
    let pushback = pushed(Pushback::After(1_000 * MS));
    assert_eq!(refused(Why::Deadline), after(pushback, late));

    for code in (1..17).map(Grpc::from_i32) {
        let expected = code == Grpc::Unavailable;
        let retried = matches!(after(failure(code), EASY), Next::Retry(_));
        assert_eq!(expected, retried, "{code:?}");
    }
    // The time of an attempt is up, whatever codes are tried again.
    let slow = Failure {
        timed_out: true,
        ..failure(Grpc::DeadlineExceeded)
    };
    assert!(matches!(after(slow, EASY), Next::Retry(_)));
}

/// Goal: a quota that is spent is tried again only when the server says when.
/// Method: `RESOURCE_EXHAUSTED` among the codes, with pushback and without.
#[tokio::test(start_paused = true)]
async fn a_spent_quota_is_tried_again_only_when_told() {
    let retry = Config {
        codes: vec![Code::ResourceExhausted],
        ..Config::default()
    };
    let policy = Policy::new(&retry, &Hedge::default());
    let after = |pushback| {
        let failure = Failure {
            pushback,
            ..failure(Grpc::ResourceExhausted)
        };
        Course::default().after(failure, &policy, EASY, &allowance(), Instant::now())
    };
    assert_eq!(Next::Stop(Stop::Final), after(None));
    assert_eq!(Next::Retry(5 * MS), after(Some(Pushback::After(5 * MS))));
}

/// Goal: only what its contract, or who runs the service, calls harmless is tried again, and only
/// what has no effect at all is hedged.
/// Method: each promise under each policy.
#[test]
fn the_contract_decides_how_often_a_call_is_sent() {
    let ways = |policy: Policy| [Unknown, Idempotent, NoSideEffects].map(|it| policy.way(it));
    assert_eq!([Way::Once, Way::Retried, Way::Retried], ways(policy(3)));
    assert_eq!([Way::Once; 3], ways(policy(1)));
    let claimed = Config {
        idempotent: true,
        ..Config::default()
    };
    let claimed = Policy::new(&claimed, &Hedge::default());
    assert_eq!([Way::Retried; 3], ways(claimed));
    assert_eq!([Way::Once, Way::Once, Way::Hedged], ways(hedged(2)));
}

/// Goal: retries are a share of the calls, to one, and a reserve.
/// Method: Finagle's ratios, ten thousand calls that all fail, frozen time; then a reserve.
#[tokio::test(start_paused = true)]
async fn retries_are_a_share_of_the_calls() {
    for (ratio, expected) in [
        (0.1, 1_000),
        (0.25, 2_500),
        (0.5, 5_000),
        (0.75, 7_500),
        (0.99, 9_900),
        (0.001, 10),
    ] {
        for (reserve, window, more) in [(0, 10, 0_u32), (5, 10, 50), (5, 1_000, 300), (5, 0, 5)] {
            let share = Share {
                ratio,
                reserve,
                window: Duration::from_secs(window),
            };
            let tokens = Tokens::new(1_000_000, 0);
            let allowance = allowance().with(tokens, Budget::new(share));
            let mut server = Server::new(|_| Grpc::Unavailable);
            for _ in 0..10_000 {
                server.call(&policy(5), &allowance);
            }
            let retries = u32::try_from(server.attempts).unwrap() - 10_000;
            let off = retries.abs_diff(expected + more);
            assert!(off <= 1, "{ratio}, {reserve}, {window}: {retries}");
        }
    }
}

/// Goal: an outage costs a fifth more than its calls and not four times as much; with the tokens
/// nearly nothing more.
/// Method: a minute of a thousand calls a second that all fail.
#[tokio::test(start_paused = true)]
async fn an_outage_is_not_made_worse() {
    let calls = 60_000;
    let attempts = |allowance: Allowance| async move {
        let mut server = Server::new(|_| Grpc::Unavailable);
        for number in 0..calls {
            server.call(&policy(4), &allowance);
            if number % 100 == 99 {
                tokio::time::advance(100 * MS).await;
            }
        }
        f64::from(u32::try_from(server.attempts).unwrap()) / f64::from(calls)
    };
    let unbounded = attempts(generous()).await;
    assert!((unbounded - 4.0).abs() < 1e-9, "{unbounded}");
    let budget = allowance().with(Tokens::new(1_000_000, 100), Budget::default());
    let budget = attempts(budget).await;
    assert!((1.15..=1.25).contains(&budget), "{budget}");
    let both = attempts(allowance()).await;
    assert!(both <= 1.001, "{both}");
}

//! How an open breaker finds out whether it may close.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use futures_util::FutureExt as _;
use tokio::{sync::Notify, task::JoinSet};

use super::*;

/// Goal: open for a pause, then one call, then open for twice as long; and closed once one succeeds.
/// Method: two failures; the clock in halves of seconds; a call of before that ends well meanwhile.
#[tokio::test(start_paused = true)]
async fn one_call_tries_again_after_each_pause() {
    let breaker = breaker(in_a_row(2));
    let straggler = breaker.admit().unwrap();
    calls(&breaker, 2, Verdict::Hard);
    assert_eq!(0, passing(&breaker, 10).len());
    time::advance(SECOND / 2).await;
    assert_eq!(0, passing(&breaker, 10).len());
    time::advance(SECOND / 2).await;
    probe(&breaker).end(Verdict::Hard);
    assert_eq!(0, passing(&breaker, 10).len());
    time::advance(SECOND).await;
    straggler.end(Verdict::Success);
    assert_eq!(0, passing(&breaker, 10).len(), "one of before says nothing");
    time::advance(SECOND).await;
    probe(&breaker).end(Verdict::Success);
    assert_eq!(State::Closed, breaker.state());
    assert_eq!(10, passing(&breaker, 10).len());
}

/// Goal: pauses double up to the longest, and begin anew after a success.
/// Method: calls that fail, one after each pause; then one that succeeds, and failures again.
#[tokio::test(start_paused = true)]
async fn pauses_double_and_begin_anew() {
    let breaker = opened(Config {
        pause_max: 5 * SECOND,
        ..in_a_row(1)
    });
    for pause in [1, 2, 4, 5, 5] {
        let at = breaker.next_probe_at().unwrap();
        assert_eq!(pause * SECOND, at - Instant::now());
        time::sleep_until(at).await;
        probe(&breaker).end(Verdict::Hard);
    }
    time::sleep_until(breaker.next_probe_at().unwrap()).await;
    probe(&breaker).end(Verdict::Success);
    assert_eq!(None, breaker.next_probe_at());
    call(&breaker, Verdict::Hard);
    let pause = breaker.next_probe_at().unwrap() - Instant::now();
    assert_eq!(SECOND, pause);
}

/// Goal: no pause is cut short by the parts of a millisecond.
/// Method: failures between two of them; the pause less a moment, and the whole.
#[tokio::test(start_paused = true)]
async fn no_pause_is_cut_short() {
    let breaker = breaker(in_a_row(1));
    time::advance(Duration::from_micros(300)).await;
    call(&breaker, Verdict::Hard);
    time::advance(Duration::from_micros(999_900)).await;
    assert_eq!(0, passing(&breaker, 10).len());
    time::advance(Duration::from_millis(1)).await;
    drop(probe(&breaker));
}

/// Goal: many breakers that open at once do not all try again at once.
/// Method: a thousand, seeded; their pauses against 0.8 to 1.2 of the plain one.
#[tokio::test(start_paused = true)]
async fn pauses_are_spread() {
    fastrand::seed(11);
    let pauses = (0..1_000).map(|_| {
        let breaker = opened(Config {
            pause_jitter: 0.2,
            ..in_a_row(1)
        });
        let pause = breaker.next_probe_at().unwrap() - Instant::now();
        pause.as_secs_f64()
    });
    let (least, most) = pauses.fold((f64::MAX, 0.0_f64), |(least, most), pause| {
        (least.min(pause), most.max(pause))
    });
    assert!((0.8..0.82).contains(&least), "{least}");
    assert!((1.18..=1.201).contains(&most), "{most}");
}

/// Goal: whoever asked for a longer pause gets it, within bounds.
/// Method: a soft end that asks for less, for more, and for more than the longest.
#[tokio::test(start_paused = true)]
async fn a_pause_that_is_asked_for_is_kept() {
    for (asked, expected) in [(1, 2), (30, 30), (1_000, 100)] {
        let breaker = opened(in_a_row(1));
        time::advance(SECOND).await;
        probe(&breaker).end(Verdict::Soft(Some(asked * SECOND)));
        let pause = breaker.next_probe_at().unwrap() - Instant::now();
        assert_eq!(expected * SECOND, pause);
    }
}

/// Goal: a call that tries again and is given up lets the next one try, at once.
/// Method: a permit dropped, ends that say nothing, and a future dropped while it waits.
#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_up_hands_its_place_on() {
    let breaker = opened(in_a_row(1));
    time::advance(SECOND).await;
    drop(probe(&breaker));
    probe(&breaker).end(Verdict::Ignored);
    probe(&breaker).end(Verdict::Unserved);
    let mut hangs =
        Box::pin(breaker.call(std::future::pending::<Result<(), Open>>, |_| Verdict::Hard));
    assert!(hangs.as_mut().now_or_never().is_none());
    assert!(breaker.admit().is_err(), "one at a time");
    drop(hangs);
    assert_eq!(State::HalfOpen, breaker.state());
    probe(&breaker).end(Verdict::Success);
    assert_eq!(State::Closed, breaker.state());
}

/// Goal: a call that tries again and never ends does not keep the breaker from closing.
/// Method: one that is held for ever; then the next, and the end of the first after all.
#[tokio::test(start_paused = true)]
async fn a_probe_that_never_ends_is_waited_for_so_long() {
    let breaker = opened(Config {
        probe_time_max: 5 * SECOND,
        ..in_a_row(1)
    });
    time::advance(SECOND).await;
    let lost = probe(&breaker);
    time::advance(Duration::from_millis(4_999)).await;
    assert_eq!(0, passing(&breaker, 10).len());
    time::advance(Duration::from_millis(1)).await;
    let next = probe(&breaker);
    lost.end(Verdict::Hard);
    assert_eq!(
        State::HalfOpen,
        breaker.state(),
        "it was waited for long enough"
    );
    next.end(Verdict::Success);
    assert_eq!(State::Closed, breaker.state());
}

/// Goal: a call that passed before it opened decides nothing while another tries again.
/// Method: calls of before that succeed and fail, with the one that tries under way.
#[tokio::test(start_paused = true)]
async fn calls_of_before_do_not_decide() {
    for verdict in [Verdict::Success, Verdict::Hard, Verdict::Soft(None)] {
        let breaker = breaker(in_a_row(2));
        let stragglers = passing(&breaker, 3);
        calls(&breaker, 2, Verdict::Hard);
        time::advance(SECOND).await;
        let trying = probe(&breaker);
        for straggler in stragglers {
            straggler.end(verdict);
        }
        assert_eq!(State::HalfOpen, breaker.state(), "{verdict:?}");
        assert_eq!(0, passing(&breaker, 10).len());
        trying.end(Verdict::Success);
        assert_eq!(State::Closed, breaker.state(), "{verdict:?}");
    }
}

/// Goal: of all calls that wait for the pause to end, one reaches the service.
/// Method: a thousand at once, over a service that answers once all others were refused.
#[tokio::test(start_paused = true)]
async fn of_a_thousand_calls_one_tries_again() {
    let breaker = opened(in_a_row(1));
    time::advance(SECOND).await;
    let (reached, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let mut calls = JoinSet::new();
    for _ in 0..1_000 {
        let (breaker, reached, answer) = (breaker.clone(), reached.clone(), answer.clone());
        calls.spawn(async move {
            let work = async || {
                reached.fetch_add(1, Ordering::Relaxed);
                answer.notified().await;
                Ok::<_, Open>(())
            };
            breaker.call(work, |_| Verdict::Success).await
        });
    }
    for _ in 0..999 {
        let refused = calls.join_next().await.unwrap().unwrap();
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    }
    assert_eq!(1, reached.load(Ordering::Relaxed));
    answer.notify_one();
    assert!(calls.join_next().await.unwrap().unwrap().is_ok());
    assert_eq!(State::Closed, breaker.state());
}

/// Goal: the same of calls on several processors.
/// Method: eight threads that ask a thousand times each, a hundred times over.
#[tokio::test(start_paused = true)]
async fn of_many_threads_one_tries_again() {
    let config = in_a_row(1);
    for _ in 0..100 {
        let begin = Instant::now();
        let core = Core::new(begin);
        let admission = core.admit(begin, &config).unwrap();
        let ended = Ended {
            verdict: Verdict::Hard,
            took: SECOND,
            now: begin,
        };
        assert!(core.end(admission.ticket, ended, &config).is_some());
        let ask = || (0..1_000).flat_map(|_| core.admit(begin + SECOND, &config));
        let count = || ask().count();
        let passed = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(count)).collect();
            let counts = threads.into_iter().map(|thread| thread.join().unwrap());
            counts.sum::<usize>()
        });
        assert_eq!(1, passed);
    }
}

/// Goal: whoever is refused is told when another try is worth while.
/// Method: refusals at once, later, and while another call tries; the status of one.
#[tokio::test(start_paused = true)]
async fn a_refusal_says_when_to_come_back() {
    let breaker = opened(Config {
        pause_min: 4 * SECOND,
        ..in_a_row(1)
    });
    let until = Instant::now() + 4 * SECOND;
    for left in [4, 3, 2, 1] {
        let open = breaker.admit().unwrap_err();
        assert_eq!((left * SECOND, until), (open.pause, open.until));
        let status = open.status("the bank is away");
        assert_eq!(tonic::Code::Unavailable, status.code());
        let millis = (left * 1_000).to_string();
        let told = status.metadata().get(crate::status::PUSHBACK).unwrap();
        assert_eq!(millis.as_bytes(), told.as_encoded_bytes());
        assert!(breaker.is_open(Instant::now()));
        time::advance(SECOND).await;
    }
    assert!(!breaker.is_open(Instant::now()));
    assert!(breaker.check().is_ok(), "and none passed by that");
    let trying = probe(&breaker);
    assert!(breaker.is_open(Instant::now()));
    let open = breaker.admit().unwrap_err();
    assert_eq!((4 * SECOND, State::HalfOpen), (open.pause, open.state));
    assert_eq!(Instant::now() + Duration::from_mins(1), open.until);
    drop(trying);
}

//! Calls that only read are sent to several instances, where that is asked for.

use super::{
    net::addr,
    retries::{READS, UNARY},
    script::{Reply, Script},
    *,
};
use crate::retry;

const ADDRS: [u16; 4] = [1, 2, 3, 4];

type Answers = fn(usize) -> Reply;

/// Four endpoints, and a caller that hedges with up to four attempts, half a second apart.
async fn hedging(net: &Net, answers: Answers) -> (Caller, Script) {
    let hedge = retry::Hedge {
        attempts_max: 4,
        ..retry::Hedge::default()
    };
    hedging_by(net, hedge, answers).await
}

/// The same by these settings.
async fn hedging_by(net: &Net, hedge: retry::Hedge, answers: Answers) -> (Caller, Script) {
    let addrs = ADDRS.map(addr);
    let script = Script::start(net, &addrs, answers);
    let policy = Policy {
        hedge,
        ..Policy::default()
    };
    let caller = Caller::under(net, &addrs, policy, |_| {});
    for addr in addrs {
        caller.until(addr, Connectivity::Ready).await;
    }
    (caller, script)
}

/// When each request came, in milliseconds.
fn times(script: &Script, began: Instant) -> Vec<u128> {
    let seen = script.seen().into_iter();
    seen.map(|seen| (seen.at - began).as_millis()).collect()
}

/// Goal: attempts go out one delay apart, each to another endpoint; the first answer ends the
/// others, whose streams are reset.
/// Method: three that hang and a fourth that answers; what is out at each moment.
#[tokio::test(start_paused = true)]
async fn the_first_answer_ends_the_others() {
    let net = Net::default();
    let (caller, script) = hedging(&net, |number| match number {
        0..3 => Reply::Hangs,
        _ => Reply::Serves,
    })
    .await;
    let began = Instant::now();
    let watched = script.clone();
    let out = spawn(async move {
        let mut out = Vec::new();
        for at in [1, 499, 503, 999, 1_003, 1_499] {
            tokio::time::sleep_until(began + at * MS).await;
            out.push(watched.begun());
        }
        out
    });
    caller.say_once(READS).await.unwrap();
    let took = began.elapsed();
    assert!((1_500 * MS..=1_510 * MS).contains(&took), "{took:?}");
    assert_eq!(vec![1, 1, 2, 2, 3, 3], out.await.unwrap());
    assert_eq!(4, script.begun());
    tokio::time::sleep(10 * MS).await;
    assert_eq!(3, script.resets());
    let seen = script.seen();
    let previous: Vec<_> = seen.iter().map(|seen| seen.previous.as_deref()).collect();
    assert_eq!(vec![None, Some("1"), Some("2"), Some("3")], previous);
    let distinct: std::collections::HashSet<_> = seen.iter().map(|seen| seen.addr).collect();
    assert_eq!(4, distinct.len());
    assert!(seen.iter().all(|one| one.body == seen[0].body));
    caller.stop().await;
}

/// Goal: a failure that is not fatal brings the next attempt at once, and a pause that the server
/// names, after it; a fatal one ends all.
/// Method: each at the first attempt.
#[tokio::test(start_paused = true)]
async fn a_failure_decides_about_the_next_attempt() {
    let cases: [(Answers, Code, &[u128]); 4] = [
        (
            |number| match number {
                0 => Reply::Fails(Code::Unavailable, &[]),
                _ => Reply::Serves,
            },
            Code::Ok,
            &[0, 0],
        ),
        (
            |number| match number {
                0 => Reply::Fails(Code::Unavailable, &["700"]),
                _ => Reply::Serves,
            },
            Code::Ok,
            &[0, 700],
        ),
        (
            |number| match number {
                0 => Reply::Fails(Code::Unavailable, &["-1"]),
                _ => Reply::Serves,
            },
            Code::Unavailable,
            &[0],
        ),
        (
            |number| match number {
                0 => Reply::Hangs,
                1 => Reply::Fails(Code::NotFound, &[]),
                _ => Reply::Serves,
            },
            Code::NotFound,
            &[0, 500],
        ),
    ];
    for (answers, expected, sent) in cases {
        let net = Net::default();
        let (caller, script) = hedging(&net, answers).await;
        let began = Instant::now();
        assert_eq!(expected, code(&caller.say_once(READS).await));
        let times = times(&script, began);
        assert_eq!(sent.len(), times.len(), "{times:?}");
        for (time, sent) in times.iter().zip(sent) {
            assert!((*sent..=sent + 3).contains(time), "{times:?}");
        }
        caller.stop().await;
    }
}

/// Goal: what could do something twice is never sent to two.
/// Method: a method that only promises that twice is once; it hangs.
#[tokio::test(start_paused = true)]
async fn only_what_reads_is_hedged() {
    let net = Net::default();
    let (caller, script) = hedging(&net, |_| Reply::Hangs).await;
    let call = tokio::time::timeout(3_000 * MS, caller.say_once(UNARY)).await;
    assert!(call.is_err());
    assert_eq!(1, script.begun());
    caller.stop().await;
}

/// Goal: a caller that goes away, and a deadline that passes, leave no attempt behind.
/// Method: four that hang, dropped; and four until the deadline.
#[tokio::test(start_paused = true)]
async fn no_attempt_outlives_its_call() {
    for dropped in [true, false] {
        let net = Net::default();
        let (caller, script) = hedging(&net, |_| Reply::Hangs).await;
        if dropped {
            let call = tokio::time::timeout(2_000 * MS, caller.say_once(READS)).await;
            assert!(call.is_err());
        } else {
            let ended = caller.check("x").await;
            assert_eq!(Code::DeadlineExceeded, code(&ended));
        }
        tokio::time::sleep(10 * MS).await;
        assert_eq!((4, 4), (script.begun(), script.resets()));
        caller.stop().await;
    }
}

/// Goal: a request that cannot be kept whole goes to one instance, whole.
/// Method: one above the bound, which hangs at first; what the peer read.
#[tokio::test(start_paused = true)]
async fn a_request_too_large_to_be_kept_is_sent_once() {
    let net = Net::default();
    let (caller, script) = hedging(&net, |_| Reply::Hangs).await;
    let size = crate::transport::subchannel::REPLAY_MAX + 1;
    let request = HealthCheckRequest {
        service: "x".repeat(size),
    };
    let call = caller.say(READS, tokio_stream::once(request));
    assert!(tokio::time::timeout(3_000 * MS, call).await.is_err());
    assert_eq!(1, script.begun());
    assert!(script.seen()[0].body.len() > size);
    caller.stop().await;
}

/// Goal: an attempt that failed holds nothing while the next is awaited: no stream, and no place among
/// the calls of its endpoint.
/// Method: two attempts, of which the first fails in each way that leaves something open, and the second
/// hangs; calls in flight at all endpoints.
#[tokio::test(start_paused = true)]
async fn what_failed_is_gone_while_others_are_awaited() {
    let ways: [Answers; 3] = [
        |number| match number {
            0 => Reply::Fails(Code::Unavailable, &[]),
            _ => Reply::Hangs,
        },
        |number| match number {
            0 => Reply::FailsAfterHeaders(Duration::ZERO, Code::Unavailable),
            _ => Reply::Hangs,
        },
        |number| match number {
            0 => Reply::IsNoGrpc(503),
            _ => Reply::Hangs,
        },
    ];
    for answers in ways {
        let net = Net::default();
        let hedge = retry::Hedge {
            attempts_max: 2,
            ..retry::Hedge::default()
        };
        let (caller, script) = hedging_by(&net, hedge, answers).await;
        let channel = caller.clients.channel("peer", &METHODS);
        let mut client = HealthClient::new(channel);
        let call = spawn(async move { check(&mut client, "x").await });
        tokio::time::sleep(100 * MS).await;
        assert_eq!(2, script.begun());
        let pending: Vec<_> = caller.endpoints().iter().map(|it| it.pending).collect();
        assert_eq!(1, pending.iter().sum::<usize>(), "{pending:?}");
        call.abort();
        caller.stop().await;
    }
}

/// Goal: a delay that is measured follows the method: the setting at first, and what calls take after a
/// hundred; what its hedges are faster than counts as slow.
/// Method: a hundred calls of 20 ms, then one whose first attempt hangs; then a hundred of 60 ms, and
/// another one.
#[tokio::test(start_paused = true)]
async fn the_delay_follows_the_method() {
    let net = Net::default();
    let hedge = retry::Hedge {
        attempts_max: 2,
        delay_from: retry::DelayFrom::P95,
        ..retry::Hedge::default()
    };
    let (caller, script) = hedging_by(&net, hedge, |number| match number {
        0 | 101 | 142 => Reply::Hangs,
        1 | 102 | 143 => Reply::Serves,
        2..101 => Reply::ServesLate(20 * MS),
        _ => Reply::ServesLate(15 * MS),
    })
    .await;
    let hedged = |sent: usize| {
        let seen = script.seen();
        let (first, second) = (seen[sent - 2].at, seen[sent - 1].at);
        assert_eq!(Some("1"), seen[sent - 1].previous.as_deref());
        (second - first).as_millis()
    };
    caller.say_once(READS).await.unwrap();
    assert_eq!(2, script.begun());
    assert!((500..=503).contains(&hedged(2)), "{}", hedged(2));
    for _ in 0..99 {
        caller.say_once(READS).await.unwrap();
    }
    assert_eq!(101, script.begun());
    // The slow one is one of a hundred.
    caller.say_once(READS).await.unwrap();
    assert!((20..=24).contains(&hedged(103)), "{}", hedged(103));
    for _ in 0..39 {
        caller.say_once(READS).await.unwrap();
    }
    assert_eq!(142, script.begun());
    caller.say_once(READS).await.unwrap();
    // Of 140 calls, the slowest 7 are those of 500 ms, of 20 and some of its kind.
    assert!((20..=24).contains(&hedged(144)), "{}", hedged(144));
    caller.stop().await;
}

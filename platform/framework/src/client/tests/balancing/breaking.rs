//! Endpoints whose breakers open: what callers notice of them, which is nothing.

use std::task::Poll;

use super::{
    super::{
        peer::OPEN,
        retries::{DOWNLOADS, TALKS, UNARY, UPLOADS},
        script::{Reply, Script},
    },
    *,
};
use crate::config::Publisher;

/// A breaker that is open for exactly `pause`, then twice as long each time.
fn pausing(pause: Duration) -> impl FnOnce(&mut Config) {
    move |config| {
        config.throttle.enabled = false;
        config.bulkhead.calls_max = 10_000;
        config.balance.breaker.pause_min = pause;
        config.balance.breaker.pause_max = 10 * pause;
        config.balance.alone_pause_max = 10 * pause;
        config.balance.breaker.pause_jitter = 0.0;
    }
}

/// Calls that fail, one after the other, until the breaker of the only endpoint opens.
async fn trip(peer: &Peer, caller: &Caller) {
    peer.fail(true);
    for _ in 0..5 {
        assert_eq!(Code::Internal, code(&caller.check("x").await));
    }
}

/// Goal: an endpoint that fails calls in a row gets no more of them, however many there are.
/// Method: the second of two fails its part of twenty calls; then a hundred calls, and so many at
/// once that even the penalty for failing would be less than to wait for the other.
#[tokio::test(start_paused = true)]
async fn one_with_an_open_breaker_is_not_picked() {
    fastrand::seed(7);
    let (peers, caller) = peers::<2>(pausing(60 * SECOND)).await;
    peers[1].fail(true);
    let failed = burst(&caller, 20).await;
    assert!((5..=15).contains(&failed), "{failed}");
    let before = peers[1].handled_count();
    for _ in 0..100 {
        caller.check("x").await.unwrap();
    }
    assert_eq!(0, burst(&caller, 1_500).await);
    assert_eq!(before, peers[1].handled_count());

    let told = told(&caller, Kind::BreakerChanged);
    assert_eq!(vec!["open for 1m at most: 5 failures in a row"], told);
    caller.stop().await;
}

/// Goal: where the only endpoint has an open breaker, calls wait as for one that is not connected,
/// and as long; and it serves again as soon as one call has found that it does.
/// Method: a pause of ten seconds, calls that wait for three, one call after the pause.
#[tokio::test(start_paused = true)]
async fn an_open_breaker_is_not_ready() {
    let (peers, caller) = peers::<1>(pausing(10 * SECOND)).await;
    trip(&peers[0], &caller).await;
    let opened = Instant::now();
    let outcome = caller.check("waits").await;
    assert_eq!(Code::Unavailable, code(&outcome));
    let message = outcome.unwrap_err().message().to_owned();
    assert!(message.contains("fails its calls"), "{message}");
    let waited = opened.elapsed();
    assert!(
        waited >= 3 * SECOND && waited < 3 * SECOND + 2 * MS,
        "{waited:?}"
    );

    let again = Instant::now();
    assert_eq!(Code::Unavailable, code(&caller.check("at once").await));
    assert!(again.elapsed() < 2 * MS, "{:?}", again.elapsed());
    peers[0].fail(false);
    time::sleep_until(opened + 9 * SECOND).await;
    assert_eq!(Code::Unavailable, code(&caller.check("early").await));
    time::sleep_until(opened + 10 * SECOND + MS).await;
    caller.check("finds out").await.unwrap();
    caller.check("goes on").await.unwrap();
    assert_eq!(7, peers[0].handled_count());
    caller.stop().await;
}

/// Goal: after the pause exactly one call finds out, however many wait; they go on when it succeeds,
/// and take nothing meanwhile.
/// Method: a hundred calls wait for a breaker that is open for a second; one of them counts how often
/// it is looked at.
#[tokio::test(start_paused = true)]
async fn one_call_finds_out() {
    let (peers, caller) = peers::<1>(pausing(SECOND)).await;
    trip(&peers[0], &caller).await;
    let opened = Instant::now();
    peers[0].fail(false);
    let calls = spawn({
        let calls: Vec<_> = (0..100).map(|_| caller.client()).collect();
        async move {
            let calls = calls.into_iter().map(|mut client| async move {
                let mut call = std::pin::pin!(check(&mut client, "waits"));
                let mut polls = 0;
                let outcome = std::future::poll_fn(|cx| {
                    polls += 1;
                    call.as_mut().poll(cx)
                });
                outcome.await.map(|()| polls)
            });
            futures_util::future::join_all(calls).await
        }
    });
    time::sleep_until(opened + SECOND + 5 * MS).await;
    assert_eq!(5 + 1, peers[0].handled_count());
    let outcomes = calls.await.unwrap();
    let took = opened.elapsed();
    assert!(took < SECOND + 50 * MS, "{took:?}");
    for outcome in outcomes {
        let polls = outcome.unwrap();
        assert!(polls < 20, "{polls}");
    }
    assert_eq!(5 + 100, peers[0].handled_count());
    let told = told(&caller, Kind::BreakerChanged);
    let states: Vec<_> = told
        .iter()
        .filter_map(|it| it.split([' ', ':']).next())
        .collect();
    assert_eq!(["open", "half_open", "closed"], *states);
    caller.stop().await;
}

/// Goal: where the call that finds out fails, the others wait on, and the pause is longer.
/// Method: a breaker that is open for a second, at a peer that goes on failing.
#[tokio::test(start_paused = true)]
async fn one_that_still_fails_stays_out_for_longer() {
    let (peers, caller) = peers::<1>(pausing(SECOND)).await;
    trip(&peers[0], &caller).await;
    assert_eq!(10, burst(&caller, 10).await);
    assert_eq!(5 + 1, peers[0].handled_count());
    let (entries, _) = caller.journal.watch();
    let last = entries.last().unwrap();
    assert_eq!("open for 2s at most: a call failed again", last.detail);
    assert_eq!(format!("peer/{}", addr(1)), last.subject);
    caller.stop().await;
}

/// Goal: a call that is handed on for somebody else, and was to find out, says nothing when it fails: it
/// may do so as often as its caller likes. It leaves that to the next.
/// Method: a breaker that is open for a second; a channel without a contract, at a peer that still fails;
/// then a call of our own at one that does not.
#[tokio::test(start_paused = true)]
async fn a_failed_call_of_others_finds_nothing_out() {
    let (peers, caller) = peers::<1>(pausing(SECOND)).await;
    trip(&peers[0], &caller).await;
    time::sleep(SECOND + MS).await;
    let mut others = HealthClient::new(caller.clients.channel("peer", &[]));
    assert_eq!(Code::Internal, code(&check(&mut others, "x").await));
    assert_eq!(5 + 1, peers[0].handled_count());
    let told = told(&caller, Kind::BreakerChanged);
    assert!(told.iter().all(|it| !it.contains("again")), "{told:?}");

    peers[0].fail(false);
    let began = Instant::now();
    caller.check("x").await.unwrap();
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    assert!(!caller.endpoints()[0].breaker.is_shut());
    caller.stop().await;
}

/// Goal: a call that was to find out and is given up leaves that to the next, at once.
/// Method: give up after a millisecond; another call waits already.
#[tokio::test(start_paused = true)]
async fn a_call_given_up_leaves_it_to_the_next() {
    let (peers, caller) = peers::<1>(pausing(SECOND)).await;
    trip(&peers[0], &caller).await;
    peers[0].fail(false);
    time::sleep(SECOND + MS).await;
    let mut client = caller.client();
    let mut first = Box::pin(check(&mut client, "given up"));
    std::future::poll_fn(|cx| {
        assert!(first.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    let mut client = caller.client();
    let second = spawn(async move { check(&mut client, "waits").await });
    time::sleep(MS).await;
    let given_up = Instant::now();
    drop(first);
    second.await.unwrap().unwrap();
    assert!(given_up.elapsed() < 15 * MS, "{:?}", given_up.elapsed());
    caller.stop().await;
}

/// Goal: one that serves again comes to its share slowly.
/// Method: the weights of two, long after they joined, one of which has been out.
#[tokio::test(start_paused = true)]
async fn one_that_was_out_begins_slowly() {
    fastrand::seed(7);
    let (peers, caller) = peers::<2>(pausing(SECOND)).await;
    time::sleep(31 * SECOND).await;
    peers[1].fail(true);
    burst(&caller, 20).await;
    peers[1].fail(false);
    time::sleep(SECOND).await;
    burst(&caller, 20).await;
    let weights: Vec<_> = caller.endpoints().iter().map(|it| it.weight).collect();
    assert!((weights[0] - 1.0).abs() < 1e-6, "{weights:?}");
    assert!(weights[1] < 0.15, "{weights:?}");
    caller.stop().await;
}

/// Goal: where the breakers of all endpoints are open, calls go to them all the same, and see what
/// they answer.
/// Method: two peers that fail; then they do well.
#[tokio::test(start_paused = true)]
async fn where_all_are_open_calls_go_on() {
    fastrand::seed(7);
    let (peers, caller) = peers::<2>(pausing(60 * SECOND)).await;
    for peer in &peers {
        peer.fail(true);
    }
    burst(&caller, 40).await;
    time::sleep(MS).await;
    let panic = told(&caller, Kind::Panic);
    assert_eq!(vec!["0 of 2 endpoints are available"], panic);
    assert_eq!(Code::Internal, code(&caller.check("x").await));
    for peer in &peers {
        peer.fail(false);
    }
    assert_eq!(0, burst(&caller, 40).await);
    caller.stop().await;
}

/// Goal: the call that finds out has done so when its answer begins, however long that goes on; and
/// what was charged to the endpoint before is history.
/// Method: a stream that stays open finds out; then calls, and the latency by which it is picked.
#[tokio::test(start_paused = true)]
async fn a_stream_finds_out_when_its_answer_begins() {
    let (peers, caller) = peers::<1>(pausing(SECOND)).await;
    trip(&peers[0], &caller).await;
    peers[0].fail(false);
    time::sleep(SECOND + MS).await;
    let request = HealthCheckRequest {
        service: OPEN.to_owned(),
    };
    let mut stream = caller.client().watch(request).await.unwrap().into_inner();
    stream.message().await.unwrap().expect("a message");
    caller.check("goes on").await.unwrap();
    let latency = caller.endpoints()[0].latency.unwrap();
    assert!(latency < 15 * MS, "{latency:?}");
    drop(stream);
    caller.stop().await;
}

/// A caller of one endpoint whose answers follow `reply`, where calls mean this for its breaker.
async fn under(
    reply: Reply,
    policy: breaker::Policy,
    change: impl FnOnce(&mut Config),
) -> (Script, Caller, Publisher<BTreeMap<String, Policy>>) {
    let net = Net::default();
    let script = Script::start(&net, &[addr(1)], move |_| reply);
    let mut caller = Caller::with(&net, &[addr(1)], |config| {
        pausing(10 * SECOND)(config);
        change(config);
    });
    let publisher = Publisher::new(meaning(policy));
    let policies = Policies::new(&publisher.live());
    caller.clients = caller.clients.with_policies(policies);
    caller.until(addr(1), Connectivity::Ready).await;
    (script, caller, publisher)
}

/// The policies by which calls mean this.
fn meaning(breaker: breaker::Policy) -> BTreeMap<String, Policy> {
    let retry = crate::retry::Config {
        attempts_max: 1,
        ..crate::retry::Config::default()
    };
    let policy = Policy {
        retry,
        breaker,
        ..Policy::default()
    };
    BTreeMap::from([("*".to_owned(), policy)])
}

const UNCOUNTED: breaker::Policy = breaker::Policy {
    counted: false,
    slow_call: Duration::ZERO,
};

/// Goal: calls of a method whose policy says so open no breaker however they fail; others do.
/// Method: failures of each kind of call, with and without, and what the breaker is then.
#[tokio::test(start_paused = true)]
async fn what_is_not_counted_opens_no_breaker() {
    for kind in [UNARY, UPLOADS, DOWNLOADS, TALKS] {
        for policy in [breaker::Policy::default(), UNCOUNTED] {
            let reply = Reply::Fails(Code::Internal, &[]);
            let (_script, caller, _publisher) = under(reply, policy, |_| {}).await;
            for _ in 0..5 {
                assert_eq!(Code::Internal, code(&caller.say_once(kind).await));
            }
            if !policy.counted {
                for _ in 0..35 {
                    assert_eq!(Code::Internal, code(&caller.say_once(kind).await));
                }
            }
            let shut = caller.endpoints()[0].breaker.is_shut();
            assert_eq!(policy.counted, shut, "{kind}");
            caller.stop().await;
        }
    }
}

/// Goal: a call that counts for nothing closes a breaker all the same that is open, as its endpoint works
/// again; and its success hides no failures of those that count.
/// Method: four failures that count, successes that do not, and one more failure that opens it; after
/// the pause a call that does not count.
#[tokio::test(start_paused = true)]
async fn what_is_not_counted_still_finds_out() {
    let counted = breaker::Policy::default();
    let net = Net::default();
    let peer = Peer::start(&net, addr(1), Manners::default());
    let mut caller = Caller::with(&net, &[addr(1)], pausing(10 * SECOND));
    let mut publisher = Publisher::new(meaning(counted));
    let policies = Policies::new(&publisher.live());
    caller.clients = caller.clients.with_policies(policies);
    caller.until(addr(1), Connectivity::Ready).await;

    peer.fail(true);
    for _ in 0..4 {
        assert_eq!(Code::Internal, code(&caller.check("x").await));
    }
    peer.fail(false);
    publisher.publish(meaning(UNCOUNTED));
    caller.check("hides nothing").await.unwrap();
    assert!(!caller.endpoints()[0].breaker.is_shut());
    peer.fail(true);
    publisher.publish(meaning(counted));
    assert_eq!(Code::Internal, code(&caller.check("x").await));
    assert!(caller.endpoints()[0].breaker.is_shut());

    peer.fail(false);
    publisher.publish(meaning(UNCOUNTED));
    time::sleep(10 * SECOND + MS).await;
    caller.check("finds out").await.unwrap();
    assert!(!caller.endpoints()[0].breaker.is_shut());
    caller.stop().await;
}

/// Goal: a method says itself what is slow for it, more or less than its endpoint's breaker does.
/// Method: answers of 10 ms by each kind of call; a breaker that opens after three slow ones.
#[tokio::test(start_paused = true)]
async fn a_method_says_what_is_slow() {
    for (kind, of_breaker, of_method, opens) in [UNARY, UPLOADS, DOWNLOADS, TALKS]
        .into_iter()
        .flat_map(|kind| {
            let cases = [
                (0, 0, false),
                (0, 5, true),
                (0, 50, false),
                (5, 0, true),
                (5, 50, false),
                (50, 5, true),
            ];
            cases.map(|(breaker, method, opens)| (kind, breaker, method, opens))
        })
    {
        let reply = Reply::FailsAfterHeaders(10 * MS, Code::Ok);
        let policy = breaker::Policy {
            slow_call: of_method * MS,
            ..breaker::Policy::default()
        };
        let (_script, caller, _publisher) = under(reply, policy, |config| {
            config.balance.breaker.calls_min = 3;
            config.balance.breaker.slow_call = of_breaker * MS;
        })
        .await;
        for _ in 0..3 {
            let ended = caller.say_once(kind).await;
            // One message is missed there.
            assert!(
                matches!(code(&ended), Code::Ok | Code::Internal),
                "{ended:?}"
            );
        }
        let shut = caller.endpoints()[0].breaker.is_shut();
        assert_eq!(opens, shut, "{kind} {of_breaker} {of_method}");
        caller.stop().await;
    }
}

/// Goal: a stream that says nothing holds up what others wait for no longer than a call without a
/// deadline may take, and not for as long as a breaker bears.
/// Method: a stream that has headers and no message is the one that finds out; calls until one is
/// answered.
#[tokio::test(start_paused = true)]
async fn a_silent_stream_does_not_hold_up_what_it_finds_out() {
    let (peers, caller) = peers::<1>(pausing(SECOND)).await;
    trip(&peers[0], &caller).await;
    peers[0].fail(false);
    time::sleep(SECOND + MS).await;
    let begun = Instant::now();
    let request = HealthCheckRequest {
        service: QUIET.to_owned(),
    };
    let stream = caller.client().watch(request).await.unwrap();
    assert_eq!(Code::Unavailable, code(&caller.check("waits").await));
    patient(async {
        while caller.check("finds out").await.is_err() {
            time::sleep(100 * MS).await;
        }
    })
    .await;
    let took = begun.elapsed();
    assert!(took >= 5 * SECOND && took < 6 * SECOND, "{took:?}");
    drop(stream);
    caller.stop().await;
}

/// Goal: a target is ready where a call would be taken, be it to find out for a breaker.
/// Method: the only endpoint's breaker, while its pause goes on and after.
#[tokio::test(start_paused = true)]
async fn one_that_waits_for_a_call_is_ready() {
    let (peers, caller) = peers::<1>(pausing(SECOND)).await;
    let channel = caller.clients.channel("peer", &METHODS);
    assert!(channel.is_ready());
    trip(&peers[0], &caller).await;
    time::sleep(MS).await;
    assert!(!channel.is_ready());
    time::sleep(SECOND).await;
    assert!(channel.is_ready());
    caller.stop().await;
}

/// Goal: one that says that it serves again is who it was: what calls came to is held against it as
/// before. Whoever is there after a new connection is another, and begins anew.
/// Method: one of four fails its calls; it says that it does not serve, and that it does; then it is
/// restarted.
#[tokio::test(start_paused = true)]
async fn only_a_restart_begins_anew() {
    fastrand::seed(42);
    let net = Net::default();
    let manners = Manners {
        latency: 10 * MS,
        ..Manners::default()
    };
    let start = |number| Peer::start(&net, addr(number), manners);
    let mut peers = [1, 2, 3, 4].map(start);
    let caller = Caller::with(&net, &[1, 2, 3, 4].map(addr), |config| {
        pausing(600 * SECOND)(config);
        config.health = true;
    });
    for number in 1..=4 {
        caller.until(addr(number), Connectivity::Ready).await;
    }
    peers[3].fail(true);
    burst(&caller, 200).await;
    time::sleep(11 * SECOND).await;
    let held = || {
        let mut endpoints = caller.endpoints().into_iter();
        let it = endpoints.find(|it| it.addr == addr(4)).unwrap();
        (it.ejected.is_some(), it.breaker.is_shut())
    };
    assert_eq!((true, true), held());

    peers[3].tell_health(false);
    caller.until(addr(4), Connectivity::TransientFailure).await;
    peers[3].tell_health(true);
    caller.until(addr(4), Connectivity::Ready).await;
    time::sleep(MS).await;
    assert_eq!((true, true), held());

    peers[3].die();
    caller.until(addr(4), Connectivity::TransientFailure).await;
    peers[3] = start(4);
    caller.until(addr(4), Connectivity::Ready).await;
    time::sleep(MS).await;
    assert_eq!((false, false), held());
    let last = |kind| told(&caller, kind).pop();
    assert_eq!(Some("over: it was restarted".into()), last(Kind::Ejection));
    let breaker = last(Kind::BreakerChanged);
    assert_eq!(Some("closed: it was restarted".into()), breaker);
    caller.stop().await;
}

//! What a target is asked is bounded, and less while it fails.

use tonic_types::StatusExt as _;

use super::{
    net::{Net, addr},
    retries::{UNARY, WRITES},
    script::{Reply, Script},
    *,
};
use crate::{breaker::Mode, retry, testing::telemetry::capture};

/// A caller of one endpoint, whose breaker would stop what is to be counted.
fn guarded(net: &Net, retry: retry::Config) -> Caller {
    let policy = Policy {
        retry,
        ..Policy::default()
    };
    Caller::under(net, &[addr(1)], policy, |config| {
        config.balance.breaker.state = Mode::Disabled;
    })
}

fn reason(status: &Status) -> Option<String> {
    let details = status.get_error_details();
    details.error_info().map(|info| info.reason.clone())
}

/// Goal: no more calls are in flight than may be, to the end of their streams; one more is refused
/// at once, says when to come back, and is not tried again.
/// Method: two streams whose answers began, a third call, and another after one was dropped.
#[tokio::test(start_paused = true)]
async fn calls_in_flight_are_bounded_to_their_end() {
    let capture = capture();
    let net = Net::default();
    let script = Script::start(&net, &[addr(1)], |_| {
        Reply::FailsAfterHeaders(Duration::from_mins(1), Code::Ok)
    });
    let caller = Caller::under(&net, &[addr(1)], Policy::default(), |config| {
        config.bulkhead.calls_max = 2;
    });
    let mut client = caller.client();
    let mut streams = Vec::new();
    for _ in 0..2 {
        streams.push(
            patient(client.watch(HealthCheckRequest::default()))
                .await
                .unwrap(),
        );
    }
    let began = Instant::now();
    let refused = caller.check("x").await.unwrap_err();
    assert!(began.elapsed() < 10 * MS);
    assert_eq!(Code::Unavailable, refused.code());
    assert_eq!(Some("BULKHEAD"), reason(&refused).as_deref());
    let pushback = refused.metadata().get("grpc-retry-pushback-ms");
    assert_eq!("1000", pushback.unwrap());
    assert_eq!(2, script.begun());
    let labels = [("server_address", "peer"), ("reason", "bulkhead")];
    let name = "gantry_client_calls_refused_total";
    assert_eq!(Some(1.0), capture.value(name, &labels));

    streams.pop();
    streams.push(
        patient(client.watch(HealthCheckRequest::default()))
            .await
            .unwrap(),
    );
    drop(streams);
    caller.stop().await;
}

/// Goal: a target that fails is asked less, and never not at all; each refusal is told as ours, and
/// a method that works is asked as ever.
/// Method: a hundred failures of one method, then as many of it and some of another.
#[tokio::test(start_paused = true)]
async fn a_method_that_fails_is_asked_less() {
    fastrand::seed(37);
    let net = Net::default();
    let script = Script::start(&net, &[addr(1)], |_| Reply::Fails(Code::Internal, &[]));
    let caller = guarded(&net, retry::Config::default());
    let mut refused = 0;
    for _ in 0..200 {
        let status = caller.say_once(WRITES).await.unwrap_err();
        if reason(&status).as_deref() == Some("THROTTLED") {
            assert_eq!(Code::Unavailable, status.code());
            refused += 1;
        }
    }
    let sent = script.begun();
    assert_eq!(200, sent + refused);
    // Nine of ten, once it is seen.
    assert!((15..=80).contains(&sent), "{sent}");
    for _ in 0..9 {
        let status = caller.say_once(UNARY).await.unwrap_err();
        assert_eq!(Code::Internal, status.code());
    }
    caller.stop().await;

    let caller = Caller::with(&net, &[addr(1)], |config| {
        config.throttle.enabled = false;
        config.balance.breaker.state = Mode::Disabled;
    });
    for _ in 0..100 {
        let status = caller.say_once(WRITES).await.unwrap_err();
        assert_eq!(Code::Internal, status.code());
    }
    caller.stop().await;
}

/// Goal: calls that found no endpoint do not stand for calls that went well.
/// Method: a hundred while nobody listens; then somebody does, who fails every call.
#[tokio::test(start_paused = true)]
async fn what_was_never_sent_is_no_success() {
    fastrand::seed(37);
    let net = Net::default();
    let caller = guarded(&net, retry::Config::default());
    for _ in 0..100 {
        let status = caller.say_once(WRITES).await.unwrap_err();
        assert_eq!(Some("NO_ENDPOINT"), reason(&status).as_deref());
    }
    let script = Script::start(&net, &[addr(1)], |_| Reply::Fails(Code::Internal, &[]));
    caller.until(addr(1), Connectivity::Ready).await;
    let mut refused = 0;
    for _ in 0..100 {
        let status = caller.say_once(WRITES).await.unwrap_err();
        refused += usize::from(reason(&status).as_deref() == Some("THROTTLED"));
    }
    assert!(refused > 30, "{refused}");
    assert_eq!(100, refused + script.begun());
    caller.stop().await;
}

/// Goal: what hands on the calls of others is not stopped by what some of them do.
/// Method: a channel without a contract: streams beyond the bound, and failures beyond half.
#[tokio::test(start_paused = true)]
async fn calls_of_others_are_not_guarded() {
    let net = Net::default();
    let script = Script::start(&net, &[addr(1)], |number| match number {
        0 | 1 => Reply::FailsAfterHeaders(Duration::from_mins(1), Code::Ok),
        _ => Reply::Fails(Code::Internal, &[]),
    });
    let caller = Caller::with(&net, &[addr(1)], |config| {
        config.bulkhead.calls_max = 1;
    });
    let mut client = HealthClient::new(caller.clients.channel("peer", &[]));
    let mut streams = Vec::new();
    for _ in 0..2 {
        let watch = patient(client.watch(HealthCheckRequest::default()));
        streams.push(watch.await.unwrap());
    }
    for _ in 0..100 {
        assert_eq!(Code::Internal, code(&check(&mut client, "x").await));
    }
    assert_eq!(102, script.begun());
    drop(streams);
    caller.stop().await;
}

/// Goal: an outage is not made worse by those who call, and its end is seen soon.
/// Method: a hundred calls a second of up to four attempts, of which none succeeds for a minute; without
/// a breaker, and with the one there is.
#[tokio::test(start_paused = true)]
async fn an_outage_costs_no_more_than_its_calls_and_is_soon_over() {
    outage(Mode::Disabled).await;
    outage(Mode::Automatic).await;
}

async fn outage(breaker: Mode) {
    fastrand::seed(26);
    let net = Net::default();
    let began = Instant::now();
    let over = began + Duration::from_mins(1);
    let script = Script::start(&net, &[addr(1)], move |_| {
        if Instant::now() < over {
            Reply::Fails(Code::Unavailable, &[])
        } else {
            Reply::Serves
        }
    });
    let config = retry::Config {
        attempts_max: 4,
        ..retry::Config::default()
    };
    let policy = Policy {
        retry: config,
        ..Policy::default()
    };
    let caller = Caller::under(&net, &[addr(1)], policy, |config| {
        config.balance.breaker.state = breaker;
    });
    let caller = Arc::new(caller);
    caller.until(addr(1), Connectivity::Ready).await;
    let mut made = 0;
    while Instant::now() < over {
        made += 1;
        let caller = Arc::clone(&caller);
        spawn(async move { drop(caller.say_once(UNARY).await) });
        tokio::time::sleep(10 * MS).await;
    }
    let sent = script.begun();
    assert!(sent * 100 <= made * 125, "{sent} attempts of {made} calls");
    // One a second finds out; with a breaker after each of its pauses, a second on average.
    let passes = made / 100;
    assert!(sent * 5 >= passes * 4, "{sent}");
    let first = loop {
        if caller.say_once(UNARY).await.is_ok() {
            break over.elapsed();
        }
        tokio::time::sleep(10 * MS).await;
    };
    assert!(first <= 1_500 * MS, "{first:?}");
    tokio::time::sleep(1_000 * MS).await;
    Arc::into_inner(caller).unwrap().stop().await;
}

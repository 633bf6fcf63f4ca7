//! Calls that fail are tried again where that does no harm, and only there.

use futures_core::Stream;
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, client::Grpc};
use tonic_health::pb::HealthCheckResponse;
use tonic_prost::ProstCodec;

use super::{
    net::addr,
    raw::{self, Raw},
    script::{Reply, Script},
    *,
};
use crate::{
    call::{self, TraceContext},
    retry,
    testing::telemetry::capture,
};

/// A method of each kind, and two that promise less.
pub(super) static KINDS: [Method; 6] = {
    const fn method(path: &'static str, client: bool, server: bool, it: Idempotency) -> Method {
        Method {
            path,
            client_streaming: client,
            server_streaming: server,
            idempotency: it,
            access: Access::Public,
            role: None,
        }
    }
    [
        method("/k.K/Unary", false, false, Idempotency::Idempotent),
        method("/k.K/Uploads", true, false, Idempotency::Idempotent),
        method("/k.K/Downloads", false, true, Idempotency::Idempotent),
        method("/k.K/Talks", true, true, Idempotency::Idempotent),
        method("/k.K/Writes", false, false, Idempotency::Unknown),
        method("/k.K/Reads", false, false, Idempotency::NoSideEffects),
    ]
};
pub(super) const UNARY: usize = 0;
pub(super) const UPLOADS: usize = 1;
pub(super) const DOWNLOADS: usize = 2;
pub(super) const TALKS: usize = 3;
pub(super) const WRITES: usize = 4;
pub(super) const READS: usize = 5;

const SERVES: Reply = Reply::Serves;
const UNAVAILABLE: Reply = Reply::Fails(Code::Unavailable, &[]);

/// Calls `addrs` with the retries of `config`.
pub(super) fn retrying(net: &Net, addrs: &[SocketAddr], config: retry::Config) -> Caller {
    Caller::under(net, addrs, retried_by(config), |_| {})
}

fn retried_by(retry: retry::Config) -> Policy {
    Policy {
        retry,
        ..Policy::default()
    }
}

fn attempts(attempts_max: u8) -> retry::Config {
    retry::Config {
        attempts_max,
        ..retry::Config::default()
    }
}

fn message(text: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: text.to_owned(),
    }
}

impl Caller {
    /// One call of a method of [`KINDS`], whose answers are all read.
    pub(super) async fn say(
        &self,
        method: usize,
        messages: impl Stream<Item = HealthCheckRequest> + Send + 'static,
    ) -> Result<(), Status> {
        let channel = || self.clients.channel("peer", &KINDS);
        let mut grpc = Grpc::new(self.kinds.get_or_init(channel).clone());
        let path = PathAndQuery::from_static(KINDS[method].path);
        let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        let request = Request::new(messages);
        if KINDS[method].server_streaming {
            let answer = patient(grpc.streaming(request, path, codec)).await?;
            let mut answers = answer.into_inner();
            while patient(answers.message()).await?.is_some() {}
            return Ok(());
        }
        patient(grpc.client_streaming(request, path, codec))
            .await
            .map(drop)
    }

    pub(super) async fn say_once(&self, method: usize) -> Result<(), Status> {
        self.say(method, tokio_stream::once(message("x"))).await
    }
}

/// How a call of `method` ends at a peer that answers so, with retries by default, and how many
/// requests that took.
async fn ends(method: usize, replies: &'static [Reply]) -> (Code, usize) {
    let net = Net::default();
    let last = replies.last().copied().unwrap();
    let script = Script::start(&net, &[addr(1)], move |number| {
        replies.get(number).copied().unwrap_or(last)
    });
    let caller = retrying(&net, &[addr(1)], retry::Config::default());
    let ended = caller.say_once(method).await;
    caller.stop().await;
    (code(&ended), script.begun())
}

/// Goal: a call of any kind is tried again after a failure, and the peer gets the same request.
/// Method: two failures, then an answer; what each attempt said, and when.
#[tokio::test(start_paused = true)]
async fn each_kind_of_call_is_tried_again() {
    for method in [UNARY, UPLOADS, DOWNLOADS, TALKS] {
        let net = Net::default();
        let script = Script::start(&net, &[addr(1)], |number| match number {
            0 | 1 => UNAVAILABLE,
            _ => SERVES,
        });
        let caller = retrying(&net, &[addr(1)], retry::Config::default());
        caller.until(addr(1), Connectivity::Ready).await;
        let messages = tokio_stream::iter(["first", "second"].map(message));
        caller.say(method, messages).await.unwrap();
        caller.stop().await;
        let seen = script.seen();
        assert_eq!(3, seen.len(), "{method}");
        let previous = seen.iter().map(|seen| seen.previous.as_deref());
        assert_eq!(
            vec![None, Some("1"), Some("2")],
            previous.collect::<Vec<_>>()
        );
        assert!(seen[0].body.ends_with(b"second"));
        assert!(seen.iter().all(|one| one.body == seen[0].body));
        // The timer rounds up to a millisecond.
        let pauses = [seen[1].at - seen[0].at, seen[2].at - seen[1].at];
        assert!((40 * MS..=62 * MS).contains(&pauses[0]), "{pauses:?}");
        assert!((80 * MS..=122 * MS).contains(&pauses[1]), "{pauses:?}");
    }
}

/// Goal: a request whose end is not known yet is tried again with all of it, until it is more than
/// is kept.
/// Method: a stream that is refused after its first message; the rest follows the second attempt.
#[tokio::test(start_paused = true)]
async fn an_open_request_is_tried_again_while_it_is_kept() {
    let kept = crate::transport::subchannel::REPLAY_MAX;
    for (size, expected) in [(100, Code::Ok), (kept + 1, Code::Unavailable)] {
        let net = Net::default();
        let script = Script::start(&net, &[addr(1)], |number| match number {
            0 => Reply::FailsAfterHeaders(Duration::ZERO, Code::Unavailable),
            _ => SERVES,
        });
        let caller = retrying(&net, &[addr(1)], retry::Config::default());
        let messages = tokio_stream::once(message(&"x".repeat(size)));
        assert_eq!(expected, code(&caller.say(UPLOADS, messages).await));
        assert_eq!(if expected == Code::Ok { 2 } else { 1 }, script.begun());
        caller.stop().await;
    }

    let net = Net::default();
    let script = Script::start(&net, &[addr(1)], |number| match number {
        0 => Reply::FailsAtOnce(Code::Unavailable),
        _ => SERVES,
    });
    let caller = retrying(&net, &[addr(1)], retry::Config::default());
    let (messages, receiver) = mpsc::channel(1);
    messages.send(message("first")).await.unwrap();
    let rest = spawn(async move {
        tokio::time::sleep(1_000 * MS).await;
        messages.send(message("second")).await.unwrap();
    });
    let said = caller.say(TALKS, ReceiverStream::new(receiver)).await;
    assert_eq!(Code::Ok, code(&said));
    rest.await.unwrap();
    let whole = script.seen().pop().unwrap().body;
    let text = String::from_utf8_lossy(&whole).into_owned();
    assert!(text.contains("first") && text.contains("second"), "{text}");
    caller.stop().await;
}

/// Goal: the same where the peer that refuses wants to hear the rest.
/// Method: trailers alone to an open request, frame by frame, and no reset.
#[tokio::test(start_paused = true)]
async fn a_refusal_leaves_an_open_request_whole() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = retrying(&net, &[addr(1)], retry::Config::default());
    let (messages, receiver) = mpsc::channel(1);
    messages.send(message("first")).await.unwrap();
    let peer = spawn(async move {
        let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
        let refused = peer.expect(raw::DATA).await.stream;
        let trailers = [
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "14"),
        ];
        peer.headers(refused, &trailers, true).await;
        let again = peer.expect(raw::DATA).await;
        assert_ne!(refused, again.stream);
        messages.send(message("second")).await.unwrap();
        drop(messages);
        let stream = peer.request().await;
        assert_eq!(again.stream, stream);
        peer.answer(stream).await;
        (again.payload, peer)
    });
    let said = caller.say(UPLOADS, ReceiverStream::new(receiver)).await;
    assert_eq!(Code::Ok, code(&said));
    let (payload, peer) = peer.await.unwrap();
    assert!(payload.ends_with(b"first"));
    drop(peer);
    caller.stop().await;
}

/// Goal: a call whose answer began is not tried again; a failure with nothing before it is, though
/// headers came with it.
/// Method: failures after a message, after headers and a while, and together with headers.
#[tokio::test(start_paused = true)]
async fn an_answer_that_began_is_final() {
    const MESSAGE: &[Reply] = &[Reply::FailsAfterMessage(Code::Unavailable), SERVES];
    const LATER: &[Reply] = &[
        Reply::FailsAfterHeaders(Duration::from_millis(10), Code::Unavailable),
        SERVES,
    ];
    const AT_ONCE: &[Reply] = &[
        Reply::FailsAfterHeaders(Duration::ZERO, Code::Unavailable),
        SERVES,
    ];
    for method in [UNARY, DOWNLOADS, TALKS] {
        assert_eq!((Code::Unavailable, 1), ends(method, MESSAGE).await);
        assert_eq!((Code::Ok, 2), ends(method, AT_ONCE).await, "{method}");
    }
    assert_eq!((Code::Unavailable, 1), ends(DOWNLOADS, LATER).await);
    // Headers alone are nothing that the caller of a unary method could have seen.
    assert_eq!((Code::Ok, 2), ends(UNARY, LATER).await);
}

/// Goal: what a method does not promise is not relied on.
/// Method: the same failure for a method that promises nothing, by contract and as configured.
#[tokio::test(start_paused = true)]
async fn a_method_that_promises_nothing_is_tried_once() {
    const ONCE: &[Reply] = &[UNAVAILABLE, SERVES];
    assert_eq!((Code::Unavailable, 1), ends(WRITES, ONCE).await);
    assert_eq!((Code::Ok, 2), ends(READS, ONCE).await);

    let net = Net::default();
    let script = Script::start(&net, &[addr(1)], |number| ONCE[number]);
    let claimed = retry::Config {
        idempotent: true,
        ..retry::Config::default()
    };
    let caller = retrying(&net, &[addr(1)], claimed);
    caller.say_once(WRITES).await.unwrap();
    assert_eq!(2, script.begun());
    caller.stop().await;
}

/// Goal: codes that are not tried again are final, attempts are bounded, and what a server says of
/// another try holds.
/// Method: each answer, and how many requests it takes.
#[tokio::test(start_paused = true)]
async fn the_answer_decides_about_another_try() {
    const PUSHED: &[Reply] = &[Reply::Fails(Code::Unavailable, &["1000"]), SERVES];
    let cases: [(&'static [Reply], Code, usize); 7] = [
        (&[UNAVAILABLE], Code::Unavailable, 3),
        (
            &[Reply::Fails(Code::Internal, &[]), SERVES],
            Code::Internal,
            1,
        ),
        (
            &[Reply::Fails(Code::Unavailable, &["-1"]), SERVES],
            Code::Unavailable,
            1,
        ),
        (
            &[Reply::Fails(Code::Unavailable, &["xxx"]), SERVES],
            Code::Unavailable,
            1,
        ),
        (
            &[Reply::Fails(Code::Unavailable, &["1", "1"]), SERVES],
            Code::Unavailable,
            1,
        ),
        (PUSHED, Code::Ok, 2),
        (&[Reply::IsNoGrpc(503), SERVES], Code::Ok, 2),
    ];
    for (number, (replies, expected, requests)) in cases.into_iter().enumerate() {
        let began = Instant::now();
        assert_eq!((expected, requests), ends(UNARY, replies).await, "{number}");
        if std::ptr::eq(replies, PUSHED) {
            assert!(began.elapsed() >= 1_000 * MS);
        }
    }
}

/// Goal: a failure is handed on as the last attempt gave it.
/// Method: a server that says something else each time.
#[tokio::test(start_paused = true)]
async fn the_last_failure_is_the_callers() {
    const REPLIES: &[Reply] = &[UNAVAILABLE, Reply::Fails(Code::NotFound, &[])];
    assert_eq!((Code::NotFound, 2), ends(UNARY, REPLIES).await);
}

/// Goal: no call waits for an attempt that cannot be in time.
/// Method: a pause of a second named by a server to a call of half of one.
#[tokio::test(start_paused = true)]
async fn no_pause_goes_past_the_deadline() {
    let net = Net::default();
    let script = Script::start(&net, &[addr(1)], |_| {
        Reply::Fails(Code::Unavailable, &["1000"])
    });
    let caller = Caller::under(&net, &[addr(1)], Policy::default(), |config| {
        config.timeout_default = 500 * MS;
    });
    caller.until(addr(1), Connectivity::Ready).await;
    let began = Instant::now();
    assert_eq!(Code::Unavailable, code(&caller.check("x").await));
    assert!(began.elapsed() < 10 * MS, "{:?}", began.elapsed());
    assert_eq!(1, script.begun());
    caller.stop().await;
}

/// Goal: an attempt that takes too long makes room for another, and nobody is told that the
/// deadline passed while it did not.
/// Method: a peer that hangs once, then for ever.
#[tokio::test(start_paused = true)]
async fn an_attempt_has_its_own_time() {
    for (hangs, expected, took) in [(1, Code::Ok, 200), (9, Code::Unavailable, 600)] {
        let net = Net::default();
        let script = Script::start(&net, &[addr(1)], move |number| {
            if number < hangs { Reply::Hangs } else { SERVES }
        });
        let config = retry::Config {
            attempt_timeout: 200 * MS,
            backoff_min: MS,
            ..retry::Config::default()
        };
        let caller = retrying(&net, &[addr(1)], config);
        caller.until(addr(1), Connectivity::Ready).await;
        let began = Instant::now();
        assert_eq!(expected, code(&caller.say_once(UNARY).await));
        let off = began.elapsed().saturating_sub(took * MS);
        assert!(off < 20 * MS, "{off:?}");
        // One that is not tried again has all the time of the call.
        let writes = tokio::time::timeout(1_000 * MS, caller.say_once(WRITES)).await;
        assert_eq!(hangs > 1, writes.is_err());
        tokio::time::sleep(10 * MS).await;
        assert_eq!(if hangs > 1 { 4 } else { 1 }, script.resets());
        caller.stop().await;
    }
}

/// Goal: an attempt is not given up for its time where none can follow it: its request is too large to be
/// sent again.
/// Method: requests around what is kept, answered after five times the time of an attempt; when, and
/// after how many.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_again_has_all_the_time() {
    let kept = crate::transport::subchannel::REPLAY_MAX;
    for (size, requests, expected, took) in [
        (100, 3, Code::Unavailable, 600),
        (kept + 1, 1, Code::Ok, 1_000),
    ] {
        let net = Net::default();
        let script = Script::start(&net, &[addr(1)], |_| Reply::ServesLate(1_000 * MS));
        let config = retry::Config {
            attempt_timeout: 200 * MS,
            backoff_min: MS,
            ..retry::Config::default()
        };
        let caller = retrying(&net, &[addr(1)], config);
        caller.until(addr(1), Connectivity::Ready).await;
        let began = Instant::now();
        let messages = tokio_stream::once(message(&"x".repeat(size)));
        assert_eq!(expected, code(&caller.say(UNARY, messages).await), "{size}");
        let off = began.elapsed().saturating_sub(took * MS);
        assert!(off < 20 * MS, "{off:?}");
        assert_eq!(requests, script.begun());
        caller.stop().await;
    }
}

/// Goal: a call for one that is itself tried again is not: tries would multiply. Whoever serves it is told
/// that it belongs to tries, and so on along the chain.
/// Method: inside served calls that are a first and a second attempt.
#[tokio::test(start_paused = true)]
async fn no_retry_of_a_retry() {
    for (previous_attempts, requests) in [(0, 3), (1, 1)] {
        let net = Net::default();
        let script = Script::start(&net, &[addr(1)], |_| UNAVAILABLE);
        let caller = retrying(&net, &[addr(1)], retry::Config::default());
        let served = Arc::new(call::Context {
            method: &KINDS[UNARY],
            peer: None,
            deadline: None,
            trace: TraceContext::root(false),
            previous_attempts,
            criticality: None,
            ended: call::Ended::default(),
        });
        let calls = call::Scoped::new(served, caller.say_once(UNARY));
        assert_eq!(Code::Unavailable, code(&calls.await));
        assert_eq!(requests, script.begun());
        let first = script.seen().remove(0).previous;
        let told = (previous_attempts > 0).then(|| "1".to_owned());
        assert_eq!(told, first);
        caller.stop().await;
    }
}

/// Goal: another attempt goes to another endpoint, where there is one.
/// Method: fifty calls to three endpoints that fail all but the third attempt.
#[tokio::test(start_paused = true)]
async fn another_attempt_goes_to_another_endpoint() {
    let net = Net::default();
    let addrs = [addr(1), addr(2), addr(3)];
    let script = Script::start(&net, &addrs, |number| match number % 3 {
        2 => SERVES,
        _ => UNAVAILABLE,
    });
    let caller = Caller::under(&net, &addrs, Policy::default(), |config| {
        // Two of three fail here.
        config.throttle.enabled = false;
    });
    for addr in addrs {
        caller.until(addr, Connectivity::Ready).await;
    }
    // Failures take tokens, which are not what this is about: two calls, again and again.
    for _ in 0..2 {
        caller.say_once(UNARY).await.unwrap();
    }
    for attempts in script.seen().chunks(3) {
        let distinct: std::collections::HashSet<_> = attempts.iter().map(|it| it.addr).collect();
        assert_eq!(3, distinct.len(), "{attempts:?}");
    }
    caller.stop().await;
}

/// Goal: what was tried again, and why no more, is counted.
/// Method: a call of three failures, and its metrics.
#[tokio::test(start_paused = true)]
async fn retries_are_counted() {
    let capture = capture();
    let net = Net::default();
    Script::start(&net, &[addr(1)], |_| UNAVAILABLE);
    let caller = retrying(&net, &[addr(1)], attempts(3));
    caller.say_once(UNARY).await.unwrap_err();
    caller.stop().await;
    let target = [("grpc_target", "peer"), ("grpc_method", "k.K/Unary")];
    for (name, value) in [
        ("grpc_client_attempt_started_total", 3.0),
        ("grpc_client_call_retries_total", 2.0),
        ("grpc_client_call_hedges_total", 0.0),
        ("grpc_client_call_retry_delay_seconds_count", 1.0),
    ] {
        assert_eq!(Some(value), capture.value(name, &target), "{name}");
    }
    let delay = capture.value("grpc_client_call_retry_delay_seconds_sum", &target);
    assert!((0.12..=0.18).contains(&delay.unwrap()), "{delay:?}");
    let refused = [("server_address", "peer"), ("reason", "attempts")];
    let name = "gantry_client_retries_refused_total";
    assert_eq!(Some(1.0), capture.value(name, &refused));
}

/// Goal: a change of the settings holds for the next call.
/// Method: retries switched off while the target is in use.
#[tokio::test(start_paused = true)]
async fn settings_change_while_calls_are_made() {
    let net = Net::default();
    let script = Script::start(&net, &[addr(1)], |_| UNAVAILABLE);
    let policies = |attempts_max| {
        let policy = retried_by(attempts(attempts_max));
        BTreeMap::from([("*".to_owned(), policy)])
    };
    let mut publisher = crate::config::Publisher::new(policies(3));
    let mut caller = retrying(&net, &[addr(1)], attempts(3));
    caller.clients = caller
        .clients
        .with_policies(Policies::new(&publisher.live()));
    caller.say_once(UNARY).await.unwrap_err();
    assert_eq!(3, script.begun());
    publisher.publish(policies(1));
    caller.say_once(UNARY).await.unwrap_err();
    assert_eq!(4, script.begun());
    caller.stop().await;
}

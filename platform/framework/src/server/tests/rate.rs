//! Calls beyond their quotas.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Request, header::AUTHORIZATION};
use tokio::{sync::watch, time};
use tonic::{Code, Response};

use super::probe::{DOWN, Messages, Probe, STREAM, Served, UNARY, UP};
use crate::{
    auth::tests::{claims, header, ordinary, sign},
    caller::Peer,
    config::{self, Live, Publisher, Sources},
    contract::Server as _,
    health::{self, Health},
    journal::Journal,
    limit::rate::{self, Limiter, Rules},
    policy::{self, Policies, Policy},
    server::Router,
    status::PUSHBACK,
    transport::{
        server::Limits,
        wire::{Reply, Wire},
    },
};

config::section! {
    /// As in a process.
    struct Root {
        /// By pattern.
        policies: map of Policy, live;
    }
}

fn table(toml: &str) -> BTreeMap<String, Policy> {
    let sources = Sources::new().text("test", toml);
    let loaded = config::load::<Root>(sources).unwrap();
    loaded.config().policies.clone()
}

/// Counts as a process does by this table.
fn limiter(table: &Live<BTreeMap<String, Policy>>) -> Limiter {
    Limiter::new(table.derive(|table| Rules {
        quotas: policy::quotas(table),
        config: rate::Config::default(),
    }))
}

/// What all methods are held to.
fn counting(toml: &str) -> Router {
    let table = Live::fixed(table(toml));
    let router = Router::new().count(limiter(&table));
    router.follow(Policies::new(&table))
}

/// Answers unary calls, and counts them.
fn unary() -> (Probe, Arc<AtomicUsize>) {
    let reached = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&reached);
    let probe = Probe::unary(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        async { Ok(Response::new(Vec::new())) }
    });
    (probe, reached)
}

/// Answers streams with one message.
fn stream() -> (Probe, Arc<AtomicUsize>) {
    let reached = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reached);
    let probe = Probe::stream(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async {
            let messages: Messages = Box::pin(tokio_stream::once(Ok(b"one".to_vec())));
            Ok(Response::new(messages))
        }
    });
    (probe, reached)
}

async fn serve(router: Router) -> (Served, Wire) {
    let served = Served::new(router, Limits::default());
    let wire = Wire::over(served.connector.connect().await.unwrap()).await;
    (served, wire)
}

async fn call(wire: &Wire, path: &str) -> Reply {
    wire.call(Wire::request(path), b"").await.unwrap()
}

fn bearer(subject: &str) -> HeaderValue {
    let mut claims = claims();
    claims["sub"] = subject.into();
    HeaderValue::from_str(&format!("Bearer {}", sign(&header(), &claims))).unwrap()
}

fn of(subject: &str) -> Request<()> {
    let mut request = Wire::request(UNARY);
    request.headers_mut().insert(AUTHORIZATION, bearer(subject));
    request
}

/// Goal: calls of each kind are refused beyond their quota before their handler runs, with when to come
/// back: as a detail and in milliseconds, rounded up; then they are let in again.
/// Method: three calls in a thousandth more than a second for each kind; the pause that was told, less a
/// millisecond, and whole.
#[tokio::test(start_paused = true)]
async fn each_kind_of_call_has_its_quota() {
    for path in [UNARY, UP, DOWN, STREAM] {
        let router = counting("[policies.'test.Probe/*']\nrate = ['3/3001ms per address']");
        let (probe, reached) = if path == UNARY { unary() } else { stream() };
        let (_served, wire) = serve(router.add(probe)).await;
        for _ in 0..3 {
            assert_eq!(Some(Code::Ok), call(&wire, path).await.code(), "{path}");
        }
        let refused = call(&wire, path).await;
        assert_eq!(Some(Code::ResourceExhausted), refused.code(), "{path}");
        assert_eq!("1001", refused.headers.get(PUSHBACK).unwrap(), "{path}");
        let expected = "more than 3 calls in 3s 1ms from one address";
        assert_eq!(expected, refused.message(), "{path}");
        assert!(refused.headers.contains_key("grpc-status-details-bin"));
        time::advance(Duration::from_secs(1)).await;
        let early = call(&wire, path).await;
        assert_eq!(Some(Code::ResourceExhausted), early.code(), "{path}");
        time::advance(Duration::from_millis(1)).await;
        assert_eq!(Some(Code::Ok), call(&wire, path).await.code(), "{path}");
        assert_eq!(4, reached.load(Ordering::SeqCst), "{path}");
    }
}

/// Goal: a quota per identity counts whom the token speaks for, wherever they call from; who has no good
/// token is refused before and spends nothing of anybody's.
/// Method: calls of two people, then with no token and a bad one.
#[tokio::test(start_paused = true)]
async fn whom_a_token_speaks_for_has_a_quota() {
    let (probe, reached) = unary();
    let router = counting("[policies.'*']\nrate = ['5/1h', '2/1h per identity']");
    let (_served, wire) = serve(router.add(probe).verify_tokens(ordinary())).await;
    let code = async |request| wire.call(request, b"").await.unwrap().code();
    for _ in 0..20 {
        let none = code(Wire::request(UNARY)).await;
        assert_eq!(Some(Code::Unauthenticated), none);
    }
    for subject in ["ada", "eve"] {
        for expected in [Code::Ok, Code::Ok, Code::ResourceExhausted] {
            assert_eq!(Some(expected), code(of(subject)).await, "{subject}");
        }
    }
    // What ada and eve were refused costs nobody else.
    assert_eq!(Some(Code::Ok), code(of("bob")).await);
    assert_eq!(Some(Code::ResourceExhausted), code(of("bob")).await);
    assert_eq!(5, reached.load(Ordering::SeqCst));
}

/// Goal: no value of metadata and no identity is told to anybody, in no refusal.
/// Method: quotas of both, the refusal of each as it is on the wire.
#[tokio::test(start_paused = true)]
async fn a_refusal_tells_nothing_of_the_caller() {
    for (quota, told) in [
        (
            "1/1h per identity",
            "more than 1 calls in 1h of one identity",
        ),
        (
            "1/1h per metadata:x-tenant",
            "more than 1 calls in 1h with one x-tenant",
        ),
    ] {
        let (probe, _) = unary();
        let router = counting(&format!("[policies.'*']\nrate = ['{quota}']"));
        let (_served, wire) = serve(router.add(probe).verify_tokens(ordinary())).await;
        let request = || {
            let mut request = of("ada-lovelace");
            let tenant = HeaderValue::from_static("analytical-engines");
            request.headers_mut().insert("x-tenant", tenant);
            request
        };
        wire.call(request(), b"").await.unwrap();
        let refused = wire.call(request(), b"").await.unwrap();
        assert_eq!(told, refused.message());
        let all = format!("{:?}", refused.headers);
        assert!(!all.contains("ada"), "{all}");
        assert!(!all.contains("analytical"), "{all}");
    }
}

/// Goal: a call beyond its quota takes no place in its method, and waits in no line for one.
/// Method: one place that is taken by a stream that stays; one call more is refused for its place, and one
/// that is beyond its quota at once, by that.
#[tokio::test(start_paused = true)]
async fn a_refused_call_takes_no_place() {
    let (over, until) = watch::channel(false);
    let probe = Probe::unary(move |_| {
        let mut until = until.clone();
        async move {
            drop(until.wait_for(|over| *over).await);
            Ok(Response::new(Vec::new()))
        }
    });
    let toml = "[policies.'*']\nrate = ['2/1h']\nconcurrency.calls_max = 1\n\
                concurrency.adaptive = 'off'\nconcurrency.queue_percent = 50\n";
    let (_served, wire) = serve(counting(toml).add(probe)).await;
    let begin = async || {
        let mut sent = wire.send(Wire::request(UNARY)).await.unwrap();
        let message = crate::transport::wire::framed(b"");
        sent.requests.send_data(message, true).unwrap();
        sent
    };
    let first = begin().await;
    time::sleep(Duration::from_millis(1)).await;
    // Half of one place is no line.
    let full = begin().await.reply().await.unwrap();
    assert_eq!(Some(Code::Unavailable), full.code());
    let beyond = begin().await.reply().await.unwrap();
    assert_eq!(Some(Code::ResourceExhausted), beyond.code());
    over.send_replace(true);
    assert_eq!(Some(Code::Ok), first.reply().await.unwrap().code());
}

/// Goal: a call that comes too late costs nothing of a quota.
/// Method: calls whose time has passed as they come, then one in time.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_too_late_is_not_counted() {
    let (probe, _) = unary();
    let router = counting("[policies.'*']\nrate = ['1/1h']").add(probe);
    let (_served, wire) = serve(router).await;
    for _ in 0..3 {
        let mut request = Wire::request(UNARY);
        let timeout = HeaderValue::from_static("0n");
        request.headers_mut().insert("grpc-timeout", timeout);
        let late = wire.call(request, b"").await.unwrap();
        assert_eq!(Some(Code::DeadlineExceeded), late.code());
    }
    assert_eq!(Some(Code::Ok), call(&wire, UNARY).await.code());
}

/// Goal: health is answered whatever quota there is.
/// Method: a quota of one for everything, and the health of the process.
#[tokio::test(start_paused = true)]
async fn health_has_no_quota() {
    let own = health::service::server(
        Health::new(Journal::new(), health::Config::default()),
        tokio_util::sync::CancellationToken::new(),
    );
    let (probe, _) = unary();
    let router = counting("[policies.'*']\nrate = ['1/1h']")
        .add(probe)
        .add_plain(own, gantry_api::health::v1::DESCRIPTORS)
        .unwrap();
    let (_served, wire) = serve(router).await;
    assert_eq!(Some(Code::Ok), call(&wire, UNARY).await.code());
    let refused = call(&wire, UNARY).await.code();
    assert_eq!(Some(Code::ResourceExhausted), refused);
    for _ in 0..3 {
        let request = Wire::request("/grpc.health.v1.Health/Check");
        let mut sent = wire.send(request).await.unwrap();
        let empty = crate::transport::wire::prefixed(0, b"");
        sent.requests.send_data(empty, true).unwrap();
        assert_eq!(Some(Code::Ok), sent.reply().await.unwrap().code());
    }
}

/// Goal: policies of methods inherit a quota and are counted together, a method takes itself out of it or
/// has its own, and a change is in force from the next call on.
/// Method: a table of each, calls of several methods; then another table.
#[tokio::test(start_paused = true)]
async fn policies_inherit_a_quota_and_change() {
    let toml = "[policies.'*']\nrate = ['3/1h']\n\
                [policies.'test.Probe/*']\ntimeout = '5s'\n\
                [policies.'test.Probe/Down']\nrate = []\n\
                [policies.'test.Probe/Up']\nrate = ['1/1h']\n";
    let mut publisher = Publisher::new(table(toml));
    let live = publisher.live();
    let router = Router::new().count(limiter(&live)).add(stream().0);
    let (_served, wire) = serve(router).await;
    let admitted = async |path| {
        let mut admitted = 0;
        for _ in 0..6 {
            let refused = call(&wire, path).await.code() == Some(Code::ResourceExhausted);
            admitted += usize::from(!refused);
        }
        admitted
    };
    // Of these three `*` has.
    assert_eq!(3, admitted(STREAM).await);
    assert_eq!(0, admitted(UNARY).await);
    assert_eq!(6, admitted(DOWN).await);
    assert_eq!(1, admitted(UP).await);
    publisher.publish(table("[policies.'test.Probe/Up']\nrate = ['2/1h']"));
    assert_eq!(6, admitted(STREAM).await);
    assert_eq!(2, admitted(UP).await);
}

/// Goal: callers are told apart by the addresses they connect from, as the layer finds them.
/// Method: the layer alone, with peers of two addresses.
#[tokio::test(start_paused = true)]
async fn callers_are_told_apart_by_their_connections() {
    use tower::{Service as _, service_fn};

    let table = Live::fixed(table("[policies.'*']\nrate = ['1/1h per address']"));
    let handler = service_fn(|_: Request<()>| async {
        Ok::<_, std::convert::Infallible>(http::Response::new(
            http_body_util::Empty::<bytes::Bytes>::new(),
        ))
    });
    let limiter = limiter(&table);
    let mut layer = crate::server::rate::Rate::new(handler, &Probe::METHODS[0], Some(&limiter));
    let mut code = async |peer: &str| {
        let mut request = Request::new(());
        let peer = Peer::Tcp(peer.parse().unwrap());
        request.extensions_mut().insert(peer);
        let response = layer.call(request).await.unwrap();
        crate::status::code_in(response.headers())
    };
    assert_eq!(None, code("192.0.2.1:1").await);
    assert_eq!(Some(Code::ResourceExhausted), code("192.0.2.1:2").await);
    assert_eq!(None, code("192.0.2.2:1").await);
}

//! What a process, and a method, has no room for.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderValue, Request};
use http_body_util::Empty;
use tokio::{
    sync::{mpsc, watch},
    time::{self, Instant},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status};
use tower::Service as _;

use super::probe::{DOWN, Messages, Probe, STREAM, Served, UNARY, UP};
use crate::{
    call,
    caller::{CRITICALITY, Criticality},
    config::{Live, Publisher},
    contract::Server as _,
    deadline::Deadline,
    health::{self, Health},
    journal::Journal,
    limit::{
        concurrency::{self, Cap, Mode, Policy},
        shed::{self, Machine, Shedder},
    },
    policy::{self, Policies},
    server::{Protection, Router, bound},
    shutdown::Tasks,
    status::code_in,
    telemetry::Sampling,
    transport::{
        server::Limits,
        wire::{Reply, Sent, Wire, framed},
    },
};

fn fixed(calls_max: usize) -> Policy {
    Policy {
        calls_max,
        adaptive: Mode::Off,
        queue_percent: 0,
        ..Policy::default()
    }
}

fn cap(calls_max: usize) -> Cap {
    Cap::new(Live::fixed(concurrency::Config { calls_max }))
}

/// A process of so many calls.
fn process(calls_max: usize) -> Router {
    let shedder = Shedder::default();
    Router::new().protect(Protection::new(cap(calls_max), shedder))
}

/// A process in which this holds for each method.
fn method(policy: Policy) -> Router {
    Router::new().follow(policies(policy))
}

/// This for every method.
pub(super) fn policies(concurrency: Policy) -> Policies {
    let policy = policy::Policy {
        concurrency,
        ..policy::Policy::default()
    };
    let all = [("*".to_owned(), policy)];
    Policies::new(&Live::fixed(all.into()))
}

/// The server, which ends as it is dropped, and a connection to it.
async fn serve(probe: Probe, router: Router) -> (Served, Wire) {
    let served = Served::new(router.add(probe), Limits::default());
    let wire = Wire::over(served.connector.connect().await.unwrap()).await;
    (served, wire)
}

/// Streams that end when the test says so.
fn open(until: watch::Receiver<bool>) -> Probe {
    Probe::stream(move |_| {
        let mut until = until.clone();
        async move {
            let (send, receive) = mpsc::channel(1);
            send.send(Ok(b"one".to_vec())).await.unwrap();
            drop(call::spawn(async move {
                drop(until.wait_for(|over| *over).await);
                drop(send);
            }));
            let messages: Messages = Box::pin(ReceiverStream::new(receive));
            Ok(Response::new(messages))
        }
    })
}

async fn begin(wire: &Wire, path: &str) -> Sent {
    let mut sent = wire.send(Wire::request(path)).await.unwrap();
    sent.requests.send_data(framed(b""), true).unwrap();
    sent
}

fn is_refused(reply: &Reply) -> bool {
    let pushback = reply.headers.get("grpc-retry-pushback-ms");
    reply.code() == Some(Code::Unavailable) && pushback.is_some()
}

/// Goal: a place is held to the end of a stream and not to its headers, whichever kind of stream, in the
/// process and in the method; it is free again after trailers and after a reset.
/// Method: 20 streams where two may be; then two more, twice.
#[tokio::test(start_paused = true)]
async fn a_stream_counts_to_its_end() {
    for path in [DOWN, UP, STREAM] {
        for router in [process(2), method(fixed(2))] {
            let (over, until) = watch::channel(false);
            let (_served, wire) = serve(open(until), router).await;
            let mut admitted = Vec::new();
            let mut refused = 0;
            for _ in 0..20 {
                let sent = begin(&wire, path).await;
                let response = sent.response.await.unwrap();
                match response.headers().get("grpc-status") {
                    None => admitted.push(response),
                    Some(status) => {
                        assert_eq!("14", status);
                        refused += 1;
                    }
                }
            }
            assert_eq!((2, 18), (admitted.len(), refused), "{path}");

            // Dropping a stream resets it.
            admitted.clear();
            let settled = async {
                while is_refused(&begin(&wire, path).await.probe().await) {
                    time::sleep(Duration::from_millis(1)).await;
                }
            };
            time::timeout(Duration::from_secs(1), settled)
                .await
                .unwrap();
            // The last of these is reset as well; nothing tells when that has arrived.
            time::sleep(Duration::from_millis(5)).await;

            let mut sent = Vec::new();
            for _ in 0..2 {
                sent.push(begin(&wire, path).await);
            }
            over.send_replace(true);
            for reply in join_all(sent.into_iter().map(Sent::reply)).await {
                let reply = reply.unwrap();
                assert_eq!(Some(Code::Ok), reply.code(), "{path}");
            }
            let reply = begin(&wire, path).await.reply().await.unwrap();
            assert_eq!(Some(Code::Ok), reply.code(), "after trailers");
        }
    }
}

/// Goal: a policy bounds the methods of its pattern and no others, and changes while calls run.
/// Method: one stream where one may be, others of that method and of another; then no bound any more.
#[tokio::test(start_paused = true)]
async fn a_policy_bounds_its_own_methods() {
    let table = |calls_max| {
        let policy = policy::Policy {
            concurrency: fixed(calls_max),
            ..policy::Policy::default()
        };
        BTreeMap::from([("test.Probe/Down".to_owned(), policy)])
    };
    let mut publisher = Publisher::new(table(1));
    let router = Router::new().follow(Policies::new(&publisher.live()));
    let (_over, until) = watch::channel(false);
    let (_served, wire) = serve(open(until), router).await;
    let mut held = Vec::new();
    let mut admitted = async |path| {
        let response = begin(&wire, path).await.response.await.unwrap();
        let admitted = code_in(response.headers()).is_none();
        held.push(response);
        admitted
    };
    assert!(admitted(DOWN).await);
    assert!(!admitted(DOWN).await);
    for _ in 0..3 {
        assert!(admitted(UP).await);
    }
    publisher.publish(table(0));
    for _ in 0..3 {
        assert!(admitted(DOWN).await);
    }
}

/// Goal: a unary call holds its place for as long as it is there.
/// Method: 20 calls at once where two may be, of the process and of the method; then as many again.
#[tokio::test(start_paused = true)]
async fn a_unary_call_counts_to_its_end() {
    for router in [process(2), method(fixed(2))] {
        let probe = Probe::unary(|_| async {
            time::sleep(Duration::from_millis(20)).await;
            Ok(Response::new(Vec::new()))
        });
        let (_served, wire) = serve(probe, router).await;
        for _ in 0..2 {
            let calls = (0..20).map(|_| wire.call(Wire::request(UNARY), b""));
            let replies: Vec<_> = join_all(calls)
                .await
                .into_iter()
                .map(Result::unwrap)
                .collect();
            let good = replies.iter().filter(|it| it.code() == Some(Code::Ok));
            assert_eq!(2, good.count());
            assert_eq!(18, replies.iter().filter(|it| is_refused(it)).count());
        }
    }
}

/// Goal: who waits for a place waits within its deadline, and begins nothing after it.
/// Method: one place, calls of 300 ms, six callers that wait for 400 ms each, in a line that is long and
/// patient.
#[tokio::test(start_paused = true)]
async fn waiting_counts_to_the_deadline() {
    let begun = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&begun);
    let probe = Probe::unary(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        async {
            time::sleep(Duration::from_millis(300)).await;
            Ok(Response::new(Vec::new()))
        }
    });
    let policy = Policy {
        queue_percent: 500,
        queue_interval: Duration::from_secs(9),
        ..fixed(1)
    };
    let (_served, wire) = serve(probe, method(policy)).await;
    let started = Instant::now();
    let calls = (0..6).map(|_| async {
        let mut request = Wire::request(UNARY);
        let timeout = HeaderValue::from_static("400m");
        request.headers_mut().insert("grpc-timeout", timeout);
        let reply = wire.call(request, b"").await.unwrap();
        (reply.code(), started.elapsed())
    });
    let ends = join_all(calls).await;
    let good = ends.iter().filter(|(code, _)| *code == Some(Code::Ok));
    assert_eq!(1, good.count());
    for (code, took) in &ends {
        if *code != Some(Code::Ok) {
            assert_eq!(Some(Code::DeadlineExceeded), *code);
            assert!(*took <= Duration::from_millis(402), "{took:?}");
        }
    }
    assert_eq!(2, begun.load(Ordering::SeqCst), "the others never began");
}

/// Goal: a call that gets its place too late does not begin, although nobody else looks at the clock, and
/// its place is free for the next.
/// Method: the layer alone; a place that is freed after the deadline of the one that waits for it.
#[tokio::test(start_paused = true)]
async fn a_call_that_gets_its_place_too_late_does_not_begin() {
    let begun = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&begun);
    let handler = tower::service_fn(move |_: Request<()>| {
        counter.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new())) }
    });
    let policy = Live::fixed(policy::Policy {
        concurrency: Policy {
            queue_percent: 200,
            queue_interval: Duration::from_secs(9),
            ..fixed(1)
        },
        ..policy::Policy::default()
    });
    let limiter = Protection::default().limiter(&Probe::METHODS[0], &policy);
    let mut layer = bound::Bound::new(handler, limiter);
    let mut call = |deadline| {
        let mut request = Request::new(());
        request.extensions_mut().insert(Arc::new(call::Context {
            method: &Probe::METHODS[0],
            peer: None,
            deadline: Deadline::after(deadline),
            trace: call::TraceContext::root(false),
            previous_attempts: 0,
            criticality: None,
            ended: call::Ended::default(),
        }));
        layer.call(request)
    };
    let first = call(Duration::from_secs(9)).await.unwrap();
    let late = call(Duration::from_millis(100));
    let next = call(Duration::from_secs(9));
    time::advance(Duration::from_millis(100)).await;
    drop(first);
    let late = late.await.unwrap();
    assert_eq!(Some(Code::DeadlineExceeded), code_in(late.headers()));
    assert_eq!(1, begun.load(Ordering::SeqCst));
    let next = next.await.unwrap();
    assert_eq!(None, code_in(next.headers()));
    assert_eq!(2, begun.load(Ordering::SeqCst));
}

/// Goal: a standing line refuses within milliseconds, with a pushback; it does not make everybody late.
/// Method: one place that is taken, and a line of five.
#[tokio::test(start_paused = true)]
async fn a_standing_line_refuses() {
    let probe = Probe::unary(|_| async {
        time::sleep(Duration::from_secs(10)).await;
        Ok(Response::new(Vec::new()))
    });
    let policy = Policy {
        queue_percent: 500,
        ..fixed(1)
    };
    let (_served, wire) = serve(probe, method(policy)).await;
    let _first = begin(&wire, UNARY).await;
    time::sleep(Duration::from_millis(1)).await;
    let started = Instant::now();
    let calls = (0..5).map(|_| wire.call(Wire::request(UNARY), b""));
    let replies: Vec<_> = join_all(calls)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert!(replies.iter().all(is_refused), "{replies:?}");
    let took = started.elapsed();
    assert!((100..=103).contains(&took.as_millis()), "{took:?}");
}

/// Goal: health is served however full the process is.
/// Method: a process of one call, which is taken, and the health of its service.
#[tokio::test(start_paused = true)]
async fn health_is_always_served() {
    let (_over, until) = watch::channel(false);
    let own = health::service::server(
        Health::new(Journal::new(), health::Config::default()),
        tokio_util::sync::CancellationToken::new(),
    );
    let router = process(1)
        .add(open(until))
        .add_plain(own, gantry_api::health::v1::DESCRIPTORS)
        .unwrap();
    let served = Served::new(router, Limits::default());
    let wire = Wire::over(served.connector.connect().await.unwrap()).await;
    let _taken = begin(&wire, DOWN).await.response.await.unwrap();
    assert!(is_refused(&begin(&wire, DOWN).await.probe().await));
    for _ in 0..3 {
        let request = Wire::request("/grpc.health.v1.Health/Check");
        let mut sent = wire.send(request).await.unwrap();
        let empty = crate::transport::wire::prefixed(0, b"");
        sent.requests.send_data(empty, true).unwrap();
        assert_eq!(Some(Code::Ok), sent.reply().await.unwrap().code());
    }
}

/// A machine without memory.
pub(super) struct Full;

impl Machine for Full {
    fn cpu(&mut self, _: Duration) -> Option<f64> {
        None
    }

    fn memory(&mut self) -> Option<f64> {
        Some(0.93)
    }
}

fn saying(criticality: Option<Criticality>) -> Request<()> {
    calling(UNARY, criticality)
}

/// A call that may say how much it matters.
pub(super) fn calling(path: &str, criticality: Option<Criticality>) -> Request<()> {
    let mut request = Wire::request(path);
    if let Some(criticality) = criticality {
        let word = HeaderValue::from_static(criticality.as_str());
        request.headers_mut().insert(&CRITICALITY, word);
    }
    request
}

/// Goal: an overloaded process refuses by what calls say of themselves, before it asks for a token.
/// Method: little memory left; calls of each criticality, without a token where one is wanted.
#[tokio::test(start_paused = true)]
async fn calls_that_matter_less_are_refused_first() {
    let cap = Cap::default();
    let shedder = Shedder::new(Live::fixed(shed::Config::default()), cap.clone());
    let tasks = Tasks::new(Journal::new());
    let watch = shedder
        .clone()
        .watch(Full, Journal::new(), tasks.stopping());
    tasks.spawn("load", watch);
    let router = Router::new()
        .add(Probe::unary(|_| async { Ok(Response::new(Vec::new())) }))
        .verify_tokens(crate::auth::tests::ordinary())
        .protect(Protection::new(cap, shedder));
    let served = Served::new(router, Limits::default());
    let wire = Wire::over(served.connector.connect().await.unwrap()).await;
    time::sleep(Duration::from_secs(3)).await;
    for (criticality, expected) in [
        (Some(Criticality::Sheddable), Code::Unavailable),
        (Some(Criticality::SheddablePlus), Code::Unavailable),
        (Some(Criticality::Critical), Code::Unauthenticated),
        (Some(Criticality::CriticalPlus), Code::Unauthenticated),
        (None, Code::Unauthenticated),
    ] {
        let reply = wire.call(saying(criticality), b"").await.unwrap();
        assert_eq!(Some(expected), reply.code(), "{criticality:?}");
    }
}

/// Goal: a handler, and whatever it calls, has the criticality of its call; strangers do not raise it.
/// Method: what handlers find, and what a request of theirs would say.
#[tokio::test(start_paused = true)]
async fn criticality_is_inherited_and_strangers_do_not_raise_it() {
    let probe = || {
        Probe::unary(|_| async {
            let found = call::with_current(|call| call.and_then(|call| call.criticality));
            let mut headers = http::HeaderMap::new();
            call::pass_on_criticality(&mut headers, None);
            let said = Criticality::of(&headers, true, None);
            if found == said {
                let said = said.map_or("nothing", Criticality::as_str);
                Ok(Response::new(said.into()))
            } else {
                Err(Status::internal("not what is said"))
            }
        })
    };
    for strangers in [false, true] {
        let mut router = Router::new().add(probe());
        if strangers {
            router = router.sample_by(Sampling::new(0.0));
        }
        let served = Served::new(router, Limits::default());
        let wire = Wire::over(served.connector.connect().await.unwrap()).await;
        for criticality in Criticality::ALL {
            let reply = wire.call(saying(Some(criticality)), b"").await.unwrap();
            let most = if strangers {
                Criticality::Critical
            } else {
                Criticality::CriticalPlus
            };
            let found = framed(criticality.min(most).as_str().as_bytes());
            assert_eq!(found, reply.data, "{criticality}, {strangers}");
        }
    }
}

impl Sent {
    /// The head of the answer; the rest is reset.
    async fn probe(self) -> Reply {
        let (head, _) = self.response.await.unwrap().into_parts();
        Reply {
            status: head.status,
            headers: head.headers,
            data: Bytes::new(),
            trailers: http::HeaderMap::new(),
        }
    }
}

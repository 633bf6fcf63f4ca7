//! What calls leave behind, with and without an exporter of spans.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;
use tonic::Code;
use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt as _};

use super::*;
use crate::{
    call::{self, TraceContext, trace::TRACEPARENT},
    caller::Peer,
    contract::{Access, Idempotency, Method},
    testing::telemetry::{Capture, capture},
};

static PLACE: Method = Method {
    path: "/shop.orders.v1.OrdersService/PlaceOrder",
    client_streaming: false,
    server_streaming: false,
    idempotency: Idempotency::Idempotent,
    access: Access::Public,
    role: None,
};
const PLACE_NAME: &str = "shop.orders.v1.OrdersService/PlaceOrder";

fn peer() -> Peer {
    Peer::Tcp(SocketAddr::from(([127, 0, 0, 1], 4_711)))
}

fn headers(sampled: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    TraceContext::root(sampled).inject(&mut headers);
    headers
}

fn orders() -> Arc<str> {
    "orders".into()
}

/// The context a server's stack makes for `call`.
fn context(call: &ServerCall) -> Arc<call::Context> {
    Arc::new(call::Context {
        method: &PLACE,
        peer: Some(peer()),
        deadline: None,
        trace: call.trace().clone(),
        previous_attempts: 0,
        criticality: None,
        ended: call::Ended::default(),
    })
}

fn durations(capture: &Capture, code: &str) -> Option<f64> {
    capture.value(
        "rpc_server_call_duration_seconds_count",
        &[
            ("rpc_method", PLACE_NAME),
            ("rpc_response_status_code", code),
        ],
    )
}

/// Goal: a caller that goes away at its deadline is told from one that changed its mind.
/// Method: two calls of 100 ms, dropped after 50 and after 95: a caller's clock runs ahead of ours.
#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_its_deadline_ran_out_of_time() {
    let capture = capture();
    let method = ServerMethod::new(&PLACE);
    let mut headers = HeaderMap::new();
    headers.insert("grpc-timeout", HeaderValue::from_static("100m"));
    for millis in [50, 95] {
        let call = method.start(&headers, None);
        tokio::time::advance(Duration::from_millis(millis)).await;
        drop(call);
    }
    assert_eq!(Some(1.0), durations(&capture, "CANCELLED"));
    assert_eq!(Some(1.0), durations(&capture, "DEADLINE_EXCEEDED"));
}

/// Goal: a call served is counted from its start to the end of its stream, under the code it ended
/// with; one that nobody waited for is CANCELLED.
/// Method: three calls on a paused clock, seen half-way and at the end.
#[tokio::test(start_paused = true)]
async fn served_calls_are_counted_by_code() {
    let capture = capture();
    let method = ServerMethod::new(&PLACE);
    let in_flight = || capture.value("gantry_server_calls_in_flight", &[]);
    assert_eq!(Some(0.0), durations(&capture, "OK"));

    let calls: Vec<_> = (0..3)
        .map(|_| method.start(&HeaderMap::new(), None))
        .collect();
    assert_eq!(Some(3.0), in_flight());
    tokio::time::advance(Duration::from_millis(30)).await;
    let mut calls = calls.into_iter();
    calls.next().unwrap().end(Code::Ok);
    calls.next().unwrap().end(Code::NotFound);
    drop(calls);

    assert_eq!(Some(0.0), in_flight());
    assert_eq!(
        Some(3.0),
        capture.value(
            "grpc_server_call_started_total",
            &[("grpc_method", PLACE_NAME)]
        )
    );
    for code in ["OK", "NOT_FOUND", "CANCELLED"] {
        assert_eq!(Some(1.0), durations(&capture, code), "{code}");
    }
    let within = |bound| {
        capture.value(
            "rpc_server_call_duration_seconds_bucket",
            &[("rpc_response_status_code", "OK"), ("le", bound)],
        )
    };
    assert_eq!((Some(0.0), Some(1.0)), (within("0.025"), within("0.05")));
}

/// Goal: a call made is counted as one, its attempts apart, by target.
/// Method: a call of three attempts.
#[tokio::test]
async fn attempts_are_counted_apart_from_the_call() {
    let capture = capture();
    let mut call = ClientMethod::new(&PLACE, &orders()).start(Instant::now());
    call.attempt(Try::First, 0, Instant::now())
        .end(Code::Unavailable);
    call.attempt(Try::Transparent, 0, Instant::now())
        .end(Code::Unavailable);
    call.attempt(Try::Transparent, 0, Instant::now())
        .end(Code::Ok);
    call.end(Code::Ok);
    drop(call);

    let target = [("grpc_target", "orders"), ("grpc_method", PLACE_NAME)];
    let expected = [
        ("grpc_client_attempt_started_total", 3.0),
        ("grpc_client_call_transparent_retries_total", 2.0),
    ];
    for (name, value) in expected {
        assert_eq!(Some(value), capture.value(name, &target), "{name}");
    }
    let attempts = |status| {
        capture.value(
            "grpc_client_attempt_duration_seconds_count",
            &[("grpc_target", "orders"), ("grpc_status", status)],
        )
    };
    assert_eq!(
        (Some(1.0), Some(2.0)),
        (attempts("OK"), attempts("UNAVAILABLE"))
    );
    assert_eq!(
        Some(1.0),
        capture.value(
            "rpc_client_call_duration_seconds_count",
            &[
                ("server_address", "orders"),
                ("rpc_response_status_code", "OK")
            ],
        )
    );
}

/// Goal: one trace runs from the caller through the server's span, the client's and the attempt's
/// to the wire, and the ids in logs and headers are those of the exported spans.
/// Method: a served call that logs and calls on; every link compared.
#[tokio::test]
async fn spans_logs_and_headers_share_one_trace() {
    let capture = capture();
    let incoming = headers(true);
    let remote = TraceContext::extract(&incoming).unwrap();

    let call = ServerMethod::new(&PLACE).start(&incoming, Some(peer()));
    let mut outgoing = HeaderMap::new();
    call.span().in_scope(|| {
        let _entered = call::enter(context(&call));
        tracing::info!("placing");
        let mut made = ClientMethod::new(&PLACE, &orders()).start(Instant::now());
        let mut attempt = made.attempt(Try::Transparent, 2, Instant::now());
        attempt.picked(SocketAddr::from(([10, 0, 0, 7], 50_051)));
        attempt.inject(&mut outgoing);
        attempt.end(Code::Ok);
        drop(attempt);
        made.end(Code::Ok);
        drop(made);
    });
    let own = call.trace().clone();
    call.end(Code::Internal);

    let spans = capture.spans();
    let [attempt, made, server] = &spans[..] else {
        panic!("three spans, not {spans:?}");
    };
    let sent = TraceContext::extract(&outgoing).unwrap();
    assert!(spans.iter().all(|span| span.trace_id == remote.trace_id));
    assert_eq!(Some(remote.span_id), server.parent_id);
    assert_eq!(own.span_id, server.span_id);
    assert_eq!(Some(server.span_id), made.parent_id);
    assert_eq!(Some(made.span_id), attempt.parent_id);
    assert_eq!((attempt.span_id, true), (sent.span_id, sent.sampled));
    assert_eq!(
        ["client", "internal", "server"],
        [attempt.kind, made.kind, server.kind]
    );
    assert!(spans.iter().all(|span| span.name == PLACE_NAME));

    let line = &capture.lines()[0];
    let id = |name| line.get(name).unwrap();
    assert_eq!(format!("{:032x}", remote.trace_id), id("trace_id"));
    assert_eq!(format!("{:016x}", server.span_id), id("span_id"));
    assert_eq!(PLACE_NAME, id("rpc_method"));
    assert_eq!(["placing"], server.events[..]);

    let has =
        |span: &crate::testing::telemetry::Span, name: &str| span.attributes.get(name).cloned();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(text("grpc"), has(server, "rpc.system.name"));
    assert_eq!(text(PLACE_NAME), has(server, "rpc.method"));
    assert_eq!(text("INTERNAL"), has(server, "rpc.response.status_code"));
    assert_eq!(text("INTERNAL"), has(server, "error.type"));
    assert_eq!(text("127.0.0.1"), has(server, "network.peer.address"));
    assert!(server.error && !attempt.error && !made.error);
    assert_eq!(text("orders"), has(attempt, "server.address"));
    assert_eq!(text("10.0.0.7"), has(attempt, "network.peer.address"));
    assert_eq!(text("50051"), has(attempt, "network.peer.port"));
    assert_eq!(text("true"), has(attempt, "transparent-retry"));
    assert_eq!(text("2"), has(attempt, "previous-rpc-attempts"));
    assert_eq!(None, has(made, "error.type"));
}

/// Goal: only codes that blame the server mark its span; every code but OK marks a client's.
/// Method: all codes, by the list of the conventions.
#[tokio::test]
async fn a_span_is_an_error_where_its_side_is_to_blame() {
    let capture = capture();
    let server = ServerMethod::new(&PLACE);
    let client = ClientMethod::new(&PLACE, &orders());
    for code in (0..17).map(Code::from_i32) {
        server.start(&HeaderMap::new(), None).end(code);
        client.start(Instant::now()).end(code);
    }
    for pair in capture.spans().chunks(2) {
        let code = &pair[0].attributes["rpc.response.status_code"];
        let blamed = [
            "UNKNOWN",
            "DEADLINE_EXCEEDED",
            "UNIMPLEMENTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
        ];
        assert_eq!(blamed.contains(&code.as_str()), pair[0].error, "{code}");
        assert_eq!(code != "OK", pair[1].error, "{code}");
    }
}

/// Goal: a span covers the stream, not only the way to its headers.
/// Method: a call that is left at once and ended later.
#[tokio::test]
async fn a_server_span_lasts_until_the_end_of_the_stream() {
    let capture = capture();
    let served = ServerMethod::new(&PLACE).start(&HeaderMap::new(), None);
    served.span().in_scope(|| {});
    let began = tokio::time::Instant::now();
    while began.elapsed() < Duration::from_millis(5) {
        std::hint::spin_loop();
    }
    served.end(Code::Ok);
    assert!(capture.spans()[0].duration >= Duration::from_millis(5));
}

/// Goal: work that runs outside the call's span still belongs to its trace.
/// Method: a client call under the call's context alone.
#[tokio::test]
async fn work_outside_the_span_stays_in_the_trace() {
    let capture = capture();
    let served = ServerMethod::new(&PLACE).start(&headers(true), None);
    {
        let _entered = call::enter(context(&served));
        ClientMethod::new(&PLACE, &orders())
            .start(Instant::now())
            .end(Code::Ok);
    }
    let made = &capture.spans()[0];
    assert_eq!(served.trace().trace_id, made.trace_id);
    assert_eq!(Some(served.trace().span_id), made.parent_id);
}

/// Goal: a caller that does not sample is followed: nothing is recorded, its trace goes on.
/// Method: an unsampled request through server and client.
#[tokio::test]
async fn an_unsampled_trace_goes_on_unrecorded() {
    let capture = capture();
    let incoming = headers(false);
    let remote = TraceContext::extract(&incoming).unwrap();
    let mut outgoing = HeaderMap::new();
    let served = ServerMethod::new(&PLACE).start(&incoming, None);
    served.span().in_scope(|| {
        let _entered = call::enter(context(&served));
        let made = ClientMethod::new(&PLACE, &orders()).start(Instant::now());
        made.attempt(Try::First, 0, Instant::now())
            .inject(&mut outgoing);
    });
    served.end(Code::Ok);

    let sent = TraceContext::extract(&outgoing).unwrap();
    assert_eq!((remote.trace_id, false), (sent.trace_id, sent.sampled));
    assert_ne!(remote.span_id, sent.span_id);
    assert!(capture.spans().is_empty());
}

/// Goal: without an exporter the trace goes on with fresh ids and the caller's flag and state, and
/// no span exists.
/// Method: a subscriber that wants nothing (with none at all, what other tests' subscribers want
/// would hold here too); sampled with state, unsampled, malformed and no parent.
#[tokio::test]
async fn without_an_exporter_the_trace_goes_on() {
    let nothing = tracing_subscriber::registry().with(LevelFilter::OFF);
    let _wanted = tracing::subscriber::set_default(nothing);
    let method = ServerMethod::new(&PLACE);
    for sampled in [true, false] {
        let mut incoming = headers(sampled);
        incoming.insert("tracestate", HeaderValue::from_static("vendor=1"));
        let remote = TraceContext::extract(&incoming).unwrap();
        let served = method.start(&incoming, None);
        assert!(served.span().is_disabled());
        assert_eq!(remote.trace_id, served.trace().trace_id);
        assert_ne!(remote.span_id, served.trace().span_id);

        let _entered = call::enter(context(&served));
        let made = ClientMethod::new(&PLACE, &orders()).start(Instant::now());
        let mut outgoing = HeaderMap::new();
        made.attempt(Try::First, 0, Instant::now())
            .inject(&mut outgoing);
        let sent = TraceContext::extract(&outgoing).unwrap();
        assert_eq!(remote.trace_id, sent.trace_id);
        assert_ne!(served.trace().span_id, sent.span_id);
        assert_eq!((sampled, &remote.state), (sent.sampled, &sent.state));
    }

    let mut broken = HeaderMap::new();
    broken.insert(&TRACEPARENT, HeaderValue::from_static("00-garbage"));
    for headers in [broken, HeaderMap::new()] {
        let served = method.start(&headers, None);
        assert!(!served.trace().sampled && served.trace().trace_id != 0);
    }
}

/// Goal: whatever callers send, the number of series stays what it was.
/// Method: 10⁵ calls with random headers, peers and codes, on a known and on the unknown method;
/// series counted after all codes were seen once and again at the end.
#[tokio::test]
async fn callers_cannot_make_series() {
    let capture = capture();
    let methods = [ServerMethod::new(&PLACE), ServerMethod::other()];
    let call = |round: usize| {
        let mut headers = headers(false);
        let path = format!("/{:x}/{round}", fastrand::u64(..));
        headers.insert("x-path", HeaderValue::try_from(path).unwrap());
        let peer = Peer::Tcp(SocketAddr::from((fastrand::u32(..).to_be_bytes(), 1)));
        let code = Code::from_i32(i32::try_from(round % 17).unwrap());
        methods[round / 17 % 2]
            .start(&headers, Some(peer))
            .end(code);
    };
    let quiet = tracing::subscriber::set_default(tracing::subscriber::NoSubscriber::new());
    (0..34).for_each(call);
    let before = capture.all_series().len();
    (0..100_000).for_each(call);
    drop(quiet);

    assert_eq!(before, capture.all_series().len());
    let methods: std::collections::BTreeSet<_> = capture
        .series("grpc_server_call_started_total")
        .into_iter()
        .map(|series| series.labels["grpc_method"].clone())
        .collect();
    assert_eq!(2, methods.len());
    assert!(methods.contains("_OTHER"));
}

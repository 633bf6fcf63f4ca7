//! Spans at a real collector, and at collectors that do not work.

use std::sync::Mutex;

use http::HeaderMap;
use opentelemetry::trace::{Tracer as _, TracerProvider as _};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::{ResourceSpans, Span as ProtoSpan},
};
use opentelemetry_sdk::error::OTelSdkError;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};
use tracing_subscriber::{layer::SubscriberExt as _, registry};

use super::*;
use crate::{
    call::TraceContext,
    contract::{Access, Idempotency, Method},
    telemetry::{Sampling, rpc::ServerMethod},
    testing::telemetry::{Capture, Line, capture},
};

static PLACE: Method = Method {
    path: "/shop.orders.v1.OrdersService/PlaceOrder",
    client_streaming: false,
    server_streaming: false,
    idempotency: Idempotency::Idempotent,
    access: Access::Public,
    role: None,
};

const ORDERS: Identity<'static> = Identity {
    service: "orders",
    version: "1.2.3",
    instance: "orders-7f",
};

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ResourceSpans>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let received = request.into_inner().resource_spans;
        self.0.lock().unwrap().extend(received);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Serves until `stop`; the address is where.
    async fn serve(&self, stop: CancellationToken) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(self.clone());
        #[allow(clippy::disallowed_methods)]
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming_shutdown(
                    TcpListenerStream::new(listener),
                    stop.cancelled_owned(),
                ),
        );
        address.to_string()
    }

    fn spans(&self) -> Vec<ProtoSpan> {
        let received = self.0.lock().unwrap();
        received
            .iter()
            .flat_map(|resource| &resource.scope_spans)
            .flat_map(|scope| scope.spans.clone())
            .collect()
    }

    fn resource(&self, name: &str) -> Option<String> {
        let received = self.0.lock().unwrap();
        let attributes = &received.first()?.resource.as_ref()?.attributes;
        let attribute = attributes.iter().find(|attribute| attribute.key == name)?;
        match attribute.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => Some(text.clone()),
            _ => None,
        }
    }
}

fn to(endpoint: String) -> Config {
    Config {
        otlp_endpoint: Some(endpoint),
        ..Config::default()
    }
}

fn dropped(capture: &Capture, reason: &str) -> Option<f64> {
    capture.value("gantry_spans_dropped_total", &[("reason", reason)])
}

fn exported(capture: &Capture) -> Option<f64> {
    capture.value("gantry_spans_exported_total", &[])
}

fn warnings(capture: &Capture) -> usize {
    let lines = capture.lines();
    lines.iter().filter(|line| line.level() == "WARN").count()
}

/// Ends one span on its way through `pipeline`.
fn end_span(pipeline: &Pipeline) {
    drop(pipeline.provider.tracer("test").start("span"));
}

/// Goal: a call's span reaches a collector over OTLP/gRPC with its parent, its times and who sent
/// it, before the process ends; the export itself makes no spans.
/// Method: a collector of the real contract; one call with a remote parent, on the runtime that
/// also carries the export, with every other span on; once it has arrived, a second one, so that
/// what the first export left behind would be sent with it.
#[tokio::test]
async fn a_call_arrives_at_a_collector() {
    let collector = Collector::default();
    let stop = CancellationToken::new();
    let endpoint = collector.serve(stop.clone()).await;
    let config = Config {
        span_delay_max: Duration::from_millis(10),
        ..to(endpoint)
    };
    let pipeline = Pipeline::start(&ORDERS, &config).unwrap().unwrap();
    let subscriber = registry().with(pipeline.layer());
    let _default = tracing::subscriber::set_default(subscriber);

    let remote = TraceContext::root(true);
    let mut headers = HeaderMap::new();
    remote.inject(&mut headers);
    let method = ServerMethod::new(&PLACE);
    let served = method.start(&headers, None);
    let own = served.trace().clone();
    served.end(Code::Ok);
    while collector.spans().is_empty() {
        tokio::task::yield_now().await;
    }
    method.start(&HeaderMap::new(), None).end(Code::Ok);
    pipeline.shutdown(Duration::from_secs(10)).await;
    stop.cancel();

    let spans = collector.spans();
    assert_eq!(2, spans.len(), "{spans:?}");
    let span = &spans[0];
    assert_eq!("shop.orders.v1.OrdersService/PlaceOrder", span.name);
    assert_eq!(remote.trace_id.to_be_bytes()[..], span.trace_id);
    assert_eq!(remote.span_id.to_be_bytes()[..], span.parent_span_id);
    assert_eq!(own.span_id.to_be_bytes()[..], span.span_id);
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    let expected = [
        ("service.name", "orders"),
        ("service.version", "1.2.3"),
        ("service.instance.id", "orders-7f"),
    ];
    for (name, value) in expected {
        assert_eq!(Some(value), collector.resource(name).as_deref(), "{name}");
    }
}

/// Goal: with a ratio, traces begun here are recorded in that share, and a caller's decision
/// stands.
/// Method: a ratio of nothing, with and without a parent that samples.
#[tokio::test]
async fn a_ratio_holds_for_traces_begun_here() {
    let config = Config {
        sample_ratio: Some(0.0),
        ..Config::default()
    };
    let exporter = Scripted::default();
    let pipeline = Pipeline::over(exporter.clone(), &ORDERS, &config);
    let subscriber = registry().with(pipeline.layer());
    let _default = tracing::subscriber::set_default(subscriber);
    let method = ServerMethod::new(&PLACE);

    let begun = method.start(&HeaderMap::new(), None);
    assert!(!begun.trace().sampled);
    begun.end(Code::Ok);
    let mut headers = HeaderMap::new();
    TraceContext::root(true).inject(&mut headers);
    let continued = method.start(&headers, None);
    assert!(continued.trace().sampled);
    continued.end(Code::Ok);

    pipeline.shutdown(Duration::from_secs(10)).await;
    assert_eq!(vec![1], *exporter.batches.lock().unwrap());
}

/// Goal: where callers are strangers the ratio holds for their traces, too, in which the calls stay.
/// Method: a ratio of nothing and one of all, each with a parent that says the opposite.
#[tokio::test]
async fn a_ratio_holds_for_traces_of_strangers() {
    for (ratio, batches) in [(0.0, vec![]), (1.0, vec![1])] {
        let config = Config {
            sample_ratio: Some(ratio),
            ..Config::default()
        };
        let exporter = Scripted::default();
        let pipeline = Pipeline::over(exporter.clone(), &ORDERS, &config);
        let subscriber = registry().with(pipeline.layer());
        let _default = tracing::subscriber::set_default(subscriber);
        let remote = TraceContext::root(ratio < 0.5);
        let mut headers = HeaderMap::new();
        remote.inject(&mut headers);
        Sampling::new(pipeline.ratio()).decide(&mut headers);

        let served = ServerMethod::new(&PLACE).start(&headers, None);
        let own = served.trace().clone();
        assert_eq!(
            (remote.trace_id, !remote.sampled),
            (own.trace_id, own.sampled)
        );
        served.end(Code::Ok);
        pipeline.shutdown(Duration::from_secs(10)).await;
        assert_eq!(batches, *exporter.batches.lock().unwrap(), "{ratio}");
    }
}

/// Fails while told to, and notes the sizes of batches that came.
#[derive(Debug, Clone, Default)]
struct Scripted {
    failing: Arc<AtomicBool>,
    batches: Arc<Mutex<Vec<usize>>>,
}

impl SpanExporter for Scripted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.batches.lock().unwrap().push(batch.len());
        if self.failing.load(Ordering::SeqCst) {
            return Err(OTelSdkError::InternalFailure("refused".to_owned()));
        }
        Ok(())
    }
}

/// Goal: an outage is one warning and one all-clear, whatever it costs; each lost span is counted.
/// Method: the exporter alone, through two outages of several batches.
#[test]
fn an_outage_is_told_once() {
    let capture = capture();
    let inner = Scripted::default();
    let account = Account::new(2_048);
    account.waiting.store(2_048, Ordering::Relaxed);
    let observed = Observed {
        inner: inner.clone(),
        account: Arc::new(account),
    };
    let provider = SdkTracerProvider::builder().build();
    let export = |spans: usize| {
        let span = provider.tracer("test").start("span");
        let data = opentelemetry_sdk::trace::Span::exported_data(&span).unwrap();
        drop(now(observed.export(vec![data; spans])));
    };
    for (failing, spans) in [
        (false, 1),
        (true, 10),
        (true, 20),
        (false, 2),
        (true, 5),
        (true, 5),
        (false, 3),
    ] {
        inner.failing.store(failing, Ordering::SeqCst);
        export(spans);
    }

    assert_eq!(Some(40.0), dropped(&capture, "export_failed"));
    assert_eq!(Some(6.0), exported(&capture));
    let levels: Vec<_> = capture.lines().iter().map(Line::level).collect();
    assert_eq!(["WARN", "INFO", "WARN", "INFO"], levels[..]);
}

/// Goal: what the client of RabbitMQ tells of messages that came back, with all that is in them, is no part of
/// a trace.
/// Method: a span in which it tells of one, and we of something.
#[test]
fn what_came_back_is_not_traced() {
    let capture = capture();
    tracing::info_span!("io_loop").in_scope(|| {
        tracing::warn!(
            target: "lapin::returned_messages",
            message = "a secret",
            "Server returned us a message"
        );
        tracing::info!("ours");
    });
    let spans = capture.spans();
    assert_eq!(["ours"], spans[0].events[..]);
    assert!(!capture.text().contains("secret"), "{}", capture.text());
}

/// Goal: the bound is on spans that wait, not on spans ever made.
/// Method: fill a queue of ten and export it, three times.
#[test]
fn exported_spans_make_room() {
    let capture = capture();
    let config = Config {
        span_queue_max: 10,
        ..Config::default()
    };
    let pipeline = Pipeline::over(Scripted::default(), &ORDERS, &config);
    for _ in 0..3 {
        for _ in 0..10 {
            end_span(&pipeline);
        }
        pipeline.provider.force_flush().unwrap();
    }
    assert_eq!(Some(30.0), exported(&capture));
    assert_eq!(Some(0.0), dropped(&capture, "queue_full"));
}

/// Runs a future that never waits.
fn now<F: Future>(future: F) -> F::Output {
    use futures_util::FutureExt as _;
    future.now_or_never().expect("it does not wait")
}

/// Never answers.
#[derive(Debug)]
struct Hanging;

impl SpanExporter for Hanging {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        std::future::pending().await
    }
}

/// Goal: a collector that hangs costs spans, never time or memory: what ends waits within the
/// bound, the rest is counted, and the process ends in time.
/// Method: 50,000 spans at a collector that never answers; places counted; shutdown timed.
#[tokio::test]
async fn a_hanging_collector_costs_spans_alone() {
    const SPANS: u32 = 50_000;
    let capture = capture();
    let pipeline = Pipeline::over(Hanging, &ORDERS, &Config::default());
    let began = tokio::time::Instant::now();
    for _ in 0..SPANS {
        end_span(&pipeline);
    }
    let taken = began.elapsed();

    let lost = dropped(&capture, "queue_full").unwrap();
    // Those that wait, and perhaps one batch that is being sent.
    let held = f64::from(SPANS) - lost;
    assert!((2_048.0..=2_048.0 + 512.0).contains(&held), "{held}");
    assert_eq!(1, warnings(&capture), "{:?}", capture.lines());
    assert!(taken < Duration::from_secs(5), "{taken:?}");

    let began = tokio::time::Instant::now();
    pipeline.shutdown(Duration::from_millis(200)).await;
    assert!(began.elapsed() < Duration::from_secs(2));
}

/// Goal: a collector that is down loses spans into a counter, and the process ends in time.
/// Method: the real exporter at a port nobody listens on; every span accounted for.
#[tokio::test]
async fn a_collector_that_is_down_is_accounted_for() {
    let capture = capture();
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = unused.local_addr().unwrap().to_string();
    drop(unused);
    let pipeline = Pipeline::start(&ORDERS, &to(endpoint)).unwrap().unwrap();
    for _ in 0..100 {
        end_span(&pipeline);
    }
    let began = tokio::time::Instant::now();
    pipeline.shutdown(Duration::from_secs(10)).await;
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(
        (Some(100.0), Some(0.0)),
        (dropped(&capture, "export_failed"), exported(&capture))
    );
}

/// Goal: an endpoint that nobody could dial is refused with the configuration.
/// Method: addresses as people write them.
#[test]
fn endpoints_are_checked() {
    for good in [
        "127.0.0.1:4317",
        "http://collector:4317",
        "https://c.example",
        "[::1]:4317",
    ] {
        assert!(is_endpoint(good), "{good}");
    }
    for bad in ["", "ftp://c:21", "http://", "a b:1", "unix:///tmp/x"] {
        assert!(!is_endpoint(bad), "{bad}");
    }
}

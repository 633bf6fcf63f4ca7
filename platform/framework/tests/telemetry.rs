//! Telemetry of a whole process: set up once, read from outside.
//!
//! One process has one log and one set of metrics, so each case runs this program again as a child
//! and looks at what comes out of it. That is why it has no test harness.

// A test all the same; clippy knows tests by their attribute.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    process::{Command, ExitCode, Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use gantry::{
    call,
    contract::{Access, Idempotency, Method},
    journal::Journal,
    names::{Kind, Metric, metric},
    shutdown::Tasks,
    telemetry::{
        self, Config, InitError, LogFormat, Telemetry,
        metric::{Counter, Gauge, Histogram, Value, series},
        rpc::ServerMethod,
    },
};
use http::HeaderMap;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

static PLACE: Method = Method {
    path: "/shop.orders.v1.OrdersService/PlaceOrder",
    client_streaming: false,
    server_streaming: false,
    idempotency: Idempotency::Idempotent,
    access: Access::Public,
    role: None,
};

/// Names the child's part.
const CHILD: &str = "--as-child=";

fn main() -> ExitCode {
    let part = std::env::args().find_map(|argument| {
        let part = argument.strip_prefix(CHILD)?;
        Some(part.to_owned())
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    if let Some(part) = part {
        runtime.block_on(child(&part));
        return ExitCode::SUCCESS;
    }
    runtime.block_on(async {
        lines_are_json_and_a_panic_is_one_of_them().await;
        nobody_waits_for_a_log_that_nobody_reads().await;
        the_exposition_describes_every_series().await;
        the_environment_names_the_collector().await;
        a_collector_that_hangs_delays_the_end_within_its_bound().await;
    });
    ExitCode::SUCCESS
}

async fn child(part: &str) {
    let identity = telemetry::Identity {
        service: "orders",
        version: "1.2.3",
        instance: "orders-1",
    };
    let config = Config {
        log_format: LogFormat::Json,
        ..Config::default()
    };
    let tasks = Tasks::new(Journal::new());
    let telemetry = telemetry::init(&identity, &config, &tasks).unwrap();
    match part {
        "panic" => {
            tracing::info!("before");
            let payload = std::thread::Builder::new()
                .name("worker".to_owned())
                .spawn(|| std::panic::panic_any(vec!["canary"]))
                .unwrap();
            payload.join().unwrap_err();
            let message = std::thread::spawn(|| panic!("order {} is lost", 7));
            message.join().unwrap_err();
            let serving = std::thread::spawn(|| {
                let _entered = call::enter(Arc::new(serving()));
                panic!("the request was canary");
            });
            serving.join().unwrap_err();
            let again = telemetry::init(&identity, &config, &tasks);
            assert!(matches!(again, Err(InitError::Twice)));
            let call = ServerMethod::new(&PLACE).start(&HeaderMap::new(), None);
            assert!(call.span().is_disabled(), "nobody exports spans");
            tracing::info!("after");
        }
        "flood" => {
            let line = "x".repeat(1_000);
            for _ in 0..5_000 {
                tracing::info!(line, "flood");
            }
        }
        "metrics" => measure_everything(&telemetry),
        "span" => {
            let call = ServerMethod::new(&PLACE).start(&HeaderMap::new(), None);
            assert!(call.trace().sampled);
            call.end(Code::Ok);
        }
        other => panic!("no part {other}"),
    }
    telemetry.shutdown().await;
}

/// A call to [`PLACE`].
fn serving() -> call::Context {
    call::Context {
        method: &PLACE,
        peer: None,
        deadline: None,
        trace: call::TraceContext::root(false),
        previous_attempts: 0,
        criticality: None,
        ended: call::Ended::default(),
    }
}

/// Makes every metric of the platform appear, and prints them all.
fn measure_everything(telemetry: &Telemetry) {
    let asked_for_when_written = ["process_", "gantry_runtime_"];
    for declared in metric::ALL {
        let name = declared.name;
        if asked_for_when_written
            .iter()
            .any(|family| name.starts_with(family))
        {
            continue;
        }
        let values: Vec<Value> = declared.labels.iter().map(|_| "value".into()).collect();
        match declared.kind {
            Kind::Counter => series::<Counter>(declared, &values).increment(),
            Kind::Gauge => series::<Gauge>(declared, &values).increment(),
            Kind::Histogram => series::<Histogram>(declared, &values).record(0.5),
        }
    }
    println!("{}", telemetry.render_metrics());
}

fn command(part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .arg(format!("{CHILD}{part}"))
        .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null());
    command
}

/// Runs the child to its end, a minute at most.
async fn run(mut command: Command) -> Output {
    let ended = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = tokio::time::timeout(Duration::from_mins(1), ended).await;
    let output = output.expect("the child ends").unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

/// Goal: standard output holds JSON lines alone, a panic is one of them with its place and
/// message. A payload that is no message is not shown, nor is what a call panicked with. Nothing
/// keeps spans without a collector.
/// Method: a child with three panics, a second set-up that is refused, and a call.
async fn lines_are_json_and_a_panic_is_one_of_them() {
    let output = run(command("panic")).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let messages: Vec<_> = lines.iter().map(|line| &line["message"]).collect();
    let expected = ["before", "panicked", "panicked", "panicked", "after"];
    assert_eq!(expected[..], messages[..], "{text}");
    assert_eq!("worker", lines[1]["thread"]);
    assert_eq!("order 7 is lost", lines[2]["panic"]);
    let location = lines[2]["location"].as_str().unwrap();
    assert!(location.contains("telemetry.rs:"), "{text}");
    let location = lines[3]["location"].as_str().unwrap();
    assert!(location.contains("telemetry.rs:"), "{text}");
    assert!(lines[3].get("panic").is_none(), "{text}");
    assert!(lines[2].get("backtrace").is_none(), "{text}");
    assert!(!text.contains("canary"), "{text}");
    assert_eq!("", String::from_utf8(output.stderr).unwrap());
}

/// Goal: a process whose output nobody reads works on and ends.
/// Method: a child that logs five megabytes into a pipe that is never read.
async fn nobody_waits_for_a_log_that_nobody_reads() {
    let mut child = command("flood").stdout(Stdio::piped()).spawn().unwrap();
    let unread = child.stdout.take().unwrap();
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap());
    let status = tokio::time::timeout(Duration::from_secs(30), ended).await;
    assert!(status.expect("the child ends").unwrap().success());
    drop(unread);
}

/// Goal: every metric of the platform appears under its declared kind, every series belongs to a
/// family with help and type, no family comes twice, and what the system tells makes sense.
/// Method: the exposition of a child that uses every declared metric, line by line.
async fn the_exposition_describes_every_series() {
    let output = run(command("metrics")).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let families = check_families(&text);
    for declared in metric::ALL {
        let kind = match declared.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        assert!(families.contains(&(declared.name, kind)), "{declared:?}");
    }
    let value = |metric: &Metric| -> f64 {
        let prefix = format!("{} ", metric.name);
        let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
        line.unwrap_or_else(|| panic!("{} is missing", metric.name))
            .parse()
            .unwrap()
    };
    assert!(value(&metric::PROCESS_RESIDENT) > 1_000_000.0);
    assert!(value(&metric::PROCESS_VIRTUAL) >= value(&metric::PROCESS_RESIDENT));
    assert!(value(&metric::PROCESS_CPU) < 60.0);
    assert!(value(&metric::PROCESS_OPEN_FDS) >= 3.0);
    assert!(value(&metric::PROCESS_MAX_FDS) >= value(&metric::PROCESS_OPEN_FDS));
    assert!(value(&metric::PROCESS_THREADS) >= 3.0);
    assert!(value(&metric::PROCESS_START) > 1_700_000_000.0);
    assert!(value(&metric::RUNTIME_WORKERS) > 1.0);
    assert!(value(&metric::RUNTIME_TASKS) >= 1.0);
}

/// Name and type of each family.
fn check_families(text: &str) -> Vec<(&str, &str)> {
    let mut families: Vec<(&str, &str)> = Vec::new();
    let mut helped = "";
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split_once(' ').unwrap().0;
        } else if let Some(family) = line.strip_prefix("# TYPE ") {
            let family = family.split_once(' ').unwrap();
            assert_eq!(helped, family.0, "{line}");
            assert!(families.iter().all(|(name, _)| *name != family.0), "{line}");
            families.push(family);
        } else {
            let name = line.split(['{', ' ']).next().unwrap();
            let (family, kind) = *families.last().unwrap();
            let mut parts = ["_bucket", "_sum", "_count"].into_iter();
            let is_part = parts.any(|part| name.strip_suffix(part) == Some(family));
            let expected = if kind == "histogram" {
                is_part
            } else {
                name == family
            };
            assert!(expected, "{line}");
        }
    }
    families
}

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Goal: OpenTelemetry's own variable switches the export on, and what waits is sent at the end.
/// Method: a child that knows the collector by the variable alone.
async fn the_environment_names_the_collector() {
    let collector = Collector::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let mut child = command("span");
    child.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    tokio::select! {
        _ = run(child) => {}
        ended = server => panic!("the collector ended: {ended:?}"),
    }
    let requests = collector.0.lock().unwrap();
    let spans = requests
        .iter()
        .flat_map(|request| &request.resource_spans)
        .flat_map(|resource| &resource.scope_spans)
        .flat_map(|scope| &scope.spans);
    assert_eq!(1, spans.count());
}

/// Goal: a collector that accepts and never answers delays the end of a process by its bound.
/// Method: a child that exports to a listener nobody serves.
async fn a_collector_that_hangs_delays_the_end_within_its_bound() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let mut child = command("span");
    child.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    let began = tokio::time::Instant::now();
    run(child).await;
    let taken = began.elapsed();
    // The bound, and a start and an end on a busy machine.
    assert!(
        taken < telemetry::SHUTDOWN_MAX + Duration::from_secs(3),
        "{taken:?}"
    );
}

//! What the chassis costs per call, beside bare tonic, and per event, beside clients of brokers.
//!
//! `bench-server` and `bench-client` each play either side with either stack, and `bench-forward`
//! stands between them; `bench-registry` and `bench-follower` play a name with many endpoints and
//! whoever follows it. `bench-events` publishes and consumes with all of the platform, `bench-bare` with
//! lapin or tonic alone, and `bench-broker` is the local broker. `bench` runs them against each other and
//! writes docs/performance.md.

use std::{fmt, pin::Pin, str::FromStr};

use gantry::{
    BoxError,
    client::{Channel, Clients, Config},
    journal::Journal,
    shutdown::Tasks,
    telemetry,
};
use gantry_api::health::v1::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
    health_check_response::ServingStatus, health_server,
};
use proto::{EchoRequest, EchoResponse, bench_service_server::BenchService};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, body::Body};
use tower::{Service, ServiceExt as _};

pub mod events;

mod contracts {
    gantry::include_contracts!();
}

pub use contracts::bench::v1 as proto;

/// The name that stands for many endpoints.
pub const NAME: &str = "bench";
/// Changes of the registry a second.
pub const RATE: usize = 100;

/// The service that is called.
#[derive(Debug)]
pub struct Echo;

#[tonic::async_trait]
impl BenchService for Echo {
    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        let payload = request.into_inner().payload;
        Ok(Response::new(EchoResponse { payload }))
    }
}

/// Serves, and says so.
#[derive(Debug)]
pub struct Healthy;

fn serving() -> HealthCheckResponse {
    HealthCheckResponse {
        status: ServingStatus::Serving.into(),
    }
}

#[tonic::async_trait]
impl health_server::Health for Healthy {
    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(serving()))
    }

    async fn list(
        &self,
        _: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        Ok(Response::new(HealthListResponse::default()))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let changes = tokio_stream::once(Ok(serving())).chain(tokio_stream::pending());
        Ok(Response::new(Box::pin(changes)))
    }
}

/// Logs, metrics, and spans for whoever asks, as a service has them.
///
/// # Errors
///
/// If they are set up already.
pub fn observed(tasks: &Tasks) -> Result<(), telemetry::InitError> {
    let identity = telemetry::Identity {
        service: "bench",
        version: "0",
        instance: "0",
    };
    let telemetry = telemetry::init(&identity, &telemetry::Config::default(), tasks);
    counted_from_here();
    telemetry.map(drop)
}

/// The function at which callgrind begins to count. What comes before has a clock set, for which it is
/// read until a time has passed: as often as the machine is fast.
#[inline(never)]
pub fn counted_from_here() {
    std::hint::black_box(());
}

/// A channel to the etcd at `address`, as etcd's client takes it.
#[must_use]
pub fn etcd_channel(
    address: &str,
) -> impl Service<http::Request<Body>, Response = http::Response<Body>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ Sync
+ use<> {
    let configs = [("etcd".to_owned(), Config::to(address))].into();
    let journal = Journal::new();
    let clients = Clients::new(configs, Tasks::new(journal.clone()), journal);
    let channel: Channel = clients.client("etcd");
    channel
        .map_response(|answer| answer.map(Body::new))
        .map_err(Into::into)
}

/// Which stack plays a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stack {
    /// tonic's own server or channel, with its defaults.
    Tonic,
    /// Gantry's whole stack: metrics, deadlines, limits and all; no trace exporter.
    Gantry,
}

impl FromStr for Stack {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tonic" => Ok(Self::Tonic),
            "gantry" => Ok(Self::Gantry),
            other => Err(format!("{other} is neither tonic nor gantry")),
        }
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tonic => "tonic",
            Self::Gantry => "gantry",
        })
    }
}

/// CPU time of this process's one thread so far, user and system, in microseconds.
///
/// As the kernel tells it in a file: the clock's fast path reads memory that valgrind does not
/// show, and a program that is being counted would crash on it.
#[must_use]
pub fn cpu_micros() -> u64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanos = text
        .split_ascii_whitespace()
        .next()
        .and_then(|nanos| nanos.parse().ok());
    nanos.map_or(0, |nanos: u64| nanos / 1_000)
}

/// Tells the runner something, on a line of its own.
pub fn print(said: impl fmt::Display) {
    use std::io::Write as _;
    let mut output = std::io::stdout().lock();
    // A runner that has gone ends this process by closing its input.
    drop(writeln!(output, "{said}").and_then(|()| output.flush()));
}

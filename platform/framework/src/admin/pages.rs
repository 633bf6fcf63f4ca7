//! What the side port answers: three pages, and gRPC.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Serialize;
use tonic::body::Body;

use super::{grpc::Grpc, guard};
use crate::{
    health::{CheckReport, Health, Liveness, Status, Verdict},
    status::Refusal,
};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// The Prometheus text format.
const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");

/// Says why the process is not registered yet, where it is to be.
pub(crate) type Unregistered = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// Draws the metrics as Prometheus text.
pub(crate) type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// Answers requests of the side port.
pub(crate) struct Pages {
    pub(crate) health: Health,
    pub(crate) liveness: Liveness,
    pub(crate) metrics: Render,
    pub(crate) unregistered: Unregistered,
    pub(crate) grpc: Grpc,
    /// Names by which the side port may be asked for, beside addresses.
    pub(crate) hosts: Vec<String>,
}

/// The body of `/livez` and `/readyz`.
#[derive(Serialize)]
struct State<'a> {
    status: &'a str,
    checks: Vec<Check<'a>>,
}

#[derive(Serialize)]
struct Check<'a> {
    name: &'a str,
    status: &'a str,
    reason: &'a str,
    latency_ms: Option<f64>,
}

impl Pages {
    /// Answers one request.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let allowed = guard::check(request.uri(), request.headers(), &self.hosts);
        match allowed {
            Err(refused) if is_grpc(&request) => {
                return Refusal::Remote.status(refused.to_string()).into_http();
            }
            Err(refused) => return page(StatusCode::FORBIDDEN, TEXT, format!("{refused}\n")),
            Ok(()) if is_grpc(&request) => return self.grpc.call(request).await,
            Ok(()) => {}
        }
        let answer: fn(&Self) -> Response<Body> = match request.uri().path() {
            "/livez" => Self::live,
            "/readyz" => Self::ready,
            "/metrics" => Self::metrics,
            _ => {
                let known = "the side port has /livez, /readyz, /metrics and gRPC\n";
                return page(StatusCode::NOT_FOUND, TEXT, known);
            }
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n");
            let allowed = HeaderValue::from_static("GET, HEAD");
            refused.headers_mut().insert(header::ALLOW, allowed);
            return refused;
        }
        answer(self)
    }

    fn live(&self) -> Response<Body> {
        let lag = self.liveness.lag();
        let (code, status, verdict, reason) = if self.liveness.is_live() {
            (StatusCode::OK, Status::Serving, Verdict::Passing, "")
        } else {
            let stuck = "the runtime lets no task run";
            (
                StatusCode::SERVICE_UNAVAILABLE,
                Status::NotServing,
                Verdict::Failing,
                stuck,
            )
        };
        let check = Check {
            name: "runtime",
            status: verdict.as_str(),
            reason,
            latency_ms: Some(millis(lag)),
        };
        state(code, status, vec![check])
    }

    fn ready(&self) -> Response<Body> {
        let report = self.health.report();
        let mut checks: Vec<_> = report.checks.iter().map(Check::from).collect();
        let unregistered = (self.unregistered)();
        // It does not decide gRPC health, or nothing could ever register.
        let status = match &unregistered {
            Some(reason) => {
                checks.push(Check {
                    name: "registration",
                    status: Verdict::Failing.as_str(),
                    reason,
                    latency_ms: None,
                });
                Status::NotServing
            }
            None => report.status,
        };
        let code = match status {
            Status::Serving => StatusCode::OK,
            Status::NotServing | Status::Unknown => StatusCode::SERVICE_UNAVAILABLE,
        };
        state(code, status, checks)
    }

    fn metrics(&self) -> Response<Body> {
        page(StatusCode::OK, EXPOSITION, (self.metrics)())
    }
}

impl<'a> From<&'a CheckReport> for Check<'a> {
    fn from(report: &'a CheckReport) -> Self {
        Self {
            name: &report.name,
            status: report.verdict.as_str(),
            reason: &report.reason,
            latency_ms: report.latency.map(millis),
        }
    }
}

fn millis(duration: Duration) -> f64 {
    // Microseconds are as fine as anyone reads.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn is_grpc(request: &Request<Incoming>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn state(code: StatusCode, status: Status, checks: Vec<Check<'_>>) -> Response<Body> {
    let status = status.as_str();
    let mut body = serde_json::to_vec(&State { status, checks })
        .expect("strings and numbers have a form in JSON");
    body.push(b'\n');
    page(code, JSON, body)
}

fn page(code: StatusCode, kind: HeaderValue, body: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut page = Response::new(Body::new(Full::new(body.into())));
    *page.status_mut() = code;
    page.headers_mut().insert(header::CONTENT_TYPE, kind);
    // A probe is about now, and a browser must not guess at what it is.
    let headers = page.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    page
}

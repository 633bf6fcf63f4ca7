//! What is measured and traced of HTTP requests that are not gRPC, served or made.
//!
//! By the OpenTelemetry conventions for HTTP. A path stands nowhere, as it comes from outside and
//! may name people; a [`Route`] does, as it comes from the program.
//!
//! ```text
//! Server ──start(…)──▶ ServerRequest ──answered(status, route)──▶ ──end()
//! Client ──start(…)──▶ ClientRequest ──inject(headers)──────────▶ ──end(status)
//! ```

use std::sync::{Arc, OnceLock};

use http::{HeaderMap, Method, StatusCode};
use tokio::time::Instant;
use tracing::{Span, field::Empty};

use super::{
    metric::{Family, Histogram, Label, Value},
    trace,
};
use crate::{
    call::{self, TraceContext},
    caller::Peer,
    names::{self, Metric, field, metric, span},
};

/// The template of a path, as `/v1/orders/{order_id}`; in the extensions of an answer.
#[derive(Debug, Clone)]
pub struct Route(pub Arc<str>);

super::label! {
    /// A method of HTTP; those nobody registered are one.
    enum Verb {
        /// See RFC 9110.
        Get = "GET",
        /// See RFC 9110.
        Head = "HEAD",
        /// See RFC 9110.
        Post = "POST",
        /// See RFC 9110.
        Put = "PUT",
        /// See RFC 9110.
        Delete = "DELETE",
        /// See RFC 9110.
        Connect = "CONNECT",
        /// See RFC 9110.
        Options = "OPTIONS",
        /// See RFC 9110.
        Trace = "TRACE",
        /// See RFC 5789.
        Patch = "PATCH",
        /// Any other.
        Other = "_OTHER",
    }
}

impl Verb {
    fn of(method: &Method) -> Self {
        let known = Self::all().into_iter();
        let mut named = known.filter(|verb| verb.as_str() == method.as_str());
        named.next().unwrap_or(Self::Other)
    }
}

/// How a request was answered: its status, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer(Option<StatusCode>);

/// Statuses are from 100 to 599 where they mean something.
const STATUS_MIN: u16 = 100;
const STATUS_END: u16 = 600;

impl Label for Answer {
    const COUNT: usize = (STATUS_END - STATUS_MIN) as usize + 1;

    fn index(self) -> usize {
        let status = self.0.map(|status| status.as_u16());
        match status {
            Some(status @ STATUS_MIN..STATUS_END) => usize::from(status - STATUS_MIN) + 1,
            _ => 0,
        }
    }

    fn write(self, values: &mut Vec<Value>) {
        values.push(match self.0 {
            Some(status) if self.index() > 0 => status.as_str().to_owned().into(),
            _ => "".into(),
        });
    }

    fn all() -> Vec<Self> {
        let known = (STATUS_MIN..STATUS_END).map(|status| StatusCode::from_u16(status).ok());
        std::iter::once(None).chain(known).map(Self).collect()
    }
}

/// Durations of requests by method and status; each appears with its first use.
#[derive(Debug, Default)]
struct Durations([OnceLock<Family<Histogram, Answer>>; Verb::COUNT]);

impl Durations {
    fn of(&self, metric: &Metric, verb: Verb) -> &Family<Histogram, Answer> {
        self.0[verb.index()].get_or_init(|| Family::register(metric, &[verb.as_str().into()]))
    }
}

/// Requests as this process serves them; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Server {
    durations: Arc<Durations>,
}

impl Server {
    /// Starts to measure a request that arrived with `headers`.
    #[must_use]
    pub fn start(&self, method: &Method, headers: &HeaderMap, peer: Option<Peer>) -> ServerRequest {
        let remote = TraceContext::extract(headers);
        let verb = Verb::of(method);
        let span = tracing::info_span!(
            target: span::HTTP,
            parent: None,
            span::HTTP_SERVER,
            otel.name = verb.as_str(),
            otel.kind = "server",
            { field::HTTP_METHOD } = verb.as_str(),
            { field::HTTP_ROUTE } = Empty,
            { field::HTTP_STATUS } = Empty,
            { field::PEER_ADDRESS } = Empty,
            { field::PEER_PORT } = Empty,
            { field::ERROR_TYPE } = Empty,
            { field::OTEL_STATUS } = Empty,
        );
        if let (Some(Peer::Tcp(addr)), false) = (peer, span.is_disabled()) {
            let address = tracing::field::display(addr.ip().to_canonical());
            span.record(field::PEER_ADDRESS, address);
            span.record(field::PEER_PORT, addr.port());
        }
        let position = remote.as_ref().map(|remote| {
            trace::adopt(&span, remote, true);
            remote.child()
        });
        let trace = trace::context_of(&span, remote.as_ref())
            .or(position)
            .unwrap_or_else(|| TraceContext::root(false));
        ServerRequest {
            server: self.clone(),
            verb,
            span,
            trace,
            arrived: Instant::now(),
            status: None,
        }
    }
}

/// A request being served, until dropped; one without an answer counts as that.
#[derive(Debug)]
pub struct ServerRequest {
    server: Server,
    verb: Verb,
    span: Span,
    trace: TraceContext,
    arrived: Instant,
    status: Option<StatusCode>,
}

impl ServerRequest {
    /// The position of this request in its trace.
    #[must_use]
    pub fn trace(&self) -> &TraceContext {
        &self.trace
    }

    /// The span to poll the handler and its answer in.
    #[must_use]
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Notes the head of the answer.
    pub fn answered(&mut self, status: StatusCode, route: Option<&Route>) {
        self.status = Some(status);
        if self.span.is_disabled() {
            return;
        }
        if let Some(Route(route)) = route {
            self.span.record(field::HTTP_ROUTE, &**route);
            let name = format!("{} {route}", self.verb.as_str());
            trace::rename(&self.span, name);
        }
        record(&self.span, status, status.is_server_error());
    }
}

impl Drop for ServerRequest {
    fn drop(&mut self) {
        let family = self
            .server
            .durations
            .of(&metric::HTTP_SERVER_DURATION, self.verb);
        let answer = family.with(Answer(self.status));
        answer.record_duration(self.arrived.elapsed());
        // Entered because a span ends, for OpenTelemetry, when it was last left.
        self.span.in_scope(|| {});
    }
}

/// Requests as this process makes them; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Client {
    durations: Arc<Durations>,
}

impl Client {
    /// Starts to measure a request to `host`, a name out of the configuration; it belongs to the
    /// call being served.
    #[must_use]
    pub fn start(&self, method: &Method, host: &str) -> ClientRequest {
        let verb = Verb::of(method);
        let span = tracing::info_span!(
            target: span::HTTP,
            span::HTTP_CLIENT,
            otel.name = verb.as_str(),
            otel.kind = "client",
            { field::HTTP_METHOD } = verb.as_str(),
            { field::SERVER_ADDRESS } = host,
            { field::HTTP_STATUS } = Empty,
            { field::ERROR_TYPE } = Empty,
            { field::OTEL_STATUS } = Empty,
        );
        trace::join_call(&span);
        ClientRequest {
            client: self.clone(),
            verb,
            span,
            began: Instant::now(),
            status: None,
        }
    }
}

/// A request being made, until dropped; one without an answer counts as that.
#[derive(Debug)]
pub struct ClientRequest {
    client: Client,
    verb: Verb,
    span: Span,
    began: Instant,
    status: Option<StatusCode>,
}

impl ClientRequest {
    /// The span to make the request in.
    #[must_use]
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Writes the request's position in its trace into its headers.
    pub fn inject(&self, headers: &mut HeaderMap) {
        let position = trace::context_of(&self.span, None)
            .or_else(|| call::with_current(|call| call.map(|call| call.trace.child())));
        if let Some(position) = position {
            position.inject(headers);
        }
    }

    /// Ends the request with the status of its answer.
    pub fn end(mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for ClientRequest {
    fn drop(&mut self) {
        let family = self
            .client
            .durations
            .of(&metric::HTTP_CLIENT_DURATION, self.verb);
        let answer = family.with(Answer(self.status));
        answer.record_duration(self.began.elapsed());
        self.span.in_scope(|| {
            if let Some(status) = self.status {
                let error = status.is_client_error() || status.is_server_error();
                record(&self.span, status, error);
            } else {
                self.span.record(field::ERROR_TYPE, names::OTHER);
                self.span.record(field::OTEL_STATUS, "ERROR");
            }
        });
    }
}

fn record(span: &Span, status: StatusCode, error: bool) {
    span.record(field::HTTP_STATUS, status.as_u16());
    if error {
        span.record(field::ERROR_TYPE, status.as_str());
        span.record(field::OTEL_STATUS, "ERROR");
    }
}

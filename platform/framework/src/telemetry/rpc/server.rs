//! Calls served.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use tonic::Code;
use tracing::{Span, field::Empty};

use super::{code_name, finish, is_server_error};
use crate::{
    call::{Arrival, TraceContext},
    caller::Peer,
    contract::Method,
    deadline::Deadline,
    names::{self, field, metric, span},
    telemetry::{
        level,
        metric::{Counter, Family, Gauge, Histogram, series},
        trace,
    },
};

/// How long before our own timer a caller's may ring: its clock started when it sent the call,
/// ours when the call arrived.
const CALLERS_LEAD: Duration = Duration::from_millis(10);

/// One method as this process serves it.
#[derive(Debug, Clone)]
pub struct ServerMethod {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: Arc<str>,
    started: Counter,
    in_flight: Gauge,
    duration: Family<Histogram, Code>,
}

impl ServerMethod {
    /// A method known by its contract.
    #[must_use]
    pub fn new(method: &'static Method) -> Self {
        Self::named(method.full_name().into())
    }

    /// All methods that nobody declared, as one.
    #[must_use]
    pub fn other() -> Self {
        Self::named(names::OTHER.into())
    }

    /// One known by its full name, `package.Service/Method`.
    pub(crate) fn named(name: Arc<str>) -> Self {
        let label = || Arc::clone(&name).into();
        let duration = Family::register(&metric::SERVER_CALL_DURATION, &[label()]);
        // A method that was never called is visible, with zero calls.
        let _: &Histogram = duration.with(Code::Ok);
        Self {
            shared: Arc::new(Shared {
                started: series(&metric::SERVER_CALLS_STARTED, &[label()]),
                in_flight: series(&metric::SERVER_CALLS_IN_FLIGHT, &[label()]),
                name,
                duration,
            }),
        }
    }

    /// Starts to measure a call that arrived with `headers`.
    #[must_use]
    pub fn start(&self, headers: &HeaderMap, peer: Option<Peer>) -> ServerCall {
        let shared = Arc::clone(&self.shared);
        shared.started.increment();
        shared.in_flight.increment();
        let remote = TraceContext::extract(headers);
        let span = server_span(&shared.name);
        let trace = if span.is_disabled() {
            None
        } else {
            describe_peer(&span, peer);
            if let Some(remote) = &remote {
                trace::adopt(&span, remote, true);
            }
            trace::context_of(&span, remote.as_ref())
        };
        let trace = trace.unwrap_or_else(|| match &remote {
            Some(remote) => remote.child(),
            None => TraceContext::root(false),
        });
        ServerCall {
            shared,
            span,
            arrival: Arrival::now(headers, trace),
            code: None,
        }
    }
}

/// A call being served, until dropped.
#[derive(Debug)]
pub struct ServerCall {
    shared: Arc<Shared>,
    span: Span,
    arrival: Arrival,
    code: Option<Code>,
}

impl ServerCall {
    /// The position of this call in its trace: its own span, never the caller's.
    #[must_use]
    pub fn trace(&self) -> &TraceContext {
        &self.arrival.trace
    }

    /// What was read of the call's head, for the layers further in.
    #[must_use]
    pub fn arrival(&self) -> &Arrival {
        &self.arrival
    }

    /// The span to poll the handler and the response stream in, so that what they log and start
    /// belongs to it.
    #[must_use]
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Ends the call with the code its stream ended with.
    pub fn end(mut self, code: Code) {
        self.code = Some(code);
    }

    /// How the call ended. A caller that goes away at its deadline did not change its mind.
    fn outcome(&self) -> Code {
        let rang = |deadline: Deadline| deadline.remaining() <= CALLERS_LEAD;
        match self.code {
            Some(code) => code,
            None if self.arrival.deadline().is_some_and(rang) => Code::DeadlineExceeded,
            None => Code::Cancelled,
        }
    }
}

impl Drop for ServerCall {
    fn drop(&mut self) {
        let shared = &*self.shared;
        let (code, took) = (self.outcome(), self.arrival.at.elapsed());
        shared.in_flight.decrement();
        shared.duration.with(code).record_duration(took);
        level::while_serving(&shared.name, || {
            tracing::debug!(
                { field::RPC_METHOD } = &*shared.name,
                { field::RPC_CODE } = code_name(code),
                trace = %self.arrival.trace,
                ?took,
                "call served"
            );
        });
        finish(&self.span, code, is_server_error(code));
    }
}

/// A root for this process: its parent, if any, came over the wire, not from this thread.
fn server_span(name: &str) -> Span {
    tracing::info_span!(
        target: span::RPC,
        parent: None,
        span::SERVER,
        otel.name = name,
        otel.kind = "server",
        { field::RPC_SYSTEM } = "grpc",
        { field::RPC_METHOD } = name,
        { field::PEER_ADDRESS } = Empty,
        { field::PEER_PORT } = Empty,
        { field::RPC_CODE } = Empty,
        { field::ERROR_TYPE } = Empty,
        { field::OTEL_STATUS } = Empty,
    )
}

fn describe_peer(span: &Span, peer: Option<Peer>) {
    if let Some(Peer::Tcp(addr)) = peer {
        span.record(
            field::PEER_ADDRESS,
            tracing::field::display(addr.ip().to_canonical()),
        );
        span.record(field::PEER_PORT, addr.port());
    }
}

//! Calls made.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::HeaderMap;
use metrics::SharedString;
use tokio::time::Instant;
use tonic::Code;
use tracing::{Span, field::Empty};

use super::finish;
use crate::{
    call::{self, TraceContext},
    contract::Method,
    names::{self, field, metric, span},
    telemetry::{
        metric::{Counter, Family, Gauge, Histogram, series},
        trace,
    },
};

/// One method as this process calls it at one target.
#[derive(Debug, Clone)]
pub struct ClientMethod {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: &'static str,
    target: Arc<str>,
    in_flight: Gauge,
    duration: Family<Histogram, Code>,
    attempts: Counter,
    attempt_duration: Family<Histogram, Code>,
    transparent_retries: Counter,
    retries: Counter,
    hedges: Counter,
    retry_delay: Histogram,
}

/// Why an attempt is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Try {
    /// It is the first.
    First,
    /// The one before provably never reached a handler.
    Transparent,
    /// The one before failed.
    Retry,
    /// The one before was not answered yet.
    Hedge,
}

impl ClientMethod {
    /// A method known by its contract, called at `target`: the name of a configured client.
    #[must_use]
    pub fn new(method: &'static Method, target: &Arc<str>) -> Self {
        Self::named(method.full_name(), target)
    }

    /// All methods without a contract, as one.
    #[must_use]
    pub fn other(target: &Arc<str>) -> Self {
        Self::named(names::OTHER, target)
    }

    fn named(name: &'static str, target: &Arc<str>) -> Self {
        let labels: [SharedString; 2] = [name.into(), Arc::clone(target).into()];
        Self {
            shared: Arc::new(Shared {
                name,
                target: Arc::clone(target),
                in_flight: series(&metric::CLIENT_CALLS_IN_FLIGHT, &labels),
                duration: Family::register(&metric::CLIENT_CALL_DURATION, &labels),
                attempts: series(&metric::ATTEMPTS_STARTED, &labels),
                attempt_duration: Family::register(&metric::ATTEMPT_DURATION, &labels),
                transparent_retries: series(&metric::CALL_TRANSPARENT_RETRIES, &labels),
                retries: series(&metric::CALL_RETRIES, &labels),
                hedges: series(&metric::CALL_HEDGES, &labels),
                retry_delay: series(&metric::CALL_RETRY_DELAY, &labels),
            }),
        }
    }

    /// Starts to measure a call that begins at `now`. Its trace is that of the call being served, where
    /// there is one.
    #[must_use]
    pub fn start(&self, now: Instant) -> ClientCall {
        let shared = Arc::clone(&self.shared);
        shared.in_flight.increment();
        let parent = call::with_current(|current| current.map(|current| current.trace.clone()));
        let span = call_span(shared.name, &shared.target);
        trace::join_call(&span);
        let trace = trace::context_of(&span, parent.as_ref());
        let trace = trace.unwrap_or_else(|| match &parent {
            Some(parent) => parent.child(),
            None => TraceContext::root(false),
        });
        ClientCall {
            shared,
            began: now,
            span,
            trace,
            code: Code::Cancelled,
        }
    }
}

/// A call being made, until dropped.
#[derive(Debug)]
pub struct ClientCall {
    shared: Arc<Shared>,
    began: Instant,
    span: Span,
    trace: TraceContext,
    code: Code,
}

impl ClientCall {
    /// The position of this call in its trace.
    #[must_use]
    pub fn trace(&self) -> &TraceContext {
        &self.trace
    }

    /// The span of the whole call.
    #[must_use]
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Starts to measure one attempt that begins at `now`; `previous` ones were made before,
    /// transparent ones apart.
    #[must_use]
    pub fn attempt(&self, which: Try, previous: u8, now: Instant) -> Attempt {
        let shared = Arc::clone(&self.shared);
        shared.attempts.increment();
        match which {
            Try::First => {}
            Try::Transparent => shared.transparent_retries.increment(),
            Try::Retry => shared.retries.increment(),
            Try::Hedge => shared.hedges.increment(),
        }
        let span = attempt_span(&self.span, shared.name, &shared.target, which, previous);
        let trace = trace::context_of(&span, Some(&self.trace));
        Attempt {
            shared,
            began: now,
            span,
            // Nobody records the call's span where the attempt has none: its id is free to use.
            trace: trace.unwrap_or_else(|| self.trace.clone()),
            code: Code::Cancelled,
        }
    }

    /// Notes how long the call had no attempt between its attempts.
    pub fn delayed(&self, delay: Duration) {
        self.shared.retry_delay.record_duration(delay);
    }

    /// Takes in the code that its stream ended with; the call ends when this is dropped.
    pub fn end(&mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for ClientCall {
    fn drop(&mut self) {
        let shared = &*self.shared;
        shared.in_flight.decrement();
        shared
            .duration
            .with(self.code)
            .record_duration(self.began.elapsed());
        finish(&self.span, self.code, self.code != Code::Ok);
    }
}

/// One attempt of a call, until dropped.
#[derive(Debug)]
pub struct Attempt {
    shared: Arc<Shared>,
    began: Instant,
    span: Span,
    trace: TraceContext,
    code: Code,
}

impl Attempt {
    /// The span of this attempt.
    #[must_use]
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Notes the endpoint this attempt goes to.
    pub fn picked(&self, endpoint: SocketAddr) {
        if self.span.is_disabled() {
            return;
        }
        self.span.record(
            field::PEER_ADDRESS,
            tracing::field::display(endpoint.ip().to_canonical()),
        );
        self.span.record(field::PEER_PORT, endpoint.port());
    }

    /// Writes the trace into the headers of the request: the server's span becomes the child of
    /// this attempt.
    pub fn inject(&self, headers: &mut HeaderMap) {
        self.trace.inject(headers);
    }

    /// Takes in the code that its stream ended with; the attempt ends when this is dropped.
    pub fn end(&mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.shared
            .attempt_duration
            .with(self.code)
            .record_duration(self.began.elapsed());
        finish(&self.span, self.code, self.code != Code::Ok);
    }
}

/// Internal, as conventions ask of a span around several that cross the wire: a service map draws
/// one edge per client span.
fn call_span(name: &'static str, target: &str) -> Span {
    tracing::info_span!(
        target: span::RPC,
        span::CLIENT,
        otel.name = name,
        otel.kind = "internal",
        { field::RPC_SYSTEM } = "grpc",
        { field::RPC_METHOD } = name,
        { field::SERVER_ADDRESS } = target,
        { field::RPC_CODE } = Empty,
        { field::ERROR_TYPE } = Empty,
        { field::OTEL_STATUS } = Empty,
    )
}

fn attempt_span(call: &Span, name: &'static str, target: &str, which: Try, previous: u8) -> Span {
    // Said where there were some, as on the wire.
    let previous = (previous > 0).then_some(previous);
    tracing::info_span!(
        target: span::RPC,
        parent: call,
        span::ATTEMPT,
        otel.name = name,
        otel.kind = "client",
        { field::RPC_SYSTEM } = "grpc",
        { field::RPC_METHOD } = name,
        { field::SERVER_ADDRESS } = target,
        { field::TRANSPARENT_RETRY } = which == Try::Transparent,
        { field::PREVIOUS_ATTEMPTS } = previous,
        { field::PEER_ADDRESS } = Empty,
        { field::PEER_PORT } = Empty,
        { field::RPC_CODE } = Empty,
        { field::ERROR_TYPE } = Empty,
        { field::OTEL_STATUS } = Empty,
    )
}

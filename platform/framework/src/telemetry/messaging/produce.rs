//! What is measured and traced of events on their way to a broker.

use std::{future::Future, sync::Arc};

use tokio::time::Instant;
use tracing::{Instrument as _, Span, field::Empty};

use crate::{
    call::{self, TraceContext},
    names::{field, metric, span},
    telemetry::{
        metric::{Counter, Family, Histogram, Value},
        trace,
    },
};

crate::telemetry::label! {
    /// Why a broker did not take an event.
    pub enum SendError {
        /// It did.
        None = "",
        /// Nobody wants it.
        Unroutable = "unroutable",
        /// A queue did not take it.
        Refused = "refused",
        /// The broker takes nothing.
        Blocked = "blocked",
        /// It was not confirmed in time.
        TimedOut = "timed_out",
        /// The broker does not let us.
        Denied = "denied",
        /// There is no connection to the broker.
        Disconnected = "disconnected",
    }
}

/// The operation of [`Sends`], as the conventions have it.
const SEND: &str = "send";

/// Starts to write down an event of the type `topic`, with the id `id`, for a broker of `system`. It
/// belongs to what is being done.
#[must_use]
pub fn create(system: &'static str, topic: &str, id: &str, body_bytes: usize) -> Creating {
    let span = tracing::info_span!(
        target: span::MESSAGING,
        span::CREATE,
        otel.name = format!("create {topic}"),
        otel.kind = "producer",
        { field::MESSAGING_SYSTEM } = system,
        { field::MESSAGING_OPERATION } = "create",
        { field::MESSAGING_OPERATION_TYPE } = "create",
        { field::MESSAGING_DESTINATION } = topic,
        { field::MESSAGING_MESSAGE_ID } = id,
        { field::MESSAGING_BODY_SIZE } = body_bytes,
        { field::ERROR_TYPE } = Empty,
        { field::OTEL_STATUS } = Empty,
    );
    trace::join_call(&span);
    Creating { span }
}

/// An event that is being written down.
#[derive(Debug)]
pub struct Creating {
    span: Span,
}

impl Creating {
    /// The position in its trace that the event is to carry: this one, or where nothing records it that
    /// of the call being served; none outside of both.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        call::with_current(|call| {
            let around = call.map(|call| &call.trace);
            trace::context_of(&self.span, around).or_else(|| around.cloned())
        })
    }

    /// Has `work` belong to the span.
    pub fn within<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        work.instrument(self.span.clone())
    }

    /// Ends it; whether the event is written down.
    pub fn end(self, done: bool) {
        if !done {
            failed(&self.span, "_OTHER");
        }
    }
}

/// Whoever hands events of this process to a broker.
#[derive(Debug, Clone)]
pub struct Producer {
    system: &'static str,
}

impl Producer {
    /// For a broker of `system`, by its OpenTelemetry name, as in `rabbitmq`.
    #[must_use]
    pub fn new(system: &'static str) -> Self {
        Self { system }
    }

    /// Events of the type `topic`, which the program knows.
    #[must_use]
    pub fn of(&self, topic: &str) -> Sends {
        let topic: Arc<str> = topic.into();
        let fixed: [Value; 4] = [
            self.system.into(),
            "".into(),
            Arc::clone(&topic).into(),
            SEND.into(),
        ];
        let [system, _, destination, operation] = fixed.clone();
        let sent = [system, destination, operation];
        Sends(Arc::new(OfTopic {
            system: self.system,
            duration: Family::register(&metric::MESSAGING_OPERATION_DURATION, &fixed),
            sent: Family::register(&metric::MESSAGING_SENT, &sent),
            topic,
        }))
    }
}

/// Events of one type, as they are sent; clones are the same.
#[derive(Debug, Clone)]
pub struct Sends(Arc<OfTopic>);

#[derive(Debug)]
struct OfTopic {
    system: &'static str,
    topic: Arc<str>,
    duration: Family<Histogram, SendError>,
    sent: Family<Counter, SendError>,
}

/// What is known of an event that is sent.
#[derive(Debug, Clone)]
pub struct Sent<'a> {
    /// Its id.
    pub id: &'a str,
    /// Bytes of its body.
    pub body_bytes: usize,
    /// Where it was created.
    pub created: Option<TraceContext>,
}

impl Sends {
    /// Starts to measure how an event is sent; `sent` is asked where somebody records it.
    #[must_use]
    pub fn send<'a>(&self, sent: impl FnOnce() -> Sent<'a>) -> Sending {
        let span = tracing::info_span!(
            target: span::MESSAGING,
            parent: None,
            span::SEND,
            otel.name = format!("{SEND} {}", self.0.topic),
            // The context that the event carries is that of its creation.
            otel.kind = "client",
            { field::MESSAGING_SYSTEM } = self.0.system,
            { field::MESSAGING_OPERATION } = SEND,
            { field::MESSAGING_OPERATION_TYPE } = SEND,
            { field::MESSAGING_DESTINATION } = &*self.0.topic,
            { field::MESSAGING_MESSAGE_ID } = Empty,
            { field::MESSAGING_BODY_SIZE } = Empty,
            { field::ERROR_TYPE } = Empty,
            { field::OTEL_STATUS } = Empty,
        );
        if !span.is_disabled() {
            let sent = sent();
            if let Some(created) = &sent.created {
                trace::adopt(&span, created, true);
                trace::link(&span, created);
            }
            span.record(field::MESSAGING_MESSAGE_ID, sent.id);
            span.record(field::MESSAGING_BODY_SIZE, sent.body_bytes);
        }
        Sending {
            of: self.clone(),
            span,
            began: Instant::now(),
        }
    }
}

/// An event that is on its way; dropped without an end, nothing is measured.
#[derive(Debug)]
pub struct Sending {
    of: Sends,
    span: Span,
    began: Instant,
}

impl Sending {
    /// Has `work` belong to the span.
    pub fn within<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        work.instrument(self.span.clone())
    }

    /// Ends it; why the broker has not taken it, where it has not.
    pub fn end(self, error: SendError) {
        let OfTopic { duration, sent, .. } = &*self.of.0;
        sent.with(error).increment();
        duration.with(error).record_duration(self.began.elapsed());
        if error != SendError::None {
            failed(&self.span, error.as_str());
        }
    }
}

fn failed(span: &Span, error: &str) {
    if !span.is_disabled() {
        // Entered because a span ends, for OpenTelemetry, when it was last left.
        span.in_scope(|| {
            span.record(field::ERROR_TYPE, error);
            span.record(field::OTEL_STATUS, "ERROR");
        });
    }
}

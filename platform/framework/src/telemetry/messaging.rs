//! What is measured and traced of events, by the OpenTelemetry conventions for messaging.
//!
//! ```text
//! create(…) ──▶ Creating ── within(writing), end(ok)
//! Producer ──of(topic)──▶ Sends ──send(…)──▶ Sending ── within(publishing), end(error)
//! Consumer ──of(topic)──▶ Topic ──process(…)──▶ Process ──settle(…)──▶ Settling ──end(ok)
//!                                                  └─ context(), within(handler), ends(error)
//! ```
//!
//! Sending and handling an event belong to the trace of the call that it was created for, and their
//! spans also link to where that was. One that was a dead letter begins a trace of its own, which links to the first.
//! Neither keys nor bodies are written.

mod produce;

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{Instrument as _, Span, field::Empty};

pub use produce::{Creating, Producer, SendError, Sending, Sends, Sent, create};

use super::{
    metric::{Counter, Family, Histogram, Value, series},
    trace,
};
use crate::{
    call::{self, TraceContext},
    contract::{Access, Idempotency, Method},
    deadline::Deadline,
    names::{field, metric, span},
};

super::label! {
    /// Why handling an event did not go well.
    pub enum ErrorType {
        /// It did.
        None = "",
        /// The handler said so.
        Failed = "failed",
        /// The handler said that it never will.
        Rejected = "rejected",
        /// It panicked.
        Panicked = "panicked",
        /// It took too long.
        TimedOut = "timed_out",
        /// It cannot be read, or nothing handles its type.
        Unreadable = "unreadable",
        /// It was given up for now, as when a process ends.
        Left = "left",
    }
}

super::label! {
    /// How an event is settled.
    pub enum Settled {
        /// It is done with.
        Ack = "ack",
        /// It comes again at once.
        Requeue = "requeue",
        /// It comes again later.
        Retry = "retry",
        /// It is a dead letter.
        Reject = "reject",
    }
}

super::label! {
    /// Whether a broker did what it was asked for.
    enum Answer {
        /// It did.
        Ok = "",
        /// It did not.
        Error = "_OTHER",
    }
}

/// One consumer of a program.
#[derive(Debug, Clone)]
pub struct Consumer {
    system: &'static str,
    group: Arc<str>,
}

/// Events of one type, as a consumer takes them.
#[derive(Debug, Clone)]
pub struct Topic {
    consumer: Consumer,
    name: Arc<str>,
    /// What log lines and calls of the handler say they are for.
    method: &'static Method,
    duration: Family<Histogram, ErrorType>,
    settled: Family<Histogram, (Settled, Answer)>,
    consumed: Counter,
}

/// What is known of an event that has come.
#[derive(Debug, Clone, Copy)]
pub struct Came<'a> {
    /// Its id.
    pub id: &'a str,
    /// Which queue it came from.
    pub partition: u16,
    /// Bytes of its body.
    pub body_bytes: usize,
    /// Where it was created.
    pub created: Option<&'a TraceContext>,
    /// Whether it was a dead letter before.
    pub redriven: bool,
}

impl Consumer {
    /// The consumer `group` of a broker of `system`, by its OpenTelemetry name, as in `rabbitmq`.
    #[must_use]
    pub fn new(system: &'static str, group: &str) -> Self {
        Self {
            system,
            group: group.into(),
        }
    }

    /// Events of the type `topic`, which the program knows. To be asked once for each: what is made
    /// stays for as long as the process does.
    #[must_use]
    pub fn of(&self, topic: &str) -> Topic {
        let name: Arc<str> = topic.into();
        let fixed: [Value; 3] = [
            self.system.into(),
            Arc::clone(&self.group).into(),
            Arc::clone(&name).into(),
        ];
        let duration = Family::register(&metric::MESSAGING_PROCESS_DURATION, &fixed);
        let _: &Histogram = duration.with(ErrorType::None);
        // Contexts of calls refer to what lives as long as the process.
        let path: &'static str = Box::leak(format!("/{topic}/{}", self.group).into_boxed_str());
        Topic {
            consumer: self.clone(),
            name,
            method: Box::leak(Box::new(Method {
                path,
                client_streaming: false,
                server_streaming: false,
                idempotency: Idempotency::Idempotent,
                access: Access::Internal,
                role: None,
            })),
            duration,
            settled: Family::register(&metric::MESSAGING_OPERATION_DURATION, &fixed),
            consumed: series(&metric::MESSAGING_CONSUMED, &fixed),
        }
    }
}

impl Topic {
    /// Counts an event that has come.
    pub fn came(&self) {
        self.consumed.increment();
    }

    /// Starts to measure what is done with an event, each time that something is.
    #[must_use]
    pub fn process(&self, came: &Came<'_>) -> Process {
        let span = self.process_span(came);
        let parent = came.created.filter(|_| !came.redriven);
        if !span.is_disabled() {
            if let Some(parent) = parent {
                trace::adopt(&span, parent, true);
            }
            if let Some(created) = came.created {
                trace::link(&span, created);
            }
        }
        let trace = trace::context_of(&span, parent);
        let trace = trace.unwrap_or_else(|| match parent {
            Some(parent) => parent.child(),
            None => TraceContext::root(false),
        });
        Process {
            topic: self.clone(),
            span,
            trace,
            began: Instant::now(),
            error: ErrorType::Left,
        }
    }

    fn process_span(&self, came: &Came<'_>) -> Span {
        let consumer = &self.consumer;
        tracing::info_span!(
            target: span::MESSAGING,
            parent: None,
            span::PROCESS,
            otel.name = format!("process {}", self.name),
            otel.kind = "consumer",
            { field::MESSAGING_SYSTEM } = consumer.system,
            { field::MESSAGING_OPERATION } = "process",
            { field::MESSAGING_OPERATION_TYPE } = "process",
            { field::MESSAGING_DESTINATION } = &*self.name,
            { field::MESSAGING_GROUP } = &*consumer.group,
            { field::MESSAGING_PARTITION } = came.partition,
            { field::MESSAGING_MESSAGE_ID } = came.id,
            { field::MESSAGING_BODY_SIZE } = came.body_bytes,
            { field::EVENT_ATTEMPT } = Empty,
            { field::ERROR_TYPE } = Empty,
            { field::OTEL_STATUS } = Empty,
        )
    }
}

/// An event that is worked at, until dropped; dropped without an end it was left.
#[derive(Debug)]
pub struct Process {
    topic: Topic,
    span: Span,
    trace: TraceContext,
    began: Instant,
    error: ErrorType,
}

impl Process {
    /// Its position in its trace.
    #[must_use]
    pub fn trace(&self) -> &TraceContext {
        &self.trace
    }

    /// What the handler and all that it starts inherit: the trace, how long it may take, and whether it
    /// was tried `attempts` times before.
    #[must_use]
    pub fn context(&self, limit: Duration, attempts: u32) -> Arc<call::Context> {
        self.span.record(field::EVENT_ATTEMPT, attempts + 1);
        Arc::new(call::Context {
            method: self.topic.method,
            peer: None,
            deadline: Deadline::after(limit),
            trace: self.trace.clone(),
            previous_attempts: attempts,
            criticality: None,
            ended: call::Ended::default(),
        })
    }

    /// Has `work` belong to the span.
    pub fn within<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        work.instrument(self.span.clone())
    }

    /// How it ended.
    pub fn ends(&mut self, error: ErrorType) {
        self.error = error;
    }

    /// Starts to measure how it is settled: what it is worked at ends before.
    #[must_use]
    pub fn settle(&self, how: Settled) -> Settling {
        let consumer = &self.topic.consumer;
        let span = tracing::info_span!(
            target: span::MESSAGING,
            parent: &self.span,
            span::SETTLE,
            otel.name = format!("{} {}", how.as_str(), self.topic.name),
            otel.kind = "client",
            { field::MESSAGING_SYSTEM } = consumer.system,
            { field::MESSAGING_OPERATION } = how.as_str(),
            { field::MESSAGING_OPERATION_TYPE } = "settle",
            { field::MESSAGING_DESTINATION } = &*self.topic.name,
            { field::MESSAGING_GROUP } = &*consumer.group,
            { field::ERROR_TYPE } = Empty,
            { field::OTEL_STATUS } = Empty,
        );
        Settling {
            settled: self.topic.settled.clone(),
            span,
            how,
            began: Instant::now(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let duration = self.topic.duration.with(self.error);
        duration.record_duration(self.began.elapsed());
        if !self.span.is_disabled() {
            // Entered because a span ends, for OpenTelemetry, when it was last left.
            self.span.in_scope(|| {
                if self.error != ErrorType::None {
                    self.span.record(field::ERROR_TYPE, self.error.as_str());
                    self.span.record(field::OTEL_STATUS, "ERROR");
                }
            });
        }
    }
}

/// An event that is being settled.
#[derive(Debug)]
pub struct Settling {
    settled: Family<Histogram, (Settled, Answer)>,
    span: Span,
    how: Settled,
    began: Instant,
}

impl Settling {
    /// Has `work` belong to the span.
    pub fn within<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        work.instrument(self.span.clone())
    }

    /// Ends it; whether the broker has done it.
    pub fn end(self, done: bool) {
        let answer = if done { Answer::Ok } else { Answer::Error };
        let duration = self.settled.with((self.how, answer));
        duration.record_duration(self.began.elapsed());
        if !done && !self.span.is_disabled() {
            self.span.in_scope(|| {
                self.span.record(field::ERROR_TYPE, answer.as_str());
                self.span.record(field::OTEL_STATUS, "ERROR");
            });
        }
    }
}

#[cfg(test)]
mod tests;

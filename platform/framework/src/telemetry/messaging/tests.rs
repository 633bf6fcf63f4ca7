use super::*;
use crate::{
    call::Scoped,
    testing::telemetry::{Capture, Span as Ended, capture},
};

const TOPIC: &str = "shop.orders.v1.OrderPlaced";

fn came(created: Option<&TraceContext>, redriven: bool) -> Came<'_> {
    Came {
        id: "the-id",
        partition: 3,
        body_bytes: 12,
        created,
        redriven,
    }
}

fn ended<'a>(spans: &'a [Ended], name: &str) -> &'a Ended {
    let found = spans.iter().find(|span| span.name == name);
    found.unwrap_or_else(|| panic!("{name} is not in {spans:#?}"))
}

fn topic(_: &Capture) -> Topic {
    Consumer::new("gantry", "notifications.notices").of(TOPIC)
}

/// Goal: handling an event is a span in the trace of its creation, which it links to; what the handler
/// logs and asks others for belongs to it, and so does how it is settled.
/// Method: an event with a known origin, a handler that logs and looks at its context.
#[tokio::test]
async fn what_is_done_for_an_event_belongs_to_its_trace() {
    let capture = capture();
    let created = TraceContext::root(true);
    let mut process = topic(&capture).process(&came(Some(&created), false));
    let context = process.context(Duration::from_secs(5), 2);
    assert_eq!(created.trace_id, context.trace.trace_id);
    assert_eq!(2, context.previous_attempts);
    assert!(context.deadline.is_some());
    let position = context.trace.clone();
    let handling = async { tracing::info!("handled") };
    process.within(Scoped::new(context, handling)).await;
    process.ends(ErrorType::None);
    let settling = process.settle(Settled::Ack);
    drop(process);
    settling.within(async {}).await;
    settling.end(true);

    let lines = capture.lines();
    let line = lines.iter().find(|line| line.message() == "handled");
    let line = line.expect("what the handler logged");
    let trace_id = format!("{:032x}", created.trace_id);
    assert_eq!(Some(trace_id), line.get(field::TRACE_ID));
    let spans = capture.spans();
    let span = ended(&spans, &format!("process {TOPIC}"));
    assert_eq!("consumer", span.kind);
    assert_eq!(position.span_id, span.span_id);
    assert_eq!(Some(created.span_id), span.parent_id);
    assert_eq!(vec![(created.trace_id, created.span_id)], span.links);
    assert!(!span.error);
    for (name, value) in [
        (field::MESSAGING_SYSTEM, "gantry"),
        (field::MESSAGING_OPERATION_TYPE, "process"),
        (field::MESSAGING_DESTINATION, TOPIC),
        (field::MESSAGING_GROUP, "notifications.notices"),
        (field::MESSAGING_MESSAGE_ID, "the-id"),
        (field::EVENT_ATTEMPT, "3"),
    ] {
        assert_eq!(
            Some(value),
            span.attributes.get(name).map(String::as_str),
            "{name}"
        );
    }
    let settled = ended(&spans, &format!("ack {TOPIC}"));
    assert_eq!(Some(span.span_id), settled.parent_id);
    assert_eq!("client", settled.kind);
}

/// Goal: one that was a dead letter begins a trace of its own, which links to the first.
/// Method: as such.
#[tokio::test]
async fn a_dead_letter_begins_a_trace() {
    let capture = capture();
    let created = TraceContext::root(true);
    drop(topic(&capture).process(&came(Some(&created), true)));
    let spans = capture.spans();
    let span = ended(&spans, &format!("process {TOPIC}"));
    assert_ne!(created.trace_id, span.trace_id);
    assert_eq!(None, span.parent_id);
    assert_eq!(vec![(created.trace_id, created.span_id)], span.links);
}

/// Goal: how long events take and what becomes of them is measured by the conventions' names.
/// Method: one that goes well, one that panics, one that is left, and settlements.
#[tokio::test]
async fn what_becomes_of_events_is_measured() {
    let capture = capture();
    let topic = topic(&capture);
    for error in [ErrorType::None, ErrorType::Panicked] {
        topic.came();
        let mut process = topic.process(&came(None, false));
        process.ends(error);
        process.settle(Settled::Retry).end(error == ErrorType::None);
    }
    drop(topic.process(&came(None, false)));
    let consumed = capture.value("messaging_client_consumed_messages_total", &[]);
    assert_eq!(Some(2.0), consumed);
    for error in ["", "panicked", "left"] {
        let name = "messaging_process_duration_seconds_count";
        let labels = [("error_type", error), ("messaging_destination_name", TOPIC)];
        assert_eq!(Some(1.0), capture.value(name, &labels), "{error}");
    }
    for error in ["", "_OTHER"] {
        let name = "messaging_client_operation_duration_seconds_count";
        let labels = [("error_type", error), ("messaging_operation_name", "retry")];
        assert_eq!(Some(1.0), capture.value(name, &labels), "{error}");
    }
    let spans = capture.spans();
    let errors = spans.iter().filter(|span| span.error).count();
    assert_eq!(3, errors, "two of handling, one of settling: {spans:#?}");
}

/// Goal: an event that is written down within a call carries its own place in the call's trace; sending
/// it belongs to that trace and links to that place.
/// Method: create one within a span of a call, and send it by what it carries.
#[tokio::test]
async fn sending_links_to_creation() {
    let capture = capture();
    let around = tracing::info_span!("around");
    let creating = around.in_scope(|| create("gantry", TOPIC, "the-id", 12));
    let created = creating.trace().expect("it is recorded");
    creating.within(async {}).await;
    creating.end(true);
    drop(around);
    let sends = Producer::new("gantry").of(TOPIC);
    for error in [SendError::None, SendError::Blocked] {
        let sending = sends.send(|| Sent {
            id: "the-id",
            body_bytes: 12,
            created: Some(created.clone()),
        });
        sending.within(async {}).await;
        sending.end(error);
    }

    let spans = capture.spans();
    let span = ended(&spans, &format!("create {TOPIC}"));
    assert_eq!("producer", span.kind);
    assert_eq!(
        (created.trace_id, created.span_id),
        (span.trace_id, span.span_id)
    );
    assert_eq!(Some(ended(&spans, "around").span_id), span.parent_id);
    let name = format!("send {TOPIC}");
    let sent: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(2, sent.len(), "{spans:#?}");
    for span in &sent {
        assert_eq!("client", span.kind);
        assert_eq!(Some(created.span_id), span.parent_id);
        assert_eq!(vec![(created.trace_id, created.span_id)], span.links);
        assert_eq!("send", span.attributes[field::MESSAGING_OPERATION_TYPE]);
        assert_eq!("the-id", span.attributes[field::MESSAGING_MESSAGE_ID]);
    }
    assert_eq!([false, true], [sent[0].error, sent[1].error]);
    for error in ["", "blocked"] {
        for name in [
            "messaging_client_sent_messages_total",
            "messaging_client_operation_duration_seconds_count",
        ] {
            let labels = [
                ("error_type", error),
                ("messaging_operation_name", "send"),
                ("messaging_destination_name", TOPIC),
            ];
            assert_eq!(Some(1.0), capture.value(name, &labels), "{name} {error}");
        }
    }
}

/// Goal: where nothing is recorded, an event carries the place of the call being served, and none outside
/// of calls.
/// Method: create one within a call and one without, with no subscriber.
#[tokio::test]
async fn without_export_the_call_is_carried() {
    assert_eq!(None, create("gantry", TOPIC, "the-id", 0).trace());
    let trace = TraceContext::root(true);
    let consumer = Consumer::new("gantry", "notifications.notices").of(TOPIC);
    let process = consumer.process(&came(Some(&trace), false));
    let context = process.context(Duration::from_secs(5), 0);
    let position = context.trace.clone();
    let creating = async { create("gantry", TOPIC, "the-id", 0).trace() };
    assert_eq!(Some(position), Scoped::new(context, creating).await);
}

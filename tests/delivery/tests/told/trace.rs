//! One trace from a call to what its event has done elsewhere.

use gantry_harness::{
    collector::{Collector, Received, Span, SpanKind, text},
    rabbitmq::RabbitMq,
};

use crate::{CONSUMES, PUBLISHES, stand::Ledger};

/// The type of event that a change is told by.
const TOPIC: &str = "delivery.v1.Credited";

fn attribute(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|it| it.key == name);
    found.map(text)
}

fn named<'a>(trace: &'a [Received], service: &str, name: &str) -> &'a Span {
    let found = trace
        .iter()
        .find(|it| it.service == service && it.span.name == name);
    let names: Vec<_> = trace.iter().map(|it| &*it.span.name).collect();
    let found = found.unwrap_or_else(|| panic!("{name} of {service} is not in {names:?}"));
    &found.span
}

/// Goal: one trace runs from a call over the broker to the consumer: the event is created within the
/// call, sent by the relay, processed and settled; sending and processing link to the creation, and each
/// says by the conventions what it is.
/// Method: two processes of their own on RabbitMQ, one that publishes and one that consumes, that export
/// to one collector.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_runs_over_the_broker() {
    let Some(server) = RabbitMq::start().await else {
        return;
    };
    let collector = Collector::start().await;
    let otlp = format!("http://{}", collector.address);
    let settings = |of: &[(&'static str, &'static str)]| {
        let mut all: Vec<(&str, &str)> = of.to_vec();
        all.push(("TELEMETRY__OTLP_ENDPOINT", &otlp));
        all
    };
    let consumer = Ledger::start(&server, &settings(CONSUMES)).await;
    let ledger = Ledger::start(&server, &settings(PUBLISHES)).await;
    ledger.post().await;
    consumer.applies(&ledger).await;
    let create = format!("create {TOPIC}");
    let trace = collector
        .trace_with(&[&create, &format!("send {TOPIC}"), &format!("ack {TOPIC}")])
        .await;
    let of = |name: &str| named(&trace, "ledger", name);
    let call = of("delivery.v1.LedgerService/Post");
    assert_eq!(SpanKind::Server, call.kind());
    let created = of(&create);
    assert_eq!(SpanKind::Producer, created.kind());
    assert_eq!(call.span_id, created.parent_span_id);
    let sent = of(&format!("send {TOPIC}"));
    let processed = of(&format!("process {TOPIC}"));
    let settled = of(&format!("ack {TOPIC}"));
    for (span, kind, operation) in [
        (sent, SpanKind::Client, "send"),
        (processed, SpanKind::Consumer, "process"),
    ] {
        assert_eq!(kind, span.kind(), "{operation}");
        assert_eq!(created.span_id, span.parent_span_id, "{operation}");
        let links: Vec<_> = span.links.iter().map(|link| &link.span_id).collect();
        assert_eq!(vec![&created.span_id], links, "{operation}");
        let told = |name| attribute(span, name).unwrap_or_default();
        assert_eq!("rabbitmq", told("messaging.system"), "{operation}");
        assert_eq!(TOPIC, told("messaging.destination.name"), "{operation}");
        assert_eq!(operation, told("messaging.operation.type"), "{operation}");
        assert_eq!(
            attribute(created, "messaging.message.id"),
            attribute(span, "messaging.message.id"),
            "{operation}"
        );
    }
    assert_eq!(SpanKind::Client, settled.kind());
    assert_eq!(processed.span_id, settled.parent_span_id);
    assert_eq!(
        "rabbitmq",
        attribute(created, "messaging.system").unwrap_or_default()
    );
}

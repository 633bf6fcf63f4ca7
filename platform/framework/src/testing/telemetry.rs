//! What a piece of code logs, traces and measures, for assertions.
//!
//! The same formatter, span layer and recorder as in production, with the output kept in memory.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use metrics::LocalRecorderGuard;
use metrics_exporter_prometheus::PrometheusHandle;
use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanId, SpanKind, Status},
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracerProvider, Span as SdkSpan, SpanData, SpanProcessor},
};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::{
    Layer as _,
    filter::{FilterExt as _, FilterFn},
    layer::SubscriberExt as _,
    registry,
};

use crate::telemetry::{
    level::{Directives, LogLevel},
    log::{LogLayer, Shape, Writer},
    otlp, prometheus,
};

/// Captures all this thread logs, traces and measures until the answer is dropped.
///
/// Everything is on: log lines of every level, and every span that a sampled caller or nobody
/// caused. Handles to metrics must be made after this call. Other threads are not seen, so use it
/// with a runtime of one thread, in a program where no service has started: a span that ends on
/// another thread is ended in that one's telemetry, which panics over what it never saw begin.
///
/// # Panics
///
/// If the system has no thread left for the log.
#[must_use]
pub fn capture() -> Capture {
    let directives: Directives = "trace".parse().expect("trace is a level");
    capturing(directives, true)
}

/// As [`capture`], with log lines of some levels only and without spans: also beside services that
/// have started, and with a database, which ends spans on threads of its own.
///
/// # Panics
///
/// If the system has no thread left for the log.
#[must_use]
pub fn capture_lines(directives: Directives) -> Capture {
    capturing(directives, false)
}

fn capturing(directives: Directives, with_spans: bool) -> Capture {
    // A guard borrows its recorder, and the capture holds both: a test can afford the leak.
    let recorder = Box::leak(Box::new(prometheus::recorder()));
    let prometheus = recorder.handle();
    let metrics = metrics::set_default_local_recorder(recorder);
    prometheus::describe_all();

    let output = Output::default();
    let writer = Writer::to(output.clone()).expect("a thread for the log");
    let level = LogLevel::new(directives);
    let lines = LogLayer::new(Shape::Json, "test", writer.clone());
    let kinds = FilterFn::new(move |metadata| with_spans || metadata.is_event());

    let spans = Spans::default();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(spans.clone())
        .build();
    let subscriber = registry()
        .with(otlp::layer(&provider).with_filter(kinds.clone()))
        .with(lines.with_filter(level.filter().and(kinds)));
    Capture {
        subscriber: tracing::subscriber::set_default(subscriber),
        metrics,
        prometheus,
        level,
        writer,
        output,
        spans,
        provider,
    }
}

/// What was captured so far; capturing ends when it is dropped.
pub struct Capture {
    // Dropped first, in this order: nothing may arrive at what is gone.
    #[allow(dead_code)]
    subscriber: DefaultGuard,
    #[allow(dead_code)]
    metrics: LocalRecorderGuard<'static>,
    prometheus: PrometheusHandle,
    level: LogLevel,
    writer: Writer,
    output: Output,
    spans: Spans,
    #[allow(dead_code)]
    provider: SdkTracerProvider,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture").finish_non_exhaustive()
    }
}

impl Capture {
    /// Log lines, oldest first.
    ///
    /// # Panics
    ///
    /// If a line is not a JSON object.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        self.writer.flush();
        let text = self.text();
        text.lines()
            .map(|line| Line {
                entries: serde_json::from_str(line).expect("a line is a JSON object"),
            })
            .collect()
    }

    /// Log lines as they were written, for a search of what must not be in them.
    ///
    /// # Panics
    ///
    /// If they are not UTF-8.
    #[must_use]
    pub fn text(&self) -> String {
        self.writer.flush();
        let bytes = lock(&self.output.0).clone();
        String::from_utf8(bytes).expect("lines are UTF-8")
    }

    /// The handle that changes which lines are captured.
    #[must_use]
    pub fn log_level(&self) -> &LogLevel {
        &self.level
    }

    /// Spans that have ended, in the order of their ends.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        lock(&self.spans.0).iter().map(Span::new).collect()
    }

    /// Every series of the metric `name`. Histograms are `name_count`, `name_sum` and
    /// `name_bucket`.
    #[must_use]
    pub fn series(&self, name: &str) -> Vec<Series> {
        self.all_series()
            .into_iter()
            .filter(|series| series.name == name)
            .collect()
    }

    /// Every series of every metric.
    ///
    /// # Panics
    ///
    /// If the exposition is malformed.
    #[must_use]
    pub fn all_series(&self) -> Vec<Series> {
        prometheus::render(&self.prometheus)
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| Series::parse(line).expect("a series, its labels and its value"))
            .collect()
    }

    /// The value of the one series of `name` that has these labels, perhaps among others; nothing
    /// where there is none or more than one.
    #[must_use]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.series(name).into_iter().filter(|series| {
            labels
                .iter()
                .all(|(label, value)| series.labels.get(*label).is_some_and(|had| had == value))
        });
        match (found.next(), found.next()) {
            (Some(series), None) => Some(series.value),
            _ => None,
        }
    }
}

/// One log line.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Every entry of its JSON object.
    pub entries: serde_json::Map<String, serde_json::Value>,
}

impl Line {
    /// An entry as text; a number or a flag as it stands in JSON.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        self.entries.get(name).map(|value| match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }

    /// The level: `WARN`.
    #[must_use]
    pub fn level(&self) -> String {
        self.get("level").unwrap_or_default()
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> String {
        self.get("message").unwrap_or_default()
    }
}

/// One span, as it would be exported.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Its OpenTelemetry name.
    pub name: String,
    /// `server`, `client` or `internal`.
    pub kind: &'static str,
    /// The trace it belongs to.
    pub trace_id: u128,
    /// Its own id.
    pub span_id: u64,
    /// Its parent's id, where it has one.
    pub parent_id: Option<u64>,
    /// The traces and spans that it links to.
    pub links: Vec<(u128, u64)>,
    /// Whether its status is an error.
    pub error: bool,
    /// Attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// Names of its events.
    pub events: Vec<String>,
    /// How long it took.
    pub duration: Duration,
}

impl Span {
    fn new(data: &SpanData) -> Self {
        let parent = data.parent_span_id;
        Self {
            name: data.name.to_string(),
            kind: match data.span_kind {
                SpanKind::Server => "server",
                SpanKind::Client => "client",
                SpanKind::Producer => "producer",
                SpanKind::Consumer => "consumer",
                SpanKind::Internal => "internal",
            },
            trace_id: u128::from_be_bytes(data.span_context.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(data.span_context.span_id().to_bytes()),
            parent_id: (parent != SpanId::INVALID).then(|| u64::from_be_bytes(parent.to_bytes())),
            links: data.links.iter().map(linked).collect(),
            error: matches!(data.status, Status::Error { .. }),
            attributes: data.attributes.iter().map(pair).collect(),
            events: data
                .events
                .iter()
                .map(|event| event.name.to_string())
                .collect(),
            duration: data
                .end_time
                .duration_since(data.start_time)
                .unwrap_or_default(),
        }
    }
}

fn linked(link: &Link) -> (u128, u64) {
    let to = &link.span_context;
    (
        u128::from_be_bytes(to.trace_id().to_bytes()),
        u64::from_be_bytes(to.span_id().to_bytes()),
    )
}

fn pair(attribute: &KeyValue) -> (String, String) {
    (attribute.key.to_string(), attribute.value.to_string())
}

/// One series of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Name in the exposition.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Series {
    // The labels of this platform hold no quotes, commas or braces; others would not parse.
    fn parse(line: &str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (series, ""),
        };
        let labels = labels
            .split(',')
            .filter(|label| !label.is_empty())
            .map(|label| {
                let (label, value) = label.split_once("=\"")?;
                Some((label.to_owned(), value.strip_suffix('"')?.to_owned()))
            })
            .collect::<Option<_>>()?;
        Some(Self {
            name: name.to_owned(),
            labels,
            value: value.parse().ok()?,
        })
    }
}

#[derive(Debug, Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Clone, Default)]
struct Spans(Arc<Mutex<Vec<SpanData>>>);

impl SpanProcessor for Spans {
    fn on_start(&self, _: &mut SdkSpan, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        lock(&self.0).push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

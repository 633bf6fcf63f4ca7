//! Spans on their way to a collector.
//!
//! ```text
//! span ends ──▶ Bounded (counts what does not fit) ──▶ the SDK's batches, a thread of their own
//!                                                         └──▶ Observed (counts what is lost) ──▶ OTLP/gRPC
//! ```
//!
//! The SDK drops silently, so both its ends are wrapped: every span is either exported or counted
//! as dropped, and an outage is one line in the log, however many batches it takes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry::{Context, KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{
    SpanExporter as OtlpExporter, WithExportConfig as _, WithTonicConfig as _,
    tonic_types::transport::ClientTlsConfig,
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData,
        SpanExporter, SpanProcessor,
    },
};
use tracing_subscriber::{
    Layer, Registry,
    filter::{LevelFilter, Targets},
};

use super::{
    Config, Identity,
    metric::{Counter, Family, series},
};
use crate::{config, names::metric};

/// Crates whose spans the export itself makes, or that tell of frames rather than of calls, or of messages
/// with all that is in them.
const UNTRACED: [&str; 9] = [
    "h2",
    "hyper",
    "hyper_util",
    "lapin",
    "opentelemetry",
    "opentelemetry_sdk",
    "rustls",
    "tonic",
    "tower",
];

/// Why the exporter refuses its settings.
#[derive(Debug, thiserror::Error)]
#[error("telemetry.otlp_endpoint")]
pub struct ExportError {
    #[from]
    source: opentelemetry_otlp::ExporterBuildError,
}

super::label! {
    /// Why a span never reached the collector.
    pub(super) enum DropReason {
        /// Too many waited already.
        QueueFull = "queue_full",
        /// The collector did not take it.
        ExportFailed = "export_failed",
    }
}

/// The way of spans to the collector; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    provider: SdkTracerProvider,
    ratio: f64,
}

impl Pipeline {
    /// Opens the way, where there is a collector. No I/O yet: one that is down is no error.
    pub(super) fn start(
        identity: &Identity<'_>,
        config: &Config,
    ) -> Result<Option<Self>, ExportError> {
        let configured = config.otlp_endpoint.as_deref().map(with_scheme);
        let Some(endpoint) = configured.clone().or_else(endpoint_of_environment) else {
            return Ok(None);
        };
        let mut exporter = OtlpExporter::builder().with_tonic();
        if endpoint.starts_with("https:") {
            exporter = exporter.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
        }
        if let Some(endpoint) = configured {
            exporter = exporter.with_endpoint(endpoint);
        }
        Ok(Some(Self::over(exporter.build()?, identity, config)))
    }

    /// The way to any exporter.
    pub(super) fn over(
        exporter: impl SpanExporter + 'static,
        identity: &Identity<'_>,
        config: &Config,
    ) -> Self {
        let account = Arc::new(Account::new(config.span_queue_max));
        let exporter = Observed {
            inner: exporter,
            account: Arc::clone(&account),
        };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(config.span_queue_max)
            .with_scheduled_delay(config.span_delay_max)
            .build();
        let processor = Bounded {
            inner: BatchSpanProcessor::builder(exporter)
                .with_batch_config(batches)
                .build(),
            account,
        };
        let resource = Resource::builder()
            .with_service_name(identity.service.to_owned())
            .with_attribute(KeyValue::new(
                "service.version",
                identity.version.to_owned(),
            ))
            .with_attribute(KeyValue::new(
                "service.instance.id",
                identity.instance.to_owned(),
            ))
            .build();
        let mut provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_span_processor(processor);
        if let Some(ratio) = config.sample_ratio {
            let ratio = Sampler::TraceIdRatioBased(ratio);
            provider = provider.with_sampler(Sampler::ParentBased(Box::new(ratio)));
        }
        Self {
            provider: provider.build(),
            ratio: config.sample_ratio.unwrap_or_else(ratio_of_environment),
        }
    }

    /// The share of traces begun here that is recorded.
    pub(super) fn ratio(&self) -> f64 {
        self.ratio
    }

    /// The layer that sends spans this way.
    pub(super) fn layer(&self) -> Box<dyn Layer<Registry> + Send + Sync> {
        layer(&self.provider)
    }

    /// Sends what waits, for `limit` at most; what does not make it is lost.
    pub(super) async fn shutdown(&self, limit: Duration) {
        let provider = self.provider.clone();
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(limit));
        if let Ok(Err(error)) = ended.await {
            tracing::warn!(%error, "spans were lost at the end");
        }
    }
}

/// Turns `tracing` spans into those of `provider`, and log lines within them into their events. It
/// does not look at the log level: what is traced is a matter of sampling.
pub(crate) fn layer(provider: &SdkTracerProvider) -> Box<dyn Layer<Registry> + Send + Sync> {
    let traced = Targets::new()
        .with_default(LevelFilter::INFO)
        .with_targets(UNTRACED.map(|module| (module, LevelFilter::OFF)));
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("gantry"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(traced)
        .boxed()
}

/// The collector that OpenTelemetry's own variables name, where they do not switch traces off. The
/// exporter reads them itself, but takes silence for a collector on this machine.
fn endpoint_of_environment() -> Option<String> {
    let value = config::opentelemetry_variable;
    let is = |name, word| value(name).is_some_and(|value| value.eq_ignore_ascii_case(word));
    if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return None;
    }
    value("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| value("OTEL_EXPORTER_OTLP_ENDPOINT"))
}

/// The share of traces that OpenTelemetry's own variables have recorded, as the SDK reads them.
fn ratio_of_environment() -> f64 {
    let value = config::opentelemetry_variable;
    match value("OTEL_TRACES_SAMPLER").as_deref() {
        Some("always_off" | "parentbased_always_off") => 0.0,
        Some("traceidratio" | "parentbased_traceidratio") => value("OTEL_TRACES_SAMPLER_ARG")
            .and_then(|ratio| ratio.parse().ok())
            .unwrap_or(1.0),
        _ => 1.0,
    }
}

/// Whether `endpoint` is an address that could be dialled.
pub(super) fn is_endpoint(endpoint: &str) -> bool {
    with_scheme(endpoint).parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
    })
}

fn with_scheme(endpoint: &str) -> String {
    if endpoint.contains("://") {
        endpoint.to_owned()
    } else {
        format!("http://{endpoint}")
    }
}

/// What became of every span.
#[derive(Debug)]
struct Account {
    waiting: AtomicUsize,
    waiting_max: usize,
    in_trouble: AtomicBool,
    exported: Counter,
    dropped: Family<Counter, DropReason>,
}

impl Account {
    fn new(waiting_max: usize) -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            waiting_max,
            in_trouble: AtomicBool::new(false),
            exported: series(&metric::SPANS_EXPORTED, &[]),
            dropped: Family::register(&metric::SPANS_DROPPED, &[]).visible(),
        }
    }

    /// Takes a place in the queue, where there is one.
    fn enter(&self) -> bool {
        let entered = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
                (waiting < self.waiting_max).then_some(waiting + 1)
            });
        entered.is_ok()
    }

    fn leave(&self, spans: usize) {
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
    }

    fn lost(&self, spans: usize, reason: DropReason, cause: &str) {
        self.dropped
            .with(reason)
            .add(u64::try_from(spans).unwrap_or(u64::MAX));
        if !self.in_trouble.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                cause,
                "spans are dropped: the trace collector does not take them"
            );
        }
    }

    fn sent(&self, spans: usize) {
        self.exported.add(u64::try_from(spans).unwrap_or(u64::MAX));
        if self.in_trouble.swap(false, Ordering::Relaxed) {
            tracing::info!("the trace collector takes spans again");
        }
    }
}

/// Lets as many spans wait as the queue holds, so that the SDK's own queue never overflows unseen.
#[derive(Debug)]
struct Bounded {
    inner: BatchSpanProcessor,
    account: Arc<Account>,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        if self.account.enter() {
            self.inner.on_end(span);
        } else {
            self.account.lost(1, DropReason::QueueFull, "queue full");
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Counts what the collector took and what it did not.
#[derive(Debug)]
struct Observed<E> {
    inner: E,
    account: Arc<Account>,
}

impl<E: SpanExporter> SpanExporter for Observed<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.account.leave(spans);
        let outcome = self.inner.export(batch).await;
        match &outcome {
            Ok(()) => self.account.sent(spans),
            Err(error) => self
                .account
                .lost(spans, DropReason::ExportFailed, &error.to_string()),
        }
        outcome
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.inner.shutdown()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests;

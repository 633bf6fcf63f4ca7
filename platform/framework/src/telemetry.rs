//! Logs, traces and metrics: set-up, propagation, and typed declarations for a service's own.
//!
//! [`init`] sets all three up once per process and answers with the handle that reads and changes
//! them. Nothing here waits for whoever receives what is told: log lines and spans queue within
//! bounds, and what does not fit is dropped and counted. Messages, metadata and credentials are
//! never written.

mod declare;
pub mod level;
mod log;
pub mod metric;
mod otlp;
mod panic;
mod prometheus;
pub mod rpc;
mod trace;

use std::{io, time::Duration};

use metrics_exporter_prometheus::PrometheusHandle;
use tracing_subscriber::{Layer as _, layer::SubscriberExt as _, registry};

pub use crate::__telemetry_label as label;
pub use level::{LevelError, LogLevel};
pub use otlp::ExportError;

use crate::shutdown::Tasks;

/// How the process tells what it does.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Which log lines are written: off, error, warn, info, debug or trace, and `module=level` for
    /// single modules, joined by commas.
    pub log_level: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Where spans are sent by OTLP/gRPC, as `http://host:4317`. Without one, where
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` says; without that, nowhere.
    pub otlp_endpoint: Option<String>,
    /// Share of the traces begun here that is recorded, from 0 to 1; a caller's decision is
    /// followed. Without one, what `OTEL_TRACES_SAMPLER` says; without that, all.
    pub sample_ratio: Option<f64>,
    /// Finished spans that wait for the collector at most; more are dropped and counted.
    pub span_queue_max: usize,
    /// Longest wait of a finished span before it is sent.
    pub span_delay_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log_level: "info".to_owned(),
            log_format: LogFormat::Auto,
            otlp_endpoint: None,
            sample_ratio: None,
            span_queue_max: 2_048,
            span_delay_max: Duration::from_secs(1),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    fn shape(self) -> log::Shape {
        match self {
            Self::Auto => log::Shape::auto(),
            Self::Text => log::Shape::text(),
            Self::Json => log::Shape::Json,
        }
    }
}

/// Who the process is, for those who receive what it tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity<'a> {
    /// Name of the service.
    pub service: &'a str,
    /// Version of the program.
    pub version: &'a str,
    /// This process among all of the service.
    pub instance: &'a str,
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The log level is none.
    #[error("telemetry.log_level")]
    Level(#[from] LevelError),
    /// There is no thread for the log.
    #[error("start the log writer")]
    Writer(#[source] io::Error),
    /// The exporter of spans refuses its settings.
    #[error("set up the export of spans")]
    Export(#[from] ExportError),
    /// It was set up before; one process has one log and one set of metrics.
    #[error("telemetry is set up already")]
    Twice,
}

/// How long [`Telemetry::shutdown`] waits for the collector.
pub const SHUTDOWN_MAX: Duration = Duration::from_secs(2);

/// How often observations are counted into histograms. Until then they cost memory.
const UPKEEP: Duration = Duration::from_secs(2);

/// Sets up logs, traces and metrics for the whole process, once.
///
/// Call it within the runtime, before anything that measures is built: handles to metrics are
/// looked up when their owners are made. Its background task runs in `tasks`.
///
/// # Errors
///
/// If a setting is senseless, the system has no thread left, or it was called before.
pub fn init(
    identity: &Identity<'_>,
    config: &Config,
    tasks: &Tasks,
) -> Result<Telemetry, InitError> {
    let level = LogLevel::new(&config.log_level)?;
    let recorder = prometheus::recorder();
    let prometheus = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| InitError::Twice)?;
    prometheus::describe_all();

    let writer = log::Writer::stdout().map_err(InitError::Writer)?;
    let lines = log::LogLayer::new(config.log_format.shape(), identity.service, writer.clone());
    let pipeline = otlp::Pipeline::start(identity, config)?;
    let spans = pipeline.as_ref().map(otlp::Pipeline::layer);
    let subscriber = registry()
        .with(spans)
        .with(lines.with_filter(level.filter()));
    tracing::subscriber::set_global_default(subscriber).map_err(|_| InitError::Twice)?;
    panic::log_panics(writer.clone());

    let telemetry = Telemetry {
        prometheus,
        level,
        writer,
        pipeline,
    };
    tasks.spawn(
        "metrics-upkeep",
        telemetry.clone().keep_up(tasks.stopping()),
    );
    Ok(telemetry)
}

/// Reads and changes what the process tells; clones share it.
#[derive(Debug, Clone)]
pub struct Telemetry {
    prometheus: PrometheusHandle,
    level: LogLevel,
    writer: log::Writer,
    pipeline: Option<otlp::Pipeline>,
}

impl Telemetry {
    /// All metrics as Prometheus text.
    #[must_use]
    pub fn render_metrics(&self) -> String {
        prometheus::render(&self.prometheus)
    }

    /// The handle that reads and changes the log level.
    #[must_use]
    pub fn log_level(&self) -> &LogLevel {
        &self.level
    }

    /// Sends the spans and writes the lines that still wait, [`SHUTDOWN_MAX`] and
    /// a moment for the lines at most.
    pub async fn shutdown(&self) {
        if let Some(pipeline) = &self.pipeline {
            pipeline.shutdown(SHUTDOWN_MAX).await;
        }
        let writer = self.writer.clone();
        // Fails only where the runtime ends first.
        drop(tokio::task::spawn_blocking(move || writer.flush()).await);
    }

    async fn keep_up(self, stopping: tokio_util::sync::CancellationToken) {
        let mut ticks = tokio::time::interval(UPKEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stopping.run_until_cancelled(ticks.tick()).await.is_some() {
            self.prometheus.run_upkeep();
        }
    }
}

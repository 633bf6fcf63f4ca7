//! Logs, traces and metrics: set-up, propagation, and typed declarations for a service's own.
//!
//! [`init`] sets all three up once per process and answers with the handle that reads and changes
//! them. Nothing here waits for whoever receives what is told: log lines and spans queue within
//! bounds, and what does not fit is dropped and counted. Messages, metadata and credentials are
//! never written.

pub mod db;
mod declare;
pub mod event;
pub mod http;
pub mod level;
pub(crate) mod log;
pub mod messaging;
pub mod metric;
pub(crate) mod otlp;
mod panic;
pub mod platform;
pub(crate) mod prometheus;
pub mod rpc;
mod sampling;
mod trace;

use std::{io, time::Duration};

use metrics_exporter_prometheus::PrometheusHandle;
use tracing::subscriber::set_global_default;
use tracing_subscriber::{Layer as _, layer::SubscriberExt as _, registry};

pub use crate::{
    __telemetry_event as event, __telemetry_label as label, __telemetry_metrics as metrics,
};
pub use level::{Directives, Level, LevelError, LogLevel};
pub use otlp::ExportError;
pub use sampling::Sampling;

use crate::{
    config::{self, Check},
    shutdown::Tasks,
};

config::section! {
    /// How the process tells what it does.
    pub struct Config {
        /// Which log lines are written: off, error, warn, info, debug or trace, and `module=level`
        /// for single modules, joined by commas.
        pub log_level: Directives = Directives::default(), live;
        /// How log lines look; `auto` is text on a terminal and JSON elsewhere.
        pub log_format: LogFormat = LogFormat::Auto, restart;
        /// Where spans are sent by OTLP/gRPC, as in `http://127.0.0.1:4317`. Without one, where
        /// `OTEL_EXPORTER_OTLP_ENDPOINT` says; without that, nowhere.
        pub otlp_endpoint: Option<String> = None, restart;
        /// Share of the traces begun here that is recorded; of a caller's, where `trust_remote` is
        /// off, and else the caller's decision is followed.
        /// Without one, what `OTEL_TRACES_SAMPLER` says; without that, all.
        pub sample_ratio: Option<f64> = None, restart;
        /// Whether callers decide which of their traces are recorded. Where not, their calls stay in
        /// their traces, and `sample_ratio` is the share of them that is recorded; without an
        /// export it is none. By default yes, but not where calls are handed on, as by the gateway:
        /// its callers are strangers.
        pub trust_remote: Option<bool> = None, restart;
        /// Finished spans that wait for the collector at most; more are dropped and counted.
        pub span_queue_max: usize = 2_048, in 1..=65_536, restart;
        /// Longest wait of a finished span before it is sent.
        pub span_delay_max: Duration = Duration::from_secs(1), in Duration::ZERO..=config::LONGEST, restart;
    }
    validate = Config::check;
}

impl Config {
    fn check(&self, check: &mut Check<'_, '_>) {
        if self
            .sample_ratio
            .is_some_and(|ratio| !(0.0..=1.0).contains(&ratio))
        {
            check.refuse("sample_ratio", "expected a number from 0 to 1");
        }
        if self.span_delay_max.is_zero() {
            check.refuse(
                "span_delay_max",
                "expected more than 0, or each span is sent alone",
            );
        }
        if let Some(endpoint) = &self.otlp_endpoint
            && !otlp::is_endpoint(endpoint)
        {
            check.refuse(
                "otlp_endpoint",
                "expected an address such as http://127.0.0.1:4317",
            );
        }
    }
}

config::choice! {
    /// How log lines look.
    pub enum LogFormat {
        /// Text on a terminal, JSON elsewhere.
        Auto = "auto",
        /// Lines for people.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
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
    let level = LogLevel::new(config.log_level.clone());
    let recorder = prometheus::recorder();
    let prometheus = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| InitError::Twice)?;
    prometheus::describe_all();

    let writer = log::Writer::stdout().map_err(InitError::Writer)?;
    let lines = log::LogLayer::new(config.log_format.shape(), identity.service, writer.clone());
    let pipeline = otlp::Pipeline::start(identity, config)?;
    // Not an `Option` of a layer: one that is absent has no filter, and the registry would keep
    // every span for it.
    let mut layers = vec![lines.with_filter(level.filter()).boxed()];
    layers.extend(pipeline.as_ref().map(otlp::Pipeline::layer));
    set_global_default(registry().with(layers)).map_err(|_| InitError::Twice)?;
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

    /// Chooses which traces of strangers are recorded: none where nothing is exported.
    #[must_use]
    pub fn sampling(&self) -> Sampling {
        let ratio = self.pipeline.as_ref().map(otlp::Pipeline::ratio);
        Sampling::new(ratio.unwrap_or(0.0))
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

#[cfg(test)]
mod tests;

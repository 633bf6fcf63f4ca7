//! The metrics of the process as Prometheus text.
//!
//! Counters, gauges and histograms live in the recorder. What the system and the runtime know
//! already is asked for when the text is written.

mod process;
mod runtime;

use std::fmt::Write as _;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::names::{Kind, Metric, metric};

pub(crate) use process::cpu_seconds;

/// Bounds of times, in seconds: those of the OpenTelemetry conventions for calls.
const SECONDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// Bounds of sizes: powers of four from 64 B to 16 MiB.
const BYTES: [f64; 10] = [
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
];

/// Bounds of plain numbers.
const COUNTS: [f64; 10] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0,
];

/// A recorder with bounds for every unit, and the handle that reads it.
pub(crate) fn recorder() -> metrics_exporter_prometheus::PrometheusRecorder {
    let bounds = "the bounds are not empty";
    PrometheusBuilder::new()
        .set_buckets(&COUNTS)
        .expect(bounds)
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .expect(bounds)
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES)
        .expect(bounds)
        .build_recorder()
}

/// Tells the recorder what every metric of the platform means.
pub(crate) fn describe_all() {
    for metric in metric::ALL {
        super::metric::describe(metric);
    }
}

/// Everything, as text.
pub(crate) fn render(handle: &PrometheusHandle) -> String {
    let mut text = handle.render();
    process::write(&mut text);
    runtime::write(&mut text);
    text
}

/// Writes a metric of one value that is not in the recorder.
fn write_value(text: &mut String, metric: &Metric, value: f64) {
    let Metric {
        name, description, ..
    } = metric;
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => unreachable!("a histogram is more than one value"),
    };
    write!(
        text,
        "# HELP {name} {description}\n# TYPE {name} {kind}\n{name} {value}\n\n"
    )
    .expect("writing to a String does not fail");
}

//! The part of a report that says how a run went over time.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use tonic::Code;

use super::statuses;
use crate::load::{
    harm::Done,
    plan::Kind,
    rates::Rates,
    series::{Interval, Series, Slice},
};

/// A part of the run in which the rate stays, or changes evenly.
#[derive(Debug, Serialize)]
pub(crate) struct StageReport {
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) duration_seconds: f64,
}

/// The calls that were due in one interval of the run.
#[derive(Debug, Serialize)]
pub(crate) struct IntervalReport {
    /// When it begins.
    pub(crate) from_seconds: f64,
    /// How long it is; the last one ends with the run.
    pub(crate) seconds: f64,
    pub(crate) due: u64,
    pub(crate) dropped: u64,
    #[serde(flatten)]
    pub(crate) all: SliceReport,
    /// By target and criticality.
    pub(crate) parts: Vec<PartReport>,
}

/// Calls of one interval to one target of one criticality.
#[derive(Debug, Serialize)]
pub(crate) struct PartReport {
    pub(crate) target: String,
    pub(crate) criticality: Option<&'static str>,
    #[serde(flatten)]
    pub(crate) calls: SliceReport,
}

/// Some calls of one interval.
#[derive(Debug, Serialize)]
pub(crate) struct SliceReport {
    pub(crate) sent: u64,
    pub(crate) ok: u64,
    pub(crate) status: BTreeMap<&'static str, u64>,
    pub(crate) latency_p50_seconds: f64,
    pub(crate) latency_p99_seconds: f64,
    pub(crate) latency_max_seconds: f64,
}

/// What was done to an instance on purpose.
#[derive(Debug, Serialize)]
pub(crate) struct FaultReport {
    pub(crate) whom: String,
    pub(crate) what: String,
    /// Null if its time never came, or it could not be done.
    pub(crate) from_seconds: Option<f64>,
    pub(crate) until_seconds: Option<f64>,
    pub(crate) error: Option<String>,
}

impl StageReport {
    /// Those of `rates`; none of a constant rate.
    pub(super) fn all(rates: &Rates) -> Vec<Self> {
        let Rates::Stages(stages) = rates else {
            return Vec::new();
        };
        let report = |placed: &crate::load::rates::Placed| Self {
            from: placed.stage.from,
            to: placed.stage.to,
            duration_seconds: placed.stage.time.as_secs_f64(),
        };
        stages.iter().map(report).collect()
    }
}

impl IntervalReport {
    pub(super) fn all(series: &Series, kinds: &[Kind], sending: Duration) -> Vec<Self> {
        let width = series.width.as_secs_f64();
        let report = |(number, interval): (u32, &Interval)| {
            let from = f64::from(number) * width;
            let parts = kinds.iter().zip(&interval.kinds);
            let parts = parts.map(|(kind, slice)| PartReport {
                target: kind.target.clone(),
                criticality: kind.criticality,
                calls: SliceReport::of(slice),
            });
            Self {
                from_seconds: from,
                // A call may be due in the last moment of a run, which is some of an interval.
                seconds: width.min(sending.as_secs_f64() - from).max(width / 1e3),
                due: interval.due,
                dropped: interval.dropped,
                all: SliceReport::of(&interval.total()),
                parts: parts.collect(),
            }
        };
        (0..).zip(&series.intervals).map(report).collect()
    }
}

impl SliceReport {
    fn of(slice: &Slice) -> Self {
        let latency = |quantile: f64| slice.latency.quantile(quantile).as_secs_f64();
        Self {
            sent: slice.sent,
            ok: slice.codes.of(Code::Ok),
            status: statuses(&slice.codes),
            latency_p50_seconds: latency(0.5),
            latency_p99_seconds: latency(0.99),
            latency_max_seconds: slice.latency.max().as_secs_f64(),
        }
    }
}

impl FaultReport {
    pub(super) fn of(done: Done) -> Self {
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        Self {
            whom: done.whom,
            what: done.what,
            from_seconds: seconds(done.from),
            until_seconds: seconds(done.until),
            error: done.error,
        }
    }
}

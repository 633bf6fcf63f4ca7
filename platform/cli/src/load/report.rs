//! What a run comes to, as programs read it; the fields are in docs/operating.md.

mod intervals;
mod write;

use std::{collections::BTreeMap, time::Duration};

use gantry::status::code_name;
use serde::Serialize;

use super::{
    exchange::Volume,
    harm::Done,
    pace::{Finished, Pace},
    plan::{Call, Kind, Plan},
    rates::Rates,
    tally::{Codes, ON_SCHEDULE, Part, Second, Tally, Times},
};

#[cfg(test)]
pub(crate) use self::intervals::PartReport;
pub(crate) use self::{
    intervals::{FaultReport, IntervalReport, SliceReport, StageReport},
    write::{check_file, write},
};

/// Under this share of calls sent on schedule, or ended with a status, a run says nothing.
const VALID_RATIO: f64 = 0.99;

/// The whole report.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) target: String,
    pub(crate) mode: &'static str,
    /// Of an open loop at a constant rate.
    pub(crate) rate: Option<f64>,
    /// Of an open loop whose rate changes.
    pub(crate) stages: Vec<StageReport>,
    /// Of an open loop.
    pub(crate) in_flight_max: Option<usize>,
    /// Of a closed loop.
    pub(crate) concurrency: Option<usize>,
    pub(crate) duration_seconds: f64,
    pub(crate) interrupted: bool,
    pub(crate) void: bool,
    pub(crate) void_reasons: Vec<String>,
    pub(crate) sent_on_schedule_ratio: f64,
    pub(crate) on_schedule_seconds: f64,
    pub(crate) final_status_ratio: f64,
    pub(crate) due: u64,
    pub(crate) sent: u64,
    pub(crate) dropped: u64,
    pub(crate) ended: u64,
    pub(crate) cut: u64,
    pub(crate) sent_per_second: f64,
    pub(crate) status: BTreeMap<&'static str, u64>,
    pub(crate) latency_seconds: Spread,
    pub(crate) latency_ok_seconds: Spread,
    pub(crate) service_time_seconds: Spread,
    pub(crate) send_delay_seconds: Spread,
    pub(crate) first_message_seconds: Spread,
    pub(crate) messages: Traffic,
    pub(crate) bytes: Traffic,
    pub(crate) methods: Vec<MethodReport>,
    pub(crate) endpoints: Vec<EndpointReport>,
    pub(crate) seconds: Vec<SecondReport>,
    pub(crate) interval_seconds: f64,
    pub(crate) intervals: Vec<IntervalReport>,
    pub(crate) faults: Vec<FaultReport>,
    pub(crate) errors: Vec<ErrorReport>,
    pub(crate) errors_not_shown: u64,
}

/// How durations are spread, in seconds; all zero where there were none.
#[derive(Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) count: u64,
    pub(crate) min: f64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    #[serde(rename = "p99_9")]
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// Something that goes both ways.
#[derive(Debug, Serialize)]
pub(crate) struct Traffic {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// The calls of one method.
#[derive(Debug, Serialize)]
pub(crate) struct MethodReport {
    pub(crate) name: String,
    pub(crate) method: String,
    pub(crate) weight: u32,
    pub(crate) target: String,
    pub(crate) criticality: Option<&'static str>,
    #[serde(flatten)]
    pub(crate) calls: Calls,
    /// Of a call of several.
    pub(crate) steps: Vec<StepReport>,
}

/// One step of calls that have several.
#[derive(Debug, Serialize)]
pub(crate) struct StepReport {
    pub(crate) method: String,
    #[serde(flatten)]
    pub(crate) calls: Calls,
}

/// The calls one endpoint took.
#[derive(Debug, Serialize)]
pub(crate) struct EndpointReport {
    /// Null of calls that reached none.
    pub(crate) address: Option<String>,
    #[serde(flatten)]
    pub(crate) calls: Calls,
}

/// A part of the calls.
#[derive(Debug, Serialize)]
pub(crate) struct Calls {
    pub(crate) ended: u64,
    pub(crate) status: BTreeMap<&'static str, u64>,
    pub(crate) latency_seconds: Spread,
    pub(crate) messages: Traffic,
    pub(crate) bytes: Traffic,
}

/// The calls that were due in one second of the run.
#[derive(Debug, Serialize)]
pub(crate) struct SecondReport {
    pub(crate) second: usize,
    pub(crate) due: u64,
    pub(crate) sent: u64,
    pub(crate) dropped: u64,
    pub(crate) status: BTreeMap<&'static str, u64>,
    /// Calls by address.
    pub(crate) endpoints: BTreeMap<String, u32>,
    pub(crate) latency_mean_seconds: f64,
    pub(crate) latency_max_seconds: f64,
}

/// One kind of failure.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorReport {
    pub(crate) status: &'static str,
    pub(crate) message: String,
    pub(crate) method: String,
    pub(crate) endpoint: Option<String>,
    pub(crate) count: u64,
}

/// What a report is of, beside its numbers.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) pace: &'a Pace,
    pub(crate) plan: &'a Plan,
    pub(crate) kinds: &'a [Kind],
    pub(crate) finished: Finished,
    pub(crate) faults: Vec<Done>,
}

impl Report {
    /// What `tally` says of a run.
    pub(crate) fn of(run: Run<'_>, tally: &Tally) -> Self {
        let Run {
            pace,
            plan,
            kinds,
            finished,
            faults,
        } = run;
        let (rates, in_flight_max, concurrency) = match pace {
            Pace::Open {
                rates,
                in_flight_max,
            } => (Some(rates), Some(*in_flight_max), None),
            Pace::Closed { concurrency } => (None, None, Some(*concurrency)),
        };
        let ended = tally.codes.total();
        let void_reasons = void_reasons(tally, &faults);
        Self {
            target: plan.target(),
            mode: if rates.is_some() { "open" } else { "closed" },
            rate: rates.and_then(|rates| match rates {
                Rates::Constant(rate) => Some(*rate),
                Rates::Stages(_) => None,
            }),
            stages: rates.map(StageReport::all).unwrap_or_default(),
            in_flight_max,
            concurrency,
            duration_seconds: finished.sending.as_secs_f64(),
            interrupted: finished.interrupted,
            void: !void_reasons.is_empty(),
            void_reasons,
            sent_on_schedule_ratio: ratio(tally.on_schedule, tally.due),
            on_schedule_seconds: ON_SCHEDULE.as_secs_f64(),
            final_status_ratio: ratio(ended, tally.due),
            due: tally.due,
            sent: tally.sent,
            dropped: tally.dropped,
            ended,
            cut: tally.open(),
            sent_per_second: per_second(tally.sent, finished.sending),
            status: statuses(&tally.codes),
            latency_seconds: Spread::of(&tally.latency),
            latency_ok_seconds: Spread::of(&tally.latency_ok),
            service_time_seconds: Spread::of(&tally.service_time),
            send_delay_seconds: Spread::of(&tally.send_delay),
            first_message_seconds: Spread::of(&tally.first_message),
            messages: Traffic::messages(tally.sent_volume, tally.received_volume),
            bytes: Traffic::bytes(tally.sent_volume, tally.received_volume),
            methods: methods(plan, tally),
            endpoints: endpoints(tally),
            seconds: seconds(tally),
            interval_seconds: tally.series.width.as_secs_f64(),
            intervals: IntervalReport::all(&tally.series, kinds, finished.sending),
            faults: faults.into_iter().map(FaultReport::of).collect(),
            errors: errors(plan, tally),
            errors_not_shown: tally.errors_not_shown,
        }
    }

    /// Calls that did not end well, those never sent included.
    pub(crate) fn failed(&self) -> u64 {
        self.due - self.status.get(code_name(tonic::Code::Ok)).unwrap_or(&0)
    }
}

/// Why the run says nothing about the server; none if it does.
fn void_reasons(tally: &Tally, faults: &[Done]) -> Vec<String> {
    let mut reasons = Vec::new();
    if tally.due == 0 {
        reasons.push("no call was due".to_owned());
        return reasons;
    }
    let shares = [
        (tally.on_schedule, "were sent on schedule"),
        (tally.codes.total(), "got a final status"),
    ];
    for (count, what) in shares {
        let share = ratio(count, tally.due);
        if share < VALID_RATIO {
            reasons.push(format!("{:.2} % {what}, under 99 %", share * 100.0));
        }
    }
    if !tally.endpoints.iter().any(|(address, _)| address.is_some()) {
        reasons.push("no call reached an endpoint".to_owned());
    }
    for fault in faults {
        if let Some(error) = &fault.error {
            reasons.push(format!("{}, {}: {error}", fault.whom, fault.what));
        }
    }
    reasons
}

fn methods(plan: &Plan, tally: &Tally) -> Vec<MethodReport> {
    let parts = plan.calls.iter().zip(&tally.methods).zip(&tally.steps);
    let report = |((call, part), steps): ((&Call, &Part), &Vec<Part>)| MethodReport {
        name: call.name.clone(),
        method: call.path(),
        weight: call.weight,
        target: plan.target_of(call).to_owned(),
        criticality: call.criticality(),
        calls: Calls::of(part),
        steps: call
            .steps
            .iter()
            .zip(steps)
            .map(|(step, part)| StepReport {
                method: step.path.clone(),
                calls: Calls::of(part),
            })
            .collect(),
    };
    parts.map(report).collect()
}

fn endpoints(tally: &Tally) -> Vec<EndpointReport> {
    let mut endpoints: Vec<_> = tally.endpoints.iter().collect();
    endpoints.sort_by_key(|(address, _)| (address.is_none(), *address));
    let report = |(address, part): &(Option<std::net::SocketAddr>, Part)| EndpointReport {
        address: address.map(|address| address.to_string()),
        calls: Calls::of(part),
    };
    endpoints.into_iter().map(report).collect()
}

fn seconds(tally: &Tally) -> Vec<SecondReport> {
    let names: Vec<_> = tally
        .endpoints
        .iter()
        .map(|(address, _)| address.map_or_else(|| "none".to_owned(), |it| it.to_string()))
        .collect();
    let report = |(number, second): (usize, &Second)| {
        let counts = names.iter().zip(&second.endpoints);
        let counts = counts.filter(|(_, count)| **count > 0);
        let mean = ratio_or(
            second.latency_total.as_secs_f64(),
            second.codes.total(),
            0.0,
        );
        SecondReport {
            second: number,
            due: second.due,
            sent: second.sent,
            dropped: second.dropped,
            status: statuses(&second.codes),
            endpoints: counts.map(|(name, count)| (name.clone(), *count)).collect(),
            latency_mean_seconds: mean,
            latency_max_seconds: second.latency_max.as_secs_f64(),
        }
    };
    tally.seconds.iter().enumerate().map(report).collect()
}

fn errors(plan: &Plan, tally: &Tally) -> Vec<ErrorReport> {
    let report = |sample: &super::tally::Sample| ErrorReport {
        status: code_name(sample.code),
        message: sample.message.clone(),
        method: plan
            .calls
            .get(sample.method)
            .map(|method| method.name.clone())
            .unwrap_or_default(),
        endpoint: sample.endpoint.map(|address| address.to_string()),
        count: sample.count,
    };
    tally.errors().into_iter().map(report).collect()
}

impl Calls {
    fn of(part: &Part) -> Self {
        Self {
            ended: part.codes.total(),
            status: statuses(&part.codes),
            latency_seconds: Spread::of(&part.latency),
            messages: Traffic::messages(part.sent, part.received),
            bytes: Traffic::bytes(part.sent, part.received),
        }
    }
}

impl Traffic {
    pub(crate) fn messages(sent: Volume, received: Volume) -> Self {
        Self {
            sent: sent.messages,
            received: received.messages,
        }
    }

    fn bytes(sent: Volume, received: Volume) -> Self {
        Self {
            sent: sent.bytes,
            received: received.bytes,
        }
    }
}

impl Spread {
    fn of(times: &Times) -> Self {
        let quantile = |quantile: f64| times.quantile(quantile).as_secs_f64();
        Self {
            count: times.len(),
            min: times.min().as_secs_f64(),
            mean: times.mean().as_secs_f64(),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p95: quantile(0.95),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: times.max().as_secs_f64(),
        }
    }
}

fn statuses(codes: &Codes) -> BTreeMap<&'static str, u64> {
    let named = codes.iter().map(|(code, count)| (code_name(code), count));
    named.collect()
}

/// A share; 1 of nothing.
fn ratio(part: u64, whole: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "exact to 2^53 calls")]
    ratio_or(part as f64, whole, 1.0)
}

fn per_second(count: u64, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "exact to 2^53 calls")]
    let count = count as f64;
    if seconds > 0.0 { count / seconds } else { 0.0 }
}

fn ratio_or(part: f64, whole: u64, nothing: f64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "exact to 2^53 calls")]
    let all = whole as f64;
    if whole == 0 { nothing } else { part / all }
}

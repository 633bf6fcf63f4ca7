//! A run for people: a line each second, and tables at its end.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use gantry::status::code_name;

use super::{
    report::{Calls, Report, Spread},
    tally::Tally,
};
use crate::output;

/// Tells how a run goes, on standard error: on a terminal in one line, else in a line each.
#[derive(Debug)]
pub(crate) struct Progress {
    terminal: bool,
    sent: u64,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            sent: 0,
        }
    }

    /// Tells about the last second.
    pub(crate) fn tell(&mut self, tally: &mut Tally) {
        let line = self.line(tally);
        tally.recent.clear();
        if self.terminal {
            output::rewrite(&line);
        } else {
            output::note(&line);
        }
    }

    /// Makes room for what comes after.
    pub(crate) fn end(&self) {
        if self.terminal {
            output::rewrite("");
        }
    }

    fn line(&mut self, tally: &Tally) -> String {
        let rate = tally.sent - self.sent;
        self.sent = tally.sent;
        let mut parts = vec![
            format!("{}s", tally.began.elapsed().as_secs()),
            format!("{rate}/s sent"),
            format!("{} in flight", tally.open()),
        ];
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            let latency = tally.recent.quantile(quantile).as_secs_f64();
            parts.push(format!("{name} {}", milliseconds(latency)));
        }
        let codes = tally.codes.iter();
        parts.extend(codes.map(|(code, count)| format!("{} {count}", code_name(code))));
        if tally.dropped > 0 {
            parts.push(format!("{} dropped", tally.dropped));
        }
        parts.join("  ")
    }
}

/// Tells what is done to an instance, beside the progress.
pub(crate) fn tell_harm(line: &str) {
    if io::stderr().is_terminal() {
        output::rewrite("");
    }
    output::note(line);
}

/// The whole report.
pub(crate) fn summary(report: &Report) -> String {
    let mut parts = vec![head(report), statuses(report), times(report)];
    let steps = report.methods.iter().any(|method| !method.steps.is_empty());
    if report.methods.len() > 1 || steps {
        let rows = report.methods.iter().flat_map(|method| {
            let steps = method.steps.iter();
            let steps = steps.map(|step| (format!("  {}", step.method), &step.calls));
            std::iter::once((method.name.clone(), &method.calls)).chain(steps)
        });
        parts.push(parts_table("METHOD", report.ended, rows));
    }
    let rows = report.endpoints.iter().map(|endpoint| {
        let address = endpoint.address.clone();
        (
            address.unwrap_or_else(|| "none".to_owned()),
            &endpoint.calls,
        )
    });
    parts.push(parts_table("ENDPOINT", report.ended, rows));
    if !report.faults.is_empty() {
        parts.push(faults(report));
    }
    if !report.errors.is_empty() {
        parts.push(errors(report));
    }
    if report.void {
        parts.push(format!("void: {}", report.void_reasons.join("; ")));
    }
    parts.join("\n\n")
}

/// How calls were sent.
pub(crate) fn pace(report: &Report) -> String {
    match (report.rate, report.concurrency) {
        (Some(rate), _) => format!("{rate} calls/s, open loop"),
        (None, Some(concurrency)) => format!("{concurrency} at a time, closed loop"),
        (None, None) => {
            let stages = report.stages.iter().map(|stage| {
                let time = seconds(stage.duration_seconds);
                if stage.from.total_cmp(&stage.to).is_eq() {
                    format!("{} for {time}", stage.to)
                } else {
                    format!("{} to {} in {time}", stage.from, stage.to)
                }
            });
            let stages: Vec<_> = stages.collect();
            format!("{} calls/s, open loop", stages.join(", "))
        }
    }
}

fn head(report: &Report) -> String {
    let pace = pace(report);
    let interrupted = if report.interrupted {
        ", interrupted"
    } else {
        ""
    };
    let lost = [
        (report.dropped, "dropped: no place among those in flight"),
        (report.cut, "cut at the end"),
    ];
    let lost: Vec<_> = lost
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!(", {count} {what}"))
        .collect();
    let first = format!(
        "{}: {pace}, {}{interrupted}",
        report.target,
        seconds(report.duration_seconds)
    );
    let calls = format!(
        "{} calls due, {} sent ({:.1}/s, {:.2} % on schedule), {} ended ({:.2} %){}",
        report.due,
        report.sent,
        report.sent_per_second,
        report.sent_on_schedule_ratio * 100.0,
        report.ended,
        report.final_status_ratio * 100.0,
        lost.concat(),
    );
    let traffic = format!(
        "messages {} sent, {} received; bytes {} sent, {} received",
        report.messages.sent, report.messages.received, report.bytes.sent, report.bytes.received
    );
    [first, calls, traffic].join("\n")
}

fn statuses(report: &Report) -> String {
    let rows = report.status.iter().map(|(status, count)| {
        [
            (*status).to_owned(),
            count.to_string(),
            percent(*count, report.ended),
        ]
    });
    output::table(["STATUS", "CALLS", "SHARE"], &rows.collect::<Vec<_>>())
}

fn times(report: &Report) -> String {
    let mut rows = Vec::new();
    let fine = report.latency_ok_seconds.count;
    let some_failed = fine > 0 && fine < report.latency_seconds.count;
    let single = report.messages.received == fine;
    for (name, spread, shown) in [
        ("from when due", &report.latency_seconds, true),
        ("of those OK", &report.latency_ok_seconds, some_failed),
        ("to first message", &report.first_message_seconds, !single),
        ("from when sent", &report.service_time_seconds, true),
        (
            "sent late by",
            &report.send_delay_seconds,
            report.concurrency.is_none(),
        ),
    ] {
        if shown {
            rows.push(spread_row(name, spread));
        }
    }
    let heading = [
        "LATENCY", "MIN", "MEAN", "P50", "P90", "P95", "P99", "P99.9", "MAX",
    ];
    output::table(heading, &rows)
}

fn spread_row(name: &str, spread: &Spread) -> [String; 9] {
    [
        name.to_owned(),
        milliseconds(spread.min),
        milliseconds(spread.mean),
        milliseconds(spread.p50),
        milliseconds(spread.p90),
        milliseconds(spread.p95),
        milliseconds(spread.p99),
        milliseconds(spread.p999),
        milliseconds(spread.max),
    ]
}

fn parts_table<'a>(
    heading: &str,
    ended: u64,
    parts: impl Iterator<Item = (String, &'a Calls)>,
) -> String {
    let row = |(name, calls): (String, &Calls)| {
        let fine = calls.status.get(code_name(tonic::Code::Ok)).unwrap_or(&0);
        [
            name,
            calls.ended.to_string(),
            percent(calls.ended, ended),
            (calls.ended - fine).to_string(),
            milliseconds(calls.latency_seconds.p50),
            milliseconds(calls.latency_seconds.p99),
            milliseconds(calls.latency_seconds.max),
        ]
    };
    let heading = [heading, "CALLS", "SHARE", "FAILED", "P50", "P99", "MAX"];
    output::table(heading, &parts.map(row).collect::<Vec<_>>())
}

/// What was done on purpose.
fn faults(report: &Report) -> String {
    let at = |time: Option<f64>| time.map_or_else(|| "never".to_owned(), |at| format!("{at:.1}s"));
    let rows = report.faults.iter().map(|fault| {
        [
            fault.whom.clone(),
            fault.what.clone(),
            at(fault.from_seconds),
            at(fault.until_seconds),
            fault.error.clone().unwrap_or_default(),
        ]
    });
    let heading = ["WHOM", "FAULT", "FROM", "UNTIL", ""];
    output::table(heading, &rows.collect::<Vec<_>>())
}

fn errors(report: &Report) -> String {
    let rows = report.errors.iter().map(|error| {
        [
            error.count.to_string(),
            error.status.to_owned(),
            error.method.clone(),
            error.message.clone(),
        ]
    });
    let heading = ["FAILED", "STATUS", "METHOD", "FIRST MESSAGE"];
    let table = output::table(heading, &rows.collect::<Vec<_>>());
    match report.errors_not_shown {
        0 => table,
        others => format!("{table}\nand {others} of other kinds"),
    }
}

pub(crate) fn percent(part: u64, whole: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "shown with two digits")]
    let share = part as f64 / (whole.max(1)) as f64;
    format!("{:.2} %", share * 100.0)
}

/// `0.42 ms`, `12.3 ms`, `1204 ms`.
pub(crate) fn milliseconds(seconds: f64) -> String {
    let ms = seconds * 1e3;
    if ms < 10.0 {
        format!("{ms:.2} ms")
    } else if ms < 100.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

pub(crate) fn seconds(seconds: f64) -> String {
    // Nobody reads nanoseconds.
    let digits = if seconds < 1.0 { 1e3 } else { 10.0 };
    let duration = Duration::try_from_secs_f64((seconds * digits).round() / digits);
    humantime::format_duration(duration.unwrap_or_default()).to_string()
}

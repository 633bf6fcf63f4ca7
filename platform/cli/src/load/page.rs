//! A report as one page for people: charts over the time of the run, and the numbers beneath.
//!
//! It needs nothing else: no script, no font and no picture from anywhere. What services and plans
//! call themselves is text in it, never markup.

mod chart;

use std::{borrow::Cow, collections::BTreeMap};

use gantry::status::code_name;
use tonic::Code;

use self::chart::{Band, Chart, Line};
use super::{
    report::{Calls, IntervalReport, Report, SliceReport},
    show::{milliseconds, pace, percent, seconds},
};

const STYLE: &str = include_str!("page/style.css");

/// Codes with a line of their own; the others share one.
const CODES_MAX: usize = 6;

/// Endpoints in the table; those with the fewest calls are left out.
const ENDPOINTS_MAX: usize = 40;

/// Characters of a name or a message that are shown.
const TEXT_MAX: usize = 200;

/// The page.
pub(crate) fn of(report: &Report) -> String {
    let bands = bands(report);
    let mut page = head(report);
    page.push_str(&faults(report));
    page.push_str(&charts(report, &bands));
    page.push_str(&methods(report));
    page.push_str(&statuses(report));
    page.push_str(&endpoints(report));
    page.push_str(&errors(report));
    page.push_str(&intervals(report));
    page.push_str("</body>\n</html>\n");
    page
}

fn head(report: &Report) -> String {
    let target = escaped(&report.target);
    let interrupted = if report.interrupted {
        ", <b>interrupted</b>"
    } else {
        ""
    };
    let void = if report.void {
        let reasons = report.void_reasons.join("; ");
        format!(
            "<div class=\"void\"><strong>VOID</strong>This run says nothing about {target}: {}</div>\n",
            escaped(&reasons)
        )
    } else {
        String::new()
    };
    let ok = report.status.get(code_name(Code::Ok)).unwrap_or(&0);
    let latency = &report.latency_seconds;
    let tiles = [
        (report.due.to_string(), "calls due"),
        (percent(*ok, report.due), "OK"),
        (report.failed().to_string(), "failed or dropped"),
        (milliseconds(latency.p50), "p50, from when due"),
        (milliseconds(latency.p99), "p99"),
        (milliseconds(latency.max), "max"),
        (
            format!("{:.2} %", report.sent_on_schedule_ratio * 100.0),
            "sent on schedule",
        ),
    ];
    let tiles = tiles.map(|(value, what)| format!("<div><b>{value}</b><span>{what}</span></div>"));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>Load on {target}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>Load on {target}</h1>\n<p class=\"soft\">{}, {}{interrupted}</p>\n{void}\
         <div class=\"tiles\">{}</div>\n",
        escaped(&pace(report)),
        seconds(report.duration_seconds),
        tiles.concat(),
    )
}

fn bands(report: &Report) -> Vec<Band> {
    let band = |(number, fault): (usize, &super::report::FaultReport)| {
        let from = fault.from_seconds?;
        Some(Band {
            name: format!("F{}", number + 1),
            from,
            until: fault.until_seconds.unwrap_or(report.duration_seconds),
        })
    };
    report.faults.iter().enumerate().filter_map(band).collect()
}

/// Intervals whose rate says something: of one that the end cut short it may be anything.
fn charted(report: &Report) -> impl Iterator<Item = &IntervalReport> {
    let least = report.interval_seconds / 4.0;
    let only = report.intervals.len() == 1;
    let all = report.intervals.iter();
    all.filter(move |interval| only || interval.seconds >= least)
}

/// A line through the middles of the intervals.
fn line(
    report: &Report,
    name: impl Into<String>,
    class: usize,
    value: impl Fn(&IntervalReport) -> Option<f64>,
) -> Line {
    let points = charted(report).map(|interval| {
        let middle = interval.from_seconds + interval.seconds / 2.0;
        (middle, value(interval))
    });
    Line {
        name: name.into(),
        class,
        points: points.collect(),
    }
}

fn charts(report: &Report, bands: &[Band]) -> String {
    let ends = report
        .intervals
        .iter()
        .map(|it| it.from_seconds + it.seconds);
    let chart = |heading: &str, unit: &str, lines: Vec<Line>| {
        let chart = Chart {
            unit,
            seconds: ends
                .clone()
                .fold(report.duration_seconds, f64::max)
                .max(0.1),
            logarithmic: unit.starts_with("ms"),
            lines,
            bands,
        };
        chart.draw(heading)
    };
    let mut charts = chart(
        "Calls",
        "calls/s, by when they were due",
        vec![
            line(report, "offered", 0, |it| Some(per_second(it.due, it))),
            line(report, "OK", 1, |it| Some(per_second(it.all.ok, it))),
            line(report, "failed, dropped or cut", 2, |it| {
                Some(per_second(it.due - it.all.ok, it))
            }),
        ],
    );
    let failures = failures(report);
    if !failures.is_empty() {
        charts += &chart("Failures by status", "calls/s", failures);
    }
    let latency = |name: &str, class, of: fn(&SliceReport) -> f64| {
        line(report, name, class, move |it| latency(&it.all, of))
    };
    charts += &chart(
        "Latency, from when a call was due",
        "ms, logarithmic",
        vec![
            latency("p50", 1, |it| it.latency_p50_seconds),
            latency("p99", 3, |it| it.latency_p99_seconds),
            // Dotted, and over the others, with which it is one where few calls are made.
            latency("max", 4, |it| it.latency_max_seconds),
        ],
    );
    let parts = report.intervals.first().map_or(0, |it| it.parts.len());
    if parts > 1 {
        let heading = "Calls that were OK, by target and criticality";
        let ok = by_part(report, |it, slice| Some(per_second(slice.ok, it)));
        charts += &chart(heading, "calls/s", ok);
        let heading = "p99 by target and criticality";
        let p99 = by_part(report, |_, slice| latency_of(slice));
        charts += &chart(heading, "ms, logarithmic", p99);
    }
    charts
}

/// A line for each code but OK, the most frequent first.
fn failures(report: &Report) -> Vec<Line> {
    let ok = code_name(Code::Ok);
    let mut codes: Vec<_> = report
        .status
        .iter()
        .filter(|(code, _)| **code != ok)
        .collect();
    codes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let (own, others) = codes.split_at(codes.len().min(CODES_MAX));
    let sum = |status: &BTreeMap<&str, u64>, codes: &[(&&'static str, &u64)]| {
        let counts = codes.iter().filter_map(|(code, _)| status.get(**code));
        counts.sum::<u64>()
    };
    let mut lines = Vec::new();
    for (number, code) in own.iter().enumerate() {
        let one = std::slice::from_ref(code);
        lines.push(line(report, *code.0, number + 2, |it| {
            Some(per_second(sum(&it.all.status, one), it))
        }));
    }
    if !others.is_empty() {
        lines.push(line(report, "others", 1, |it| {
            Some(per_second(sum(&it.all.status, others), it))
        }));
    }
    if report.dropped > 0 {
        lines.push(line(report, "dropped, never sent", 0, |it| {
            Some(per_second(it.dropped, it))
        }));
    }
    lines
}

/// A line for each target and criticality.
fn by_part(
    report: &Report,
    value: impl Fn(&IntervalReport, &SliceReport) -> Option<f64>,
) -> Vec<Line> {
    let first = report.intervals.first();
    let parts = first.map_or(&[][..], |first| &first.parts);
    let lines = parts.iter().enumerate().map(|(number, part)| {
        let criticality = part.criticality.map(|it| format!(", {it}"));
        let name = format!("{}{}", part.target, criticality.unwrap_or_default());
        let name = shortened(&name).into_owned();
        line(report, name, number + 1, |it| {
            it.parts.get(number).and_then(|part| value(it, &part.calls))
        })
    });
    lines.collect()
}

fn latency(slice: &SliceReport, of: fn(&SliceReport) -> f64) -> Option<f64> {
    let ended = slice.status.values().any(|count| *count > 0);
    ended.then(|| of(slice) * 1e3)
}

fn latency_of(slice: &SliceReport) -> Option<f64> {
    latency(slice, |it| it.latency_p99_seconds)
}

fn per_second(count: u64, interval: &IntervalReport) -> f64 {
    #[allow(
        clippy::cast_precision_loss,
        reason = "drawn, and shown with one digit"
    )]
    let count = count as f64;
    count / interval.seconds
}

/// A table; cells of the first `texts` columns are words, the others numbers.
fn table(heading: &str, titles: &[&str], texts: usize, rows: &[Vec<String>]) -> String {
    let cell = |element: &str, column: usize, text: &str| {
        // Long words break; numbers and short ones stay in a line.
        let class = match column {
            _ if column >= texts => "",
            _ if text.len() > 60 => " class=\"w\"",
            _ => " class=\"t\"",
        };
        let text = escaped(&shortened(text));
        format!("<{element}{class}>{text}</{element}>")
    };
    let row = |element: &str, cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.enumerate();
        let cells: Vec<_> = cells
            .map(|(column, it)| cell(element, column, it))
            .collect();
        format!("<tr>{}</tr>\n", cells.concat())
    };
    let titles = row("th", &mut titles.iter().copied());
    let rows = rows
        .iter()
        .map(|cells| row("td", &mut cells.iter().map(String::as_str)));
    let rows: Vec<_> = rows.collect();
    format!(
        "<h2>{}</h2>\n<div class=\"scroll\"><table>\n{titles}{}</table></div>\n",
        escaped(heading),
        rows.concat()
    )
}

fn faults(report: &Report) -> String {
    if report.faults.is_empty() {
        return String::new();
    }
    let at = |time: Option<f64>| time.map_or_else(|| "never".to_owned(), |at| format!("{at:.1} s"));
    let rows = report.faults.iter().enumerate().map(|(number, fault)| {
        vec![
            format!("F{}", number + 1),
            fault.whom.clone(),
            fault.what.clone(),
            fault.error.clone().unwrap_or_default(),
            at(fault.from_seconds),
            at(fault.until_seconds),
        ]
    });
    let titles = ["", "whom", "what was done", "", "from", "until"];
    table("Faults on purpose", &titles, 4, &rows.collect::<Vec<_>>())
}

/// Titles of what [`calls`] says.
const CALLS: [&str; 6] = ["calls", "share", "failed", "p50", "p99", "max"];

fn calls(calls: &Calls, all: u64) -> Vec<String> {
    let ok = calls.status.get(code_name(Code::Ok)).unwrap_or(&0);
    vec![
        calls.ended.to_string(),
        percent(calls.ended, all),
        (calls.ended - ok).to_string(),
        milliseconds(calls.latency_seconds.p50),
        milliseconds(calls.latency_seconds.p99),
        milliseconds(calls.latency_seconds.max),
    ]
}

fn methods(report: &Report) -> String {
    let mut rows = Vec::new();
    for method in &report.methods {
        let texts = [
            method.name.clone(),
            method.target.clone(),
            method.criticality.unwrap_or("–").to_owned(),
        ];
        rows.push([&texts[..], &calls(&method.calls, report.ended)].concat());
        for step in &method.steps {
            let texts = [format!("↳ {}", step.method), String::new(), String::new()];
            rows.push([&texts[..], &calls(&step.calls, report.ended)].concat());
        }
    }
    let titles = [&["call", "target", "criticality"][..], &CALLS].concat();
    table("Calls by what they do", &titles, 3, &rows)
}

fn statuses(report: &Report) -> String {
    let rows = report.status.iter().map(|(status, count)| {
        vec![
            (*status).to_owned(),
            count.to_string(),
            percent(*count, report.ended),
        ]
    });
    let titles = ["status", "calls", "share"];
    table("Calls by status", &titles, 1, &rows.collect::<Vec<_>>())
}

fn endpoints(report: &Report) -> String {
    let mut endpoints: Vec<_> = report.endpoints.iter().collect();
    endpoints.sort_by_key(|endpoint| std::cmp::Reverse(endpoint.calls.ended));
    endpoints.truncate(ENDPOINTS_MAX);
    let rows = endpoints.iter().map(|endpoint| {
        let address = endpoint.address.clone();
        let address = address.unwrap_or_else(|| "none".to_owned());
        [&[address][..], &calls(&endpoint.calls, report.ended)].concat()
    });
    let titles = [&["endpoint"][..], &CALLS].concat();
    table("Calls by endpoint", &titles, 1, &rows.collect::<Vec<_>>())
}

fn errors(report: &Report) -> String {
    if report.errors.is_empty() {
        return String::new();
    }
    let rows = report.errors.iter().map(|error| {
        vec![
            error.status.to_owned(),
            error.method.clone(),
            error.message.clone(),
            error.count.to_string(),
        ]
    });
    let titles = ["status", "call", "first message of its kind", "calls"];
    table("What went wrong", &titles, 3, &rows.collect::<Vec<_>>())
}

fn intervals(report: &Report) -> String {
    let rows = report.intervals.iter().map(|interval| {
        let all = &interval.all;
        let time = |of| {
            let time = latency(all, of);
            time.map_or_else(|| "–".to_owned(), |ms| milliseconds(ms / 1e3))
        };
        vec![
            format!("{:.0} s", interval.from_seconds),
            format!("{:.1}", per_second(interval.due, interval)),
            format!("{:.1}", per_second(all.ok, interval)),
            (interval.due - all.ok).to_string(),
            interval.dropped.to_string(),
            time(|it| it.latency_p50_seconds),
            time(|it| it.latency_p99_seconds),
            time(|it| it.latency_max_seconds),
        ]
    });
    let titles = [
        "from",
        "offered/s",
        "OK/s",
        "not OK",
        "dropped",
        "p50",
        "p99",
        "max",
    ];
    let heading = format!("Every {}", seconds(report.interval_seconds));
    table(&heading, &titles, 0, &rows.collect::<Vec<_>>())
}

/// The beginning of a text that is too long for a table.
fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// A text that is nothing but text in a page, in elements and in attributes.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Those that turn the direction of what follows, and those that no page may hold.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => {
                escaped.push('\u{fffd}');
            }
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;

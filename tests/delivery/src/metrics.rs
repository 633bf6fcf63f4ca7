//! What a process says of itself, in the text of Prometheus.

use std::collections::BTreeMap;

use gantry::names::metric as names;

use crate::evidence::Measure;

/// What a page of metrics says of the events of a process and of its consumer `group`.
pub(crate) fn read(page: &str, group: &str) -> BTreeMap<Measure, u64> {
    let sum = |name: &str, labels: &[(&str, &str)]| {
        let lines = page.lines().filter_map(|line| value(line, name, labels));
        lines.fold(None, |sum, value| Some(sum.unwrap_or(0) + value))
    };
    let of_group = ("messaging_consumer_group_name", group);
    let consumed = |outcomes: &[&str]| {
        let counts = outcomes.iter().map(|outcome| {
            sum(
                names::EVENTS_CONSUMED.name,
                &[of_group, ("outcome", outcome)],
            )
        });
        counts.flatten().reduce(|one, other| one + other)
    };
    let published = |outcome| sum(names::EVENTS_PUBLISHED.name, &[("outcome", outcome)]);
    let told = [
        (Measure::Added, sum(names::EVENTS_ADDED.name, &[])),
        (Measure::Confirmed, published("sent")),
        (Measure::Dropped, published("dropped")),
        (
            Measure::Delivered,
            sum(names::MESSAGING_CONSUMED.name, &[of_group]),
        ),
        (
            Measure::Redelivered,
            sum(names::EVENTS_REDELIVERED.name, &[of_group]),
        ),
        (Measure::Deduplicated, consumed(&["known"])),
        (Measure::Acked, consumed(&["applied", "known"])),
        (Measure::PutOff, consumed(&["put_off", "postponed"])),
        (Measure::Dead, consumed(&["dead"])),
        (Measure::Backlog, sum(names::EVENTS_PENDING.name, &[])),
    ];
    let told = told.into_iter();
    told.filter_map(|(measure, count)| Some((measure, count?)))
        .collect()
}

/// The value of a line of the metric `name` that has these labels.
fn value(line: &str, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
    let rest = line.strip_prefix(name)?;
    let (has, value) = match rest.strip_prefix('{') {
        Some(rest) => rest.rsplit_once("} ")?,
        None => ("", rest.strip_prefix(' ')?),
    };
    let all = labels.iter().all(|(label, value)| {
        let pair = format!("{label}=\"{value}\"");
        has.split(',').any(|it| it == pair)
    });
    // Gauges are written with a fraction.
    let (whole, _) = value.split_once('.').unwrap_or((value, ""));
    all.then(|| whole.trim().parse().ok())?
}

//! The part of docs/performance.md on events.

use std::fmt::{self, Write as _};

use super::{Figures, KEYS, KEYS_FEW, Measured, Pair, stand::Outcome};
use crate::report::Spread;

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RabbitPostgres => "RabbitMQ, PostgreSQL",
            Self::LocalSqlite => "local broker, SQLite",
            Self::RabbitSqlite => "RabbitMQ, SQLite",
            Self::LocalPostgres => "local broker, PostgreSQL",
        })
    }
}

/// What the section begins with.
pub(crate) const HEADING: &str = "\n## Events\n";

/// The section; nothing where nothing was measured.
pub(crate) fn section(figures: &Figures) -> String {
    if figures.is_empty() {
        return String::new();
    }
    let rounds = figures.iter().map(|(_, it)| it.bare.len()).max();
    let head = HEAD.replace("ROUNDS", &rounds.unwrap_or(0).to_string());
    let mut text = format!("{HEADING}{head}{RELAY}");
    for (pair, measured) in figures {
        for (keys, relay) in [(KEYS, &measured.relay), (KEYS_FEW, &measured.relay_few)] {
            let target = if keys == KEYS { "≥ 0.80" } else { "" };
            let (bare, rates) = (rates(&measured.bare), rates(relay));
            let ratio = ratio(relay, &measured.bare, Outcome::rate);
            row(
                &mut text,
                &format!("{pair} | {keys} | {bare} | {rates} | {ratio} | {target}"),
            );
        }
    }
    text.push_str(RELAY_CPU);
    for (pair, measured) in figures {
        for (what, outcomes) in [
            ("bare", &measured.bare),
            ("relay", &measured.relay),
            ("relay, few keys", &measured.relay_few),
        ] {
            row(&mut text, &cpu(*pair, what, outcomes));
        }
    }
    let whole = || figures.iter().filter(|(_, it)| !it.consumer.is_empty());
    if whole().next().is_none() {
        return text;
    }
    text.push_str(CONSUMER);
    for (pair, measured) in whole() {
        row(&mut text, &consumer(*pair, measured));
    }
    text.push_str(CONSUMER_CPU);
    for (pair, measured) in whole() {
        for (what, outcomes) in [
            ("bare, acks", &measured.acks),
            ("bare, rows", &measured.rows),
            ("gantry", &measured.consumer),
        ] {
            row(&mut text, &cpu(*pair, what, outcomes));
        }
    }
    text.push_str(LATENCY);
    for (pair, measured) in whole() {
        row(&mut text, &latency(*pair, measured));
    }
    text.push_str(ADD);
    for (pair, measured) in whole() {
        row(&mut text, &add(*pair, measured));
    }
    text
}

fn row(text: &mut String, cells: &str) {
    writeln!(text, "| {cells} |").expect("a string takes all");
}

fn rates(outcomes: &[Outcome]) -> String {
    Spread::of(outcomes.iter().map(Outcome::rate)).show(0)
}

/// Of each round, one of the first beside one of the second.
fn ratio(of: &[Outcome], to: &[Outcome], what: fn(&Outcome) -> f64) -> String {
    let pairs = of.iter().zip(to);
    Spread::of(pairs.map(|(of, to)| what(of) / what(to))).show(2)
}

/// Microseconds of CPU time for each.
fn cpu(pair: Pair, what: &str, outcomes: &[Outcome]) -> String {
    let of = |which: fn(&Outcome) -> f64| {
        let each = outcomes.iter().map(|it| which(it) / it.count * 1e6);
        Spread::of(each).show(0)
    };
    let (own, database) = (of(|it| it.cpu), of(|it| it.cpu_database));
    let broker = of(|it| it.cpu_broker);
    format!("{pair} | {what} | {own} | {database} | {broker}")
}

fn consumer(pair: Pair, measured: &Measured) -> String {
    let Measured {
        acks,
        rows,
        consumer,
        ..
    } = measured;
    let to_acks = ratio(consumer, acks, Outcome::rate);
    let to_rows = ratio(consumer, rows, Outcome::rate);
    let (acks, rows, consumer) = (rates(acks), rates(rows), rates(consumer));
    format!("{pair} | {acks} | {rows} | {consumer} | {to_acks} | {to_rows}")
}

fn latency(pair: Pair, measured: &Measured) -> String {
    let of = |times: &[(f64, f64)], which: fn(&(f64, f64)) -> f64| {
        Spread::of(times.iter().map(|it| which(it) / 1e3)).show(1)
    };
    let (bare, gantry) = (&measured.latency_bare, &measured.latency);
    let halves = bare.iter().zip(gantry);
    let ratio = Spread::of(halves.map(|(bare, gantry)| gantry.0 / bare.0)).show(1);
    format!(
        "{pair} | {} | {} | {ratio} | {} | {}",
        of(bare, |it| it.0),
        of(gantry, |it| it.0),
        of(bare, |it| it.1),
        of(gantry, |it| it.1),
    )
}

fn add(pair: Pair, measured: &Measured) -> String {
    let took = |outcomes: &[Outcome]| Spread::of(outcomes.iter().map(|it| 1e6 / it.rate())).show(0);
    let cpu = |outcomes: &[Outcome]| {
        let both = outcomes
            .iter()
            .map(|it| (it.cpu + it.cpu_database) / it.count * 1e6);
        Spread::of(both).show(0)
    };
    let database = if pair.is_postgres() {
        "PostgreSQL"
    } else {
        "SQLite"
    };
    let (row, added) = (&measured.row, &measured.added);
    format!(
        "{database} | {} | {} | {} | {}",
        took(row),
        took(added),
        cpu(row),
        cpu(added)
    )
}

const HEAD: &str = "
What events cost, beside clients of the brokers alone: lapin with confirmations, and tonic's channel. All have the same
messages, with a body of 256 bytes and the headers of an event, the same queues (eight, quorum queues on RabbitMQ, whatever is
confirmed on disk), the same prefetch (64) and as many messages that are not confirmed (256). The broker has a core; whoever
publishes or consumes has the other, with its database: PostgreSQL as another process there, with its disk waited for.
Median (least to most) of ROUNDS rounds in which all take turns. It is the whole service that is measured, with all that it
carries in production; no trace exporter is set up.
";

const RELAY: &str = "
### Relay

From an outbox with 60,000 events to all of them confirmed and written down as sent, beside as many ready messages that are published
and nothing more: whatever the database costs has no counterpart there. Of one key one event is under way at a time, so few keys do
not fill the window: what that costs is what order costs.

| broker, database | keys | bare, messages a second | relay, events a second | ratio | target |
| --- | --: | --: | --: | --: | --: |
";

const RELAY_CPU: &str = "
What bounds it: on RabbitMQ the broker, which is at work nearly all the time with either client, as the next events of keys go
out while confirmations are noted and written down. A relay that begins with a full outbox takes half a second to come to that, and
to end: of 20,000 events that would be a fifth of the time. On the local broker the core that publishes has no rest, and the broker
has: for each event a row is read, and written once it is sent, which has no counterpart in a bare client. 0.80 of that would be
1.25 times what a bare message takes from the first to the last, and what relay and database have to do for an event is more by
itself. Fewer keys than the window has places are bound by the time until a confirmation.

CPU time for each, in microseconds: of whoever publishes (with SQLite, which is in its process), of PostgreSQL, and of the broker.

| broker, database | | own | PostgreSQL | broker |
| --- | --- | --: | --: | --: |
";

const CONSUMER: &str = "
### Consumer

From the first message of full queues to the last: bare, acknowledged and nothing more; bare, with a row for each, written in
a transaction of its own before that; and a handler that writes that row, with the note that keeps an event from having its
effect twice, and all the care of retries and order. Four are handled at once.

| broker, database | bare, acks | bare, rows | gantry | to acks | to rows |
| --- | --: | --: | --: | --: | --: |
";

const CONSUMER_CPU: &str = "
CPU time for each, in microseconds, as above.

| broker, database | | own | PostgreSQL | broker |
| --- | --- | --: | --: | --: |
";

const LATENCY: &str = "
### Latency

Milliseconds at fifty events a second, one after the other: from the commit of the transaction that an event is written down in to its
handler, with the outbox between and both ends in one process; bare, from publishing to arrival.

| broker, database | bare, half | gantry, half | ratio | bare, 99 of 100 | gantry, 99 of 100 |
| --- | --: | --: | --: | --: | --: |
";

const ADD: &str = "
### Adding an event

Microseconds of a transaction that writes a row, and of one that writes an event down with it; the two take turns in one
process, as often as to be alike in all else.

| database | row | with event | CPU, row | CPU, with event |
| --- | --: | --: | --: | --: |
";

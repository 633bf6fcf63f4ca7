//! The page docs/performance.md.

use std::fmt::{self, Write as _};

use gantry_bench::RATE;

use crate::{
    delivery,
    discovery::{COUNTS, Figures},
    measure::Side,
    profile::Rooms,
};

/// Everything measured.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// Instructions per call, tonic and gantry in turn.
    pub(crate) instructions: Vec<(Side, Vec<(f64, f64)>)>,
    /// The same of the last round, by the room of the code.
    pub(crate) rooms: Vec<(Side, (Rooms, Rooms))>,
    /// CPU microseconds per call, tonic and gantry in turn.
    pub(crate) times: Vec<(Side, Vec<(f64, f64)>)>,
    /// Calls a second with both ends of one stack, tonic and gantry in turn.
    pub(crate) throughput: Vec<(f64, f64)>,
    /// Microseconds of the median call, to a server itself and through the gateway's step.
    pub(crate) medians: Vec<(f64, f64)>,
    /// What a name with many endpoints costs.
    pub(crate) discovery: Figures,
    /// What events cost.
    pub(crate) events: delivery::Figures,
}

/// The page, whole.
pub(crate) fn page(results: &Results) -> String {
    let mut page = String::from(HEAD);
    page.push_str(TABLE);
    for (side, rounds) in &results.instructions {
        let target = match side {
            Side::Server => "1.15",
            Side::Client | Side::Forward => "1.00",
        };
        writeln!(page, "{} ≤ {target} |", row(side, rounds, 0)).expect("a string takes all");
    }
    page.push_str(ROOMS);
    for (side, (tonic, gantry)) in &results.rooms {
        page.push_str(&rooms(*side, tonic, gantry));
    }
    page.push_str(TIMES);
    for (side, pairs) in &results.times {
        writeln!(page, "{}", row(side, pairs, 2)).expect("a string takes all");
    }
    page.push_str(THROUGHPUT);
    writeln!(page, "{}", row(&"both ends", &results.throughput, 0)).expect("a string takes all");
    page.push_str(PEERS);
    page.push_str(GATEWAY);
    writeln!(page, "{}", overhead(results)).expect("a string takes all");
    page.push_str(&discovery(&results.discovery));
    page.push_str(&delivery::section(&results.events));
    page
}

/// The page as it is, with another section on events.
pub(crate) fn with_events(page: &str, events: &delivery::Figures) -> String {
    let (before, rest) = page.split_once(delivery::HEADING).unwrap_or((page, ""));
    let after = rest.find("\n## ").map_or("", |at| &rest[at..]);
    format!("{before}{}{after}", delivery::section(events))
}

/// Where the instructions of one side are spent: the platform's rooms, and all that is not its own.
fn rooms(side: Side, tonic: &Rooms, gantry: &Rooms) -> String {
    let is_own = |room: &str| room.starts_with("gantry") || room.starts_with("gateway");
    let of = |rooms: &Rooms, room: &str| rooms.get(room).copied().unwrap_or(0.0);
    let mut own: Vec<_> = gantry.iter().filter(|(room, _)| is_own(room)).collect();
    own.sort_by(|one, other| other.1.total_cmp(one.1));
    let mut text = format!("\n| {side} | bare tonic | gantry |\n| --- | --: | --: |\n");
    let mut row = |name: &str, tonic: f64, gantry: f64| {
        writeln!(text, "| {name} | {tonic:.0} | {gantry:.0} |").expect("a string takes all");
    };
    let (shown, small): (Vec<_>, Vec<_>) =
        own.into_iter().partition(|(_, cost)| **cost >= ROOM_LEAST);
    for (room, cost) in shown {
        row(&format!("`{room}`"), 0.0, *cost);
    }
    row(
        "other code of the platform",
        0.0,
        small.iter().map(|(_, cost)| **cost).sum(),
    );
    let mut others: Vec<_> = tonic
        .keys()
        .chain(gantry.keys())
        .filter(|room| !is_own(room))
        .collect();
    others.sort();
    others.dedup();
    let (shown, small): (Vec<_>, Vec<_>) = others
        .into_iter()
        .map(|room| (room, of(tonic, room), of(gantry, room)))
        .partition(|(_, tonic, gantry)| tonic.max(*gantry) >= LIBRARY_LEAST);
    for (room, tonic, gantry) in shown {
        row(room, tonic, gantry);
    }
    let rest = |which: fn(&(&String, f64, f64)) -> f64| small.iter().map(which).sum();
    row("others", rest(|it| it.1), rest(|it| it.2));
    text
}

fn discovery(figures: &Figures) -> String {
    let [few, many] = COUNTS;
    let picks = |picks: &[(f64, f64)], which: fn(&(f64, f64)) -> f64| {
        Spread::of(picks.iter().map(which)).show(0)
    };
    let costs = |costs: &[f64]| Spread::of(costs.iter().copied()).show(0);
    let rows = [
        (
            format!("pick among {few}, ns"),
            picks(&figures.picks, |pair| pair.0),
            "",
        ),
        (
            format!("pick among {many}, ns"),
            picks(&figures.picks, |pair| pair.1),
            "< 200",
        ),
        (
            format!("place for a call among {few}, ns"),
            picks(&figures.places, |pair| pair.0),
            "",
        ),
        (
            format!("place for a call among {many}, ns"),
            picks(&figures.places, |pair| pair.1),
            "",
        ),
        (
            format!("attributes change, {RATE} a second, µs"),
            costs(&figures.changes),
            "",
        ),
        (
            format!("endpoint goes or comes, {RATE} a second, µs"),
            costs(&figures.replacements),
            "",
        ),
        (
            "memory of an endpoint, KiB".to_owned(),
            format!("{:.1}", figures.bytes_per_endpoint / 1_024.0),
            "",
        ),
    ];
    let mut text = DISCOVERY.to_owned();
    for (what, cost, target) in rows {
        writeln!(text, "| {what} | {cost} | {target} |").expect("a string takes all");
    }
    text
}

/// What a call through the gateway takes beside one to the server itself.
fn overhead(results: &Results) -> String {
    let of = |wanted: Side, which: fn(&(f64, f64)) -> f64| {
        let times = results.times.iter().filter(|(side, _)| *side == wanted);
        Spread::of(times.flat_map(|(_, pairs)| pairs).map(which)).median
    };
    let both_ends = of(Side::Server, |pair| pair.0) + of(Side::Client, |pair| pair.0);
    let between = of(Side::Forward, |pair| pair.1);
    let medians = &results.medians;
    let ratio = Spread::of(medians.iter().map(|pair| pair.1 / pair.0)).show(2);
    format!(
        "| CPU time, µs | {both_ends:.2} | {between:.2} more | {:.2} |\n\
         | median of one caller, µs | {} | {} | {ratio} |",
        (both_ends + between) / both_ends,
        Spread::of(medians.iter().map(|pair| pair.0)).show(0),
        Spread::of(medians.iter().map(|pair| pair.1)).show(0),
    )
}

/// Both stacks and the ratio of each pair, as medians with their spread.
fn row(side: &dyn fmt::Display, pairs: &[(f64, f64)], digits: usize) -> String {
    let tonic = Spread::of(pairs.iter().map(|pair| pair.0)).show(digits);
    let gantry = Spread::of(pairs.iter().map(|pair| pair.1)).show(digits);
    let ratio = Spread::of(pairs.iter().map(|pair| pair.1 / pair.0)).show(3);
    format!(
        "| {side} | {} | {tonic} | {gantry} | {ratio} |",
        pairs.len()
    )
}

const TABLE: &str = "\
| side | rounds | bare tonic | gantry | ratio | target |
| --- | --: | --: | --: | --: | --: |
";

const HEAD: &str = "\
# Performance

What one unary call costs, the chassis beside bare tonic: an echo of 16 bytes, release build; what a name with many
endpoints costs; and what events cost, beside clients of their brokers. Written by
`cargo run --release -p gantry-bench --bin bench`; do not edit.

Gantry's side carries all it carries in production: the span, metrics, deadlines, message limits, rescue; a health
watch and a picker on the client. No trace exporter is set up. tonic's side is its own server or channel with its
defaults. The other end of each run is always tonic's. The forwarder stands between tonic's channel and tonic's server:
the gateway's step in the whole stack of both sides, beside tonic's server and channel back to back. Anybody may make the
call, and no quota is set: a token that is known costs a look-up more, one that is new a signature (53 to 67 µs) once.

## Instructions

User-space instructions per call, by callgrind: the difference of a run of 2,500 calls and one of 500, so start-up
cancels out. Median (least to most) of rounds in which the stacks take turns: how many requests arrive together, and how
often background tasks run meanwhile, differs from round to round.

";

/// Instructions from which on a room of the platform has a line of its own, and another library.
const ROOM_LEAST: f64 = 50.0;
const LIBRARY_LEAST: f64 = 400.0;

const ROOMS: &str = "
### By code

The same, of the last round, by the module whose code it is: what each layer costs itself. What was inlined counts where
that happened, and what a layer has libraries do counts there: a header more, for example, under http and h2.
";

const TIMES: &str = "
## CPU time

Microseconds of CPU time (user and system) per call, server and client pinned to a core each, 32 callers on one
connection, the two stacks in turn: median (least to most). The machine is shared; trust the ratio, not the figure.

| side | pairs | bare tonic | gantry | ratio |
| --- | --: | --: | --: | --: |
";

const THROUGHPUT: &str = "
## Throughput

Unary calls a second of 32 callers on one connection, both ends of one stack, server and client pinned to a core each, the
two stacks in turn: median (least to most). The busier end decides.

| stack | pairs | bare tonic | gantry | ratio |
| --- | --: | --: | --: | --: |
";

const GATEWAY: &str = "
## Through the gateway

A call that the gateway hands on, beside one to the server itself, both ends tonic's. CPU time as above, both ends
together; latency of one caller, all processes on the same two cores: median (least to most) of as many pairs.

| | direct | through the gateway | ratio |
| --- | --: | --: | --: |
";

/// Measured once, elsewhere.
const PEERS: &str = "
## Peers

CPU time of other servers per unary call, all called by one and the same client: 32 callers on four connections, an empty
message, on another shared machine with two cores. Not to be compared with the figures above, only with each other.

| server | µs per call | beside tonic |
| --- | --: | --: |
| hyper alone | 16.1 | 0.86 |
| connectrpc | 17.6 | 0.94 |
| tonic | 18 to 19.5 | 1 |
| grpc-go | 25 to 28 | 1.4 |
| Kratos, with the middleware it recommends | 47 to 51 | 2.6 |
| go-zero, as it comes | 47 to 52 | 2.6 |

An idle connection takes 20.5 KiB of tonic, 16 of grpc-go, 17 of Kratos and 7.5 of go-zero.
";

const DISCOVERY: &str = "
## Discovery

One name with 1,000 endpoints in an etcd of its own, its endpoints servers in one process; a client follows it, on a core
of its own, connected to each and watching its health. Medians (least to most) of the rounds above.

A pick is one endpoint chosen; a place is that, a stream's place on its connection, and both given back with what was
measured. Of changes, CPU time of the client for each, beyond what it takes while nothing changes: reading etcd's
watch, a new list at most ten times a second, a new snapshot for picks, and for an endpoint that goes or comes its
connection and health watch. Memory is the difference of the client's with 1,000 and with 10 endpoints.

| what | cost | target |
| --- | --: | --: |
";

/// Median, least and most.
pub(crate) struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 if middle > 0 => f64::midpoint(values[middle - 1], values[middle]),
            0 => f64::NAN,
            _ => values[middle],
        };
        Self {
            least: values.first().copied().unwrap_or(f64::NAN),
            median,
            most: values.last().copied().unwrap_or(f64::NAN),
        }
    }

    pub(crate) fn show(&self, digits: usize) -> String {
        let Self {
            least,
            median,
            most,
        } = self;
        format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
    }
}

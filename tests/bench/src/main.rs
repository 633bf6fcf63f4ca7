//! Measures both stacks on both sides and between them, and writes docs/performance.md:
//! `bench [--only events] [--quick | --rounds N]`, in a quarter of an hour where nothing is said. Of
//! events alone it leaves the rest of the page as it is. `bench --only relay [--on rabbitmq+postgres]`
//! measures the relay alone, perhaps on one broker and database alone, and prints what it finds.
//!
//! Instructions come from callgrind, as the difference of two runs that differ only in their
//! number of calls, so start-up cancels out. CPU time comes from the kernel's account of the
//! process, server and client pinned to a core each, the two stacks in turn.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

mod delivery;
mod discovery;
mod measure;
mod profile;
mod report;

use delivery::Part;
use gantry_bench::Stack;
use measure::{Load, Side};

const USAGE: &str =
    "usage: bench [--only events | --only relay [--on BROKER+DATABASE]] [--quick | --rounds N]";

/// Rounds where nothing is said, of calls and of events.
const ROUNDS: usize = 7;
const ROUNDS_OF_EVENTS: usize = 3;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (part, arguments) = part(&arguments)?;
    let (quick, rounds) = match arguments {
        [] => (false, None),
        ["--quick"] => (true, Some(1)),
        ["--rounds", count] => (false, Some(count.parse().map_err(|_| USAGE)?)),
        _ => return Err(USAGE.to_owned()),
    };
    let load = if quick {
        delivery::Load::quick()
    } else {
        delivery::Load::of(rounds.unwrap_or(ROUNDS_OF_EVENTS))
    };
    if let Some(part) = part {
        let figures = delivery::measure(part, load)?;
        if quick || part != Part::Events {
            print(&delivery::section(&figures));
            return Ok(());
        }
        let page = fs::read_to_string(path()).map_err(|error| error.to_string())?;
        return write(&report::with_events(&page, &figures));
    }
    let mut results = calls(quick, rounds.unwrap_or(ROUNDS))?;
    results.events = delivery::measure(Part::Events, load)?;
    let page = report::page(&results);
    if quick {
        print(&page);
        return Ok(());
    }
    write(&page)
}

/// What of events is to be measured alone, where that is said, and what else is.
fn part<'a>(arguments: &'a [&'a str]) -> Result<(Option<Part>, &'a [&'a str]), String> {
    match arguments {
        ["--only", "events", rest @ ..] => Ok((Some(Part::Events), rest)),
        ["--only", "relay", "--on", pair, rest @ ..] => Ok((
            Some(Part::Relay(Some(pair.parse().map_err(|()| USAGE)?))),
            rest,
        )),
        ["--only", "relay", rest @ ..] => Ok((Some(Part::Relay(None)), rest)),
        rest => Ok((None, rest)),
    }
}

/// What a call costs, and a name.
fn calls(quick: bool, rounds: usize) -> Result<report::Results, String> {
    let (pairs, calls, changing) = if quick {
        (2, 5_000, 2)
    } else {
        (rounds + 3, 60_000, 5)
    };
    let mut results = report::Results::default();
    for side in [Side::Server, Side::Client, Side::Forward] {
        let (mut counts, mut last) = (Vec::new(), None);
        for round in 1..=rounds {
            eprintln!("instructions of the {side}, round {round} of {rounds}");
            let tonic = measure::instructions(side, Stack::Tonic)?;
            let gantry = measure::instructions(side, Stack::Gantry)?;
            counts.push((tonic.values().sum(), gantry.values().sum()));
            last = Some((tonic, gantry));
        }
        results.instructions.push((side, counts));
        results.rooms.extend(last.map(|rooms| (side, rooms)));
    }
    for side in [Side::Server, Side::Client, Side::Forward] {
        let mut times = Vec::new();
        for pair in 1..=pairs {
            eprintln!("CPU time of the {side}, pair {pair} of {pairs}");
            let load = Load::pinned(calls);
            let tonic = measure::cpu_micros_per_call(side, Stack::Tonic, load)?;
            let gantry = measure::cpu_micros_per_call(side, Stack::Gantry, load)?;
            times.push((tonic, gantry));
        }
        results.times.push((side, times));
    }
    for pair in 1..=pairs {
        eprintln!("throughput, pair {pair} of {pairs}");
        let tonic = measure::calls_per_second(Stack::Tonic, calls)?;
        let gantry = measure::calls_per_second(Stack::Gantry, calls)?;
        results.throughput.push((tonic, gantry));
    }
    for pair in 1..=pairs {
        eprintln!("latency of the forwarder, pair {pair} of {pairs}");
        results.medians.push(measure::medians(calls / 6)?);
    }
    results.discovery = discovery::measure(rounds, changing)?;
    Ok(results)
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/performance.md")
}

fn write(page: &str) -> Result<(), String> {
    fs::write(path(), page).map_err(|error| error.to_string())
}

fn print(page: &str) {
    use std::io::Write as _;
    // A closed pipe is the reader's choice.
    drop(std::io::stdout().write_all(page.as_bytes()));
}

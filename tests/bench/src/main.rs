//! Measures both stacks on both sides and between them, and writes docs/performance.md:
//! `bench [--quick | --rounds N]`, in ten minutes where nothing is said.
//!
//! Instructions come from callgrind, as the difference of two runs that differ only in their
//! number of calls, so start-up cancels out. CPU time comes from the kernel's account of the
//! process, server and client pinned to a core each, the two stacks in turn.

use std::{fs, path::Path, process::ExitCode};

mod discovery;
mod measure;
mod profile;
mod report;

use gantry_bench::Stack;
use measure::{Load, Side};

const USAGE: &str = "usage: bench [--quick | --rounds N]";

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
    let (quick, rounds) = match arguments.as_slice() {
        [] => (false, 7),
        ["--quick"] => (true, 1),
        ["--rounds", count] => (false, count.parse().map_err(|_| USAGE)?),
        _ => return Err(USAGE.to_owned()),
    };
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
    let page = report::page(&results);
    if quick {
        print(&page);
        return Ok(());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/performance.md");
    fs::create_dir_all(path.parent().expect("a file has a folder"))
        .map_err(|error| error.to_string())?;
    fs::write(&path, page).map_err(|error| error.to_string())
}

fn print(page: &str) {
    use std::io::Write as _;
    // A closed pipe is the reader's choice.
    drop(std::io::stdout().write_all(page.as_bytes()));
}

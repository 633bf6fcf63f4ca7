//! Measures what a name with many endpoints costs whoever follows it.

use std::{
    fs,
    io::{BufReader, Write as _},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use gantry_bench::RATE;

use crate::measure::{beside, line, precise};

/// Few endpoints and many.
pub(crate) const COUNTS: [usize; 2] = [10, 1_000];

/// Picks, or places, in one measurement.
const PICKS: usize = 100_000;

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Nanoseconds per pick among few endpoints and many, in turn.
    pub(crate) picks: Vec<(f64, f64)>,
    /// The same of a place for a call, taken and given back.
    pub(crate) places: Vec<(f64, f64)>,
    /// Resident bytes per endpoint, connected and its health watched.
    pub(crate) bytes_per_endpoint: f64,
    /// CPU microseconds per change of an entry's attributes.
    pub(crate) changes: Vec<f64>,
    /// CPU microseconds per entry that goes or comes, with its connection.
    pub(crate) replacements: Vec<f64>,
}

/// Measures `rounds` times, each over `seconds` of changes.
pub(crate) fn measure(rounds: usize, seconds: usize) -> Result<Figures, String> {
    let [few, many] = COUNTS;
    let (mut few, mut many) = (Name::follow(few)?, Name::follow(many)?);
    let mut figures = Figures::default();
    let endpoints = precise((COUNTS[1] - COUNTS[0]) as u64);
    figures.bytes_per_endpoint = (many.resident_bytes()? - few.resident_bytes()?) / endpoints;
    for round in 1..=rounds {
        eprintln!("discovery, round {round} of {rounds}");
        for (what, costs) in [("pick", &mut figures.picks), ("place", &mut figures.places)] {
            let question = format!("{what} {PICKS}");
            let nanos = |name: &mut Name| number(&name.follower.ask(&question)?);
            costs.push((nanos(&mut few)?, nanos(&mut many)?));
        }
        // What goes on anyway: pings, health watches.
        let before = many.cpu_micros()?;
        pause(seconds as u64);
        let idle = many.cpu_micros()? - before;
        for (what, costs) in [
            ("change", &mut figures.changes),
            ("replace", &mut figures.replacements),
        ] {
            let before = many.cpu_micros()?;
            many.registry.ask(&format!("{what} {seconds}"))?;
            // The last changes are taken in together, a little later.
            pause(1);
            let busy = many.cpu_micros()? - before;
            costs.push((busy - idle).max(0.0) / precise((RATE * seconds) as u64));
        }
    }
    Ok(figures)
}

/// A name in a registry of its own, and who follows it.
struct Name {
    registry: Process,
    follower: Process,
}

impl Name {
    fn follow(count: usize) -> Result<Self, String> {
        let (registry, address) = Process::start("bench-registry", "0", &[&count.to_string()])?;
        let arguments = [address.as_str(), &count.to_string()];
        let (follower, _) = Process::start("bench-follower", "1", &arguments)?;
        Ok(Self { registry, follower })
    }

    fn cpu_micros(&self) -> Result<f64, String> {
        let told = self.follower.told_by_kernel("schedstat")?;
        let nanos = told.split_ascii_whitespace().next();
        Ok(number(nanos.unwrap_or_default())? / 1_000.0)
    }

    fn resident_bytes(&self) -> Result<f64, String> {
        let told = self.follower.told_by_kernel("status")?;
        let line = told.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_ascii_whitespace().next());
        Ok(number(kib.unwrap_or_default())? * 1_024.0)
    }
}

/// A program of ours on a core of its own, which is asked things; killed when dropped.
struct Process {
    child: Child,
    told: BufReader<ChildStdout>,
}

impl Process {
    /// Starts it; returns the first thing it says, too.
    fn start(binary: &str, core: &str, arguments: &[&str]) -> Result<(Self, String), String> {
        let mut child = Command::new("taskset")
            .args(["-c", core])
            .arg(beside(binary))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("start {binary}: {error}"))?;
        let output = child.stdout.take().expect("standard output is piped");
        let mut process = Self {
            child,
            told: BufReader::new(output),
        };
        let first = process.answer()?;
        Ok((process, first))
    }

    fn ask(&mut self, question: &str) -> Result<String, String> {
        let input = self.child.stdin.as_mut();
        let input = input.expect("standard input is piped");
        writeln!(input, "{question}").map_err(|error| format!("ask {question}: {error}"))?;
        self.answer()
    }

    fn answer(&mut self) -> Result<String, String> {
        let answer = line(&mut self.told)?;
        if answer.is_empty() {
            return Err("a process ended early".to_owned());
        }
        Ok(answer)
    }

    fn told_by_kernel(&self, file: &str) -> Result<String, String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[expect(clippy::disallowed_methods, reason = "there is no executor to block")]
fn pause(seconds: u64) {
    thread::sleep(Duration::from_secs(seconds));
}

fn number(text: &str) -> Result<f64, String> {
    text.parse()
        .map_err(|_| format!("expected a number, got {text:?}"))
}

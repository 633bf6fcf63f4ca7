//! What the chassis costs per call, beside bare tonic.
//!
//! `bench-server` and `bench-client` each play either side with either stack; `bench` runs them
//! against each other and writes docs/performance.md.

use std::{fmt, str::FromStr};

mod contracts {
    gantry::include_contracts!();
}

pub use contracts::bench::v1 as proto;

/// Which stack plays a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stack {
    /// tonic's own server or channel, with its defaults.
    Tonic,
    /// Gantry's whole stack: metrics, deadlines, limits and all; no trace exporter.
    Gantry,
}

impl FromStr for Stack {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tonic" => Ok(Self::Tonic),
            "gantry" => Ok(Self::Gantry),
            other => Err(format!("{other} is neither tonic nor gantry")),
        }
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tonic => "tonic",
            Self::Gantry => "gantry",
        })
    }
}

/// CPU time of this process's one thread so far, user and system, in microseconds.
///
/// As the kernel tells it in a file: the clock's fast path reads memory that valgrind does not
/// show, and a program that is being counted would crash on it.
#[must_use]
pub fn cpu_micros() -> u64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanos = text
        .split_ascii_whitespace()
        .next()
        .and_then(|nanos| nanos.parse().ok());
    nanos.map_or(0, |nanos: u64| nanos / 1_000)
}

/// Tells the runner something, on a line of its own.
pub fn print(said: impl fmt::Display) {
    use std::io::Write as _;
    let mut output = std::io::stdout().lock();
    // A runner that has gone ends this process by closing its input.
    drop(writeln!(output, "{said}").and_then(|()| output.flush()));
}

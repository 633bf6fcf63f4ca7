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

/// CPU time of this process so far, user and system, in microseconds.
#[must_use]
pub fn cpu_micros() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec * 1_000_000 + time.tv_nsec / 1_000
}

/// Tells the runner something, on a line of its own.
pub fn print(said: impl fmt::Display) {
    use std::io::Write as _;
    let mut output = std::io::stdout().lock();
    // A runner that has gone ends this process by closing its input.
    drop(writeln!(output, "{said}").and_then(|()| output.flush()));
}

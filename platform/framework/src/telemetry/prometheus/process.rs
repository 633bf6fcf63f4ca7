//! What Linux tells of the process, under the names every Prometheus client library uses.

use std::fs;

use super::write_value;
use crate::names::metric;

/// Writes what can be read; elsewhere than on Linux that is nothing.
pub(super) fn write(text: &mut String) {
    if let Some(stat) = fs::read_to_string("/proc/self/stat")
        .ok()
        .and_then(|text| Stat::parse(&text))
    {
        write_value(text, &metric::PROCESS_CPU, stat.cpu_seconds);
        write_value(text, &metric::PROCESS_RESIDENT, stat.resident_bytes);
        write_value(text, &metric::PROCESS_VIRTUAL, stat.virtual_bytes);
        write_value(text, &metric::PROCESS_THREADS, stat.threads);
        if let Some(boot) = boot_time() {
            write_value(text, &metric::PROCESS_START, boot + stat.start_seconds);
        }
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // The directory being read is one of them.
        let open = entries.count().saturating_sub(1);
        write_value(text, &metric::PROCESS_OPEN_FDS, number(open));
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if let Some(max) = limit.current {
        write_value(text, &metric::PROCESS_MAX_FDS, number(max));
    }
}

/// The CPU time in the text of `/proc/self/stat`, in seconds.
pub(crate) fn cpu_seconds(stat: &str) -> Option<f64> {
    Stat::parse(stat).map(|stat| stat.cpu_seconds)
}

/// Fields of `/proc/self/stat` (proc(5)).
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: f64,
    start_seconds: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses and may hold anything, so the
        // others are counted from its end.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| {
            fields
                .get(number - 3)?
                .parse::<u64>()
                .ok()
                .map(self::number)
        };
        let ticks = number(rustix::param::clock_ticks_per_second());
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / ticks,
            threads: field(20)?,
            start_seconds: field(22)? / ticks,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * number(rustix::param::page_size()),
        })
    }
}

/// When the system started, in seconds since the epoch.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

/// A count as Prometheus holds it; above 2^53 the last digits are lost.
#[allow(clippy::cast_precision_loss)]
fn number(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a program's name cannot shift the fields.
    /// Method: a line whose name holds spaces, a parenthesis and numbers.
    #[test]
    fn a_strange_program_name_shifts_nothing() {
        let line = "1 (a) b 9 9) S 1 1 1 0 -1 4194560 1 0 0 0 300 100 0 0 20 0 7 0 500 8192 2 0";
        let ticks = number(rustix::param::clock_ticks_per_second());
        let expected = Stat {
            cpu_seconds: 400.0 / ticks,
            threads: 7.0,
            start_seconds: 500.0 / ticks,
            virtual_bytes: 8_192.0,
            resident_bytes: 2.0 * number(rustix::param::page_size()),
        };
        assert_eq!(Some(expected), Stat::parse(line));
        assert_eq!(None, Stat::parse("garbage"));
    }
}

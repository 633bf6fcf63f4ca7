//! What the machine tells of the process: its processors and its memory, as Linux has them.
//!
//! Where a control group bounds them (version 2, or 1), its numbers count, those of the nearest group
//! that has a bound. Else processor time is that of the process, of all processors it may use, and
//! memory is no sign: whoever has all of a machine's is told by nobody how much that is.

use std::{fs, thread, time::Duration};

use crate::telemetry::prometheus;

/// Where control groups are.
const GROUPS: &str = "/sys/fs/cgroup";
/// Which one the process is in.
const OWN_GROUP: &str = "/proc/self/cgroup";
/// What the process itself has used.
const OWN_TIME: &str = "/proc/self/stat";
/// From here on a bound of version 1 is none.
const UNBOUNDED: f64 = 1e18;

/// Tells how much of a machine is used.
pub trait Machine: Send + 'static {
    /// Processor time used since last asked, `passed` ago, from 0 to 1 of what may be used.
    fn cpu(&mut self, passed: Duration) -> Option<f64>;

    /// Memory used, from 0 to 1 of what may be used.
    fn memory(&mut self) -> Option<f64>;
}

/// Reads small files.
trait Files: Send + 'static {
    fn read(&self, path: &str) -> Option<String>;
}

#[derive(Debug)]
struct Disk;

impl Files for Disk {
    fn read(&self, path: &str) -> Option<String> {
        // Made by the kernel as they are read: nobody waits for a disk.
        fs::read_to_string(path).ok()
    }
}

/// Linux, by its files. Elsewhere it knows nothing.
#[derive(Debug)]
pub struct Linux {
    from: From<Disk>,
}

impl Default for Linux {
    fn default() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self {
            from: From::new(Disk, processors),
        }
    }
}

impl Machine for Linux {
    fn cpu(&mut self, passed: Duration) -> Option<f64> {
        self.from.cpu(passed)
    }

    fn memory(&mut self) -> Option<f64> {
        self.from.memory()
    }
}

/// Which version of control groups a folder is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The folder of a control group.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    version: Version,
    folder: String,
}

#[derive(Debug)]
struct From<F> {
    files: F,
    processors: f64,
    /// The nearest group that bounds processors, if one does.
    cpu: Option<Group>,
    /// The same of memory.
    memory: Option<Group>,
    /// Seconds of processor time when last asked.
    used: Option<f64>,
}

impl<F: Files> From<F> {
    fn new(files: F, processors: usize) -> Self {
        let own = files.read(OWN_GROUP).unwrap_or_default();
        let nearest = |controller, bounded: fn(&Group, &F) -> bool| {
            let groups = groups(&own, controller);
            groups.into_iter().find(|group| bounded(group, &files))
        };
        Self {
            cpu: nearest("cpu", |group, files| group.processors(files).is_some()),
            memory: nearest("memory", |group, files| group.memory_max(files).is_some()),
            #[allow(clippy::cast_precision_loss)]
            processors: processors as f64,
            files,
            used: None,
        }
    }

    fn cpu(&mut self, passed: Duration) -> Option<f64> {
        let (files, group) = (&self.files, self.cpu.as_ref());
        let bound = group.and_then(|group| group.processors(files));
        let processors = bound.map_or(self.processors, |it| it.min(self.processors));
        // In version 1 the time may be counted elsewhere; that of the process is part of it.
        let now = group.and_then(|group| group.processor_time(files));
        let own = || prometheus::cpu_seconds(&files.read(OWN_TIME)?);
        let now = now.or_else(own)?;
        let before = self.used.replace(now)?;
        let possible = passed.as_secs_f64() * processors;
        (possible > 0.0).then(|| ((now - before) / possible).clamp(0.0, 1.0))
    }

    fn memory(&mut self) -> Option<f64> {
        let group = self.memory.as_ref()?;
        let (used, max) = (group.memory(&self.files)?, group.memory_max(&self.files)?);
        Some((used / max).clamp(0.0, 1.0))
    }
}

impl Group {
    fn read(&self, files: &impl Files, file: &str) -> Option<String> {
        files.read(&format!("{}/{file}", self.folder))
    }

    fn number(&self, files: &impl Files, file: &str) -> Option<f64> {
        self.read(files, file)?.trim().parse().ok()
    }

    /// The value of `key` in a file of lines of keys and values.
    fn value(&self, files: &impl Files, file: &str, key: &str) -> Option<f64> {
        let text = self.read(files, file)?;
        let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
        let (_, value) = pairs.find(|(it, _)| *it == key)?;
        value.trim().parse().ok()
    }

    /// How many processors it may use, if that is bounded.
    fn processors(&self, files: &impl Files) -> Option<f64> {
        let (quota, period) = match self.version {
            Version::Two => {
                let text = self.read(files, "cpu.max")?;
                let (quota, period) = text.trim().split_once(' ')?;
                // "max" is no number, and no bound.
                (quota.parse::<f64>().ok()?, period.parse().ok()?)
            }
            Version::One => (
                self.number(files, "cpu.cfs_quota_us")?,
                self.number(files, "cpu.cfs_period_us")?,
            ),
        };
        (quota > 0.0 && period > 0.0).then(|| quota / period)
    }

    /// Processor time used, in seconds.
    fn processor_time(&self, files: &impl Files) -> Option<f64> {
        Some(match self.version {
            Version::Two => self.value(files, "cpu.stat", "usage_usec")? / 1e6,
            Version::One => self.number(files, "cpuacct.usage")? / 1e9,
        })
    }

    /// Bytes it may use, if that is bounded.
    fn memory_max(&self, files: &impl Files) -> Option<f64> {
        let max = match self.version {
            Version::Two => self.number(files, "memory.max")?,
            Version::One => self.number(files, "memory.limit_in_bytes")?,
        };
        (max > 0.0 && max < UNBOUNDED).then_some(max)
    }

    /// Bytes used, without those of files that are given up as soon as they are wanted.
    fn memory(&self, files: &impl Files) -> Option<f64> {
        let (file, key) = match self.version {
            Version::Two => ("memory.current", "inactive_file"),
            Version::One => ("memory.usage_in_bytes", "total_inactive_file"),
        };
        let files_bytes = self.value(files, "memory.stat", key).unwrap_or(0.0);
        Some((self.number(files, file)? - files_bytes).max(0.0))
    }
}

/// The groups that may bound what `controller` does, by `own`, which says where the process is: its
/// own first, then those around it. In a container they may be seen as if the outermost were the root.
fn groups(own: &str, controller: &str) -> Vec<Group> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (version, root) = if controllers.is_empty() {
            (Version::Two, GROUPS.to_owned())
        } else if controllers.split(',').any(|it| it == controller) {
            (Version::One, format!("{GROUPS}/{controllers}"))
        } else {
            continue;
        };
        let mut path = path.trim_end_matches('/');
        loop {
            let folder = format!("{root}{path}");
            found.push(Group { version, folder });
            match path.rsplit_once('/') {
                Some((around, _)) => path = around,
                None => break,
            }
        }
    }
    // Version 1 decides where both are mounted: a controller is of one of them alone.
    found.sort_by_key(|group| group.version == Version::Two);
    found
}

#[cfg(test)]
mod tests;

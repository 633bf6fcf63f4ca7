use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use super::*;

/// Files that the test writes.
#[derive(Debug, Clone, Default)]
struct Written(Arc<Mutex<BTreeMap<String, String>>>);

impl Files for Written {
    fn read(&self, path: &str) -> Option<String> {
        self.0.lock().unwrap().get(path).cloned()
    }
}

impl Written {
    fn new(files: &[(&str, &str)]) -> Self {
        let written = Self::default();
        for (path, text) in files {
            written.write(path, text);
        }
        written
    }

    fn write(&self, path: &str, text: &str) {
        let mut files = self.0.lock().unwrap();
        files.insert(path.to_owned(), text.to_owned());
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[track_caller]
fn assert_near(expected: f64, found: Option<f64>) {
    let found = found.unwrap_or(-1.0);
    assert!((expected - found).abs() < 1e-9, "{expected} is not {found}");
}

/// What is found a second after `file` held `before`, once it holds `after`.
fn cpu(files: &Written, file: &str, before: &str, after: &str) -> Option<f64> {
    let mut machine = From::new(files.clone(), 4);
    files.write(file, before);
    assert_eq!(None, machine.cpu(SECOND), "nothing to compare with");
    files.write(file, after);
    machine.cpu(SECOND)
}

/// Goal: a group of version 2 says how much of its processors and its memory is used, files that are cached
/// apart.
/// Method: a group with bounds of its own.
#[test]
fn a_group_of_version_two_is_read() {
    let files = Written::new(&[
        ("/proc/self/cgroup", "0::/app\n"),
        ("/sys/fs/cgroup/app/cpu.max", "150000 100000\n"),
        ("/sys/fs/cgroup/app/memory.max", "1000\n"),
        ("/sys/fs/cgroup/app/memory.current", "1000\n"),
        (
            "/sys/fs/cgroup/app/memory.stat",
            "anon 1\ninactive_file 80\nactive_file 7\n",
        ),
    ]);
    let stat = "/sys/fs/cgroup/app/cpu.stat";
    let (before, after) = ("usage_usec 1000000\nuser_usec 1\n", "usage_usec 1750000\n");
    assert_near(0.5, cpu(&files, stat, before, after));
    assert_near(0.92, From::new(files.clone(), 4).memory());
    // A bound that is changed counts from then on.
    let mut machine = From::new(files.clone(), 4);
    files.write("/sys/fs/cgroup/app/memory.max", "1840\n");
    assert_near(0.5, machine.memory());
}

/// Goal: a bound around the process's own group counts, and one that has the process seen as root.
/// Method: the group above has bounds; a path that is not there.
#[test]
fn the_nearest_group_with_a_bound_counts() {
    let files = Written::new(&[
        ("/proc/self/cgroup", "0::/pod/app\n"),
        ("/sys/fs/cgroup/pod/app/cpu.max", "max 100000\n"),
        ("/sys/fs/cgroup/pod/app/memory.max", "max\n"),
        ("/sys/fs/cgroup/pod/cpu.max", "100000 100000\n"),
        ("/sys/fs/cgroup/memory.max", "100\n"),
        ("/sys/fs/cgroup/memory.current", "95\n"),
    ]);
    let stat = "/sys/fs/cgroup/pod/cpu.stat";
    assert_near(
        0.25,
        cpu(&files, stat, "usage_usec 0\n", "usage_usec 250000\n"),
    );
    assert_near(0.95, From::new(files, 4).memory());
}

/// Goal: groups of version 1 are read as well.
/// Method: their files; a bound that is none.
#[test]
fn a_group_of_version_one_is_read() {
    let files = Written::new(&[
        (
            "/proc/self/cgroup",
            "5:memory:/a\n4:cpu,cpuacct:/a\n0::/x\n",
        ),
        ("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "200000\n"),
        ("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n"),
        (
            "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
            "9223372036854771712\n",
        ),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "400\n"),
        ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "300\n"),
        (
            "/sys/fs/cgroup/memory/memory.stat",
            "cache 9\ntotal_inactive_file 100\n",
        ),
    ]);
    let usage = "/sys/fs/cgroup/cpu,cpuacct/a/cpuacct.usage";
    assert_near(0.75, cpu(&files, usage, "0\n", "1500000000\n"));
    assert_near(0.5, From::new(files, 4).memory());
}

/// Goal: where version 1 counts time apart from its bound, the time of the process counts, of what the
/// group may use.
/// Method: a group that has a bound and no count.
#[test]
fn a_group_without_a_count_bounds_the_process() {
    let files = Written::new(&[
        ("/proc/self/cgroup", "2:cpuacct:/\n1:cpu:/a\n"),
        ("/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "200000\n"),
        ("/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n"),
    ]);
    let ticks = rustix::param::clock_ticks_per_second();
    let used = cpu(&files, OWN_TIME, &line(ticks), &line(ticks * 2));
    assert_near(0.5, used);
}

/// What Linux says of a process that has used so much.
fn line(ticks: u64) -> String {
    format!("7 (a b) R 1 1 1 0 -1 4194560 1 0 0 0 {ticks} 0 0 0 20 0 7 0 500 8192 2 0")
}

/// Goal: without a bound, the time of the process counts, of all processors; without anything, nothing.
/// Method: its line before and after; no file at all.
#[test]
fn without_a_group_the_process_counts() {
    let ticks = rustix::param::clock_ticks_per_second();
    let files = Written::new(&[("/proc/self/cgroup", "0::/\n")]);
    let used = cpu(&files, OWN_TIME, &line(ticks), &line(ticks * 3));
    assert_near(0.5, used);
    assert_eq!(None, From::new(files, 4).memory());

    let mut nowhere = From::new(Written::default(), 4);
    assert_eq!((None, None), (nowhere.cpu(SECOND), nowhere.cpu(SECOND)));
    assert_eq!(None, nowhere.memory());
}

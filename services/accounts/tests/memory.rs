//! What logins leave behind in memory, in a process of their own.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

use std::fs;

use accounts::password::Passwords;
use tokio::runtime::{Builder, Runtime};
use zeroize::Zeroizing;

const MIB: usize = 1 << 20;
/// What one hash takes.
const HASH: usize = 19 * MIB;
/// What else a few threads may take.
const SLACK: usize = 12 * MIB;

/// Memory of this process that is in RAM.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib: usize = line
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap()
        .parse()
        .unwrap();
    kib * 1_024
}

/// Goal: logins one after another cost the memory of one, whichever threads they run on.
/// Method: hash on eight runtimes in turn, each with a thread for it that lives on, three times
/// over; look at the memory before and after.
#[test]
fn memory_is_bounded_by_hashes_at_once() {
    let passwords = Passwords::new(1, 8).unwrap();
    let runtime = |_| Builder::new_current_thread().build().unwrap();
    let runtimes: Vec<Runtime> = (0..8).map(runtime).collect();
    let before = resident();
    for _ in 0..3 {
        for runtime in &runtimes {
            let password = Zeroizing::new("correct horse".to_owned());
            runtime.block_on(passwords.hash(password)).unwrap();
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown <= HASH + SLACK, "{} MiB more", grown / MIB);
}

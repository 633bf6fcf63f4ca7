//! Finds out who holds a port, as far as this process may know.

use std::{fs, net::SocketAddr, path::Path};

/// State of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// Name and id of the process that listens on the port of `address`, where the system says so.
#[must_use]
pub fn of(address: SocketAddr) -> Option<String> {
    let inodes: Vec<_> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening(&table, address.port()))
        .collect();
    let processes = fs::read_dir("/proc").ok()?;
    processes
        .filter_map(Result::ok)
        .filter(|process| process.file_name().as_encoded_bytes()[0].is_ascii_digit())
        .find(|process| holds(&process.path(), &inodes))
        .map(|process| {
            let id = process.file_name();
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            format!("{} (process {})", name.trim(), id.display())
        })
}

/// Inodes of the sockets of a `/proc/net/tcp` table that listen on `port`.
fn listening(table: &str, port: u16) -> Vec<String> {
    let port = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(str::split_ascii_whitespace);
    rows.filter_map(|mut columns| {
        let local = columns.nth(1)?;
        let state = columns.nth(1)?;
        let inode = columns.nth(5)?;
        (local.ends_with(&port) && state == LISTENING).then(|| format!("socket:[{inode}]"))
    })
    .collect()
}

fn holds(process: &Path, inodes: &[String]) -> bool {
    // Another user's process cannot be looked into; it is then not named.
    let Ok(files) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    files
        .filter_map(Result::ok)
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|target| {
            inodes
                .iter()
                .any(|inode| target.as_os_str() == inode.as_str())
        })
}

//! A service as a process: signals, exit codes, configuration files.
//!
//! Runs `examples/bare.rs`, which `cargo test` builds beside this test.

// A test all the same; clippy knows tests by their attribute.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

fn program() -> PathBuf {
    // target/debug/deps/process-…, and examples beside deps.
    let test = std::env::current_exe().unwrap();
    let built = test.parent().unwrap().parent().unwrap();
    let program = built.join("examples").join("bare");
    assert!(
        program.is_file(),
        "{} is missing; `cargo test` builds it",
        program.display()
    );
    program
}

/// Runs to the end.
fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program());
    command
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A process that serves.
struct Bare {
    child: Child,
    lines: BufReader<ChildStdout>,
    /// What was read of them.
    log: String,
    address: SocketAddr,
    side_address: SocketAddr,
    /// Dropped when the test is done with the process.
    _watch: mpsc::Sender<()>,
}

/// Longest that a test waits for its process.
const PATIENCE: Duration = Duration::from_secs(30);

impl Bare {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::start_with("true", folder, arguments)
    }

    /// Starts it from a shell, after a command that narrows what it gets.
    fn start_with(before: &str, folder: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", &format!("{before} && exec \"$0\" \"$@\"")])
            .arg(program())
            .current_dir(folder)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (watch, ended) = mpsc::channel();
        let id = Pid::from_child(&child);
        // So that a test that waits in vain fails instead of hanging.
        thread::spawn(move || {
            if ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = kill_process(id, Signal::KILL);
            }
        });
        let mut bare = Self {
            _watch: watch,
            lines: BufReader::new(child.stdout.take().unwrap()),
            child,
            log: String::new(),
            address: SocketAddr::from(([0; 4], 0)),
            side_address: SocketAddr::from(([0; 4], 0)),
        };
        let line = bare.line("\"message\":\"serving\"");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        bare.address = line["address"].as_str().unwrap().parse().unwrap();
        bare.side_address = line["side_address"].as_str().unwrap().parse().unwrap();
        bare
    }

    /// The next log line that holds `part`.
    fn line(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(
                self.lines.read_line(&mut line).unwrap() > 0,
                "no line held {part}"
            );
            self.log.push_str(&line);
            if line.contains(part) {
                return line;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The exit code, and the log lines that were left.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.side_address).unwrap();
        let host = self.side_address;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

/// Nothing is left behind where a test fails.
impl Drop for Bare {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Goal: a signal drains the process, which exits with 0 and has said so.
/// Method: either signal, with a short delay.
#[test]
fn a_signal_drains_the_process() {
    let folder = tempfile::tempdir().unwrap();
    for signal in [Signal::TERM, Signal::INT] {
        let bare = Bare::start(folder.path(), &["--set", "shutdown.delay=50ms"]);
        assert!(bare.get("/readyz").starts_with("HTTP/1.1 200 "));
        bare.signal(signal);
        let (code, log) = bare.end();
        assert_eq!(Some(0), code, "{log}");
        assert!(log.contains("\"message\":\"drained\""), "{log}");
    }
}

/// Goal: connections that do nothing leave descriptors for those who ask whether it is alive.
/// Method: a system that gives 64 descriptors, and twice as many connections.
#[test]
fn connections_leave_descriptors_for_probes() {
    let folder = tempfile::tempdir().unwrap();
    let bare = Bare::start_with("ulimit -n 64", folder.path(), &[]);
    let silent: Vec<_> = (0..120)
        .map(|_| TcpStream::connect(bare.address).unwrap())
        .collect();
    for page in ["/livez", "/readyz", "/metrics"] {
        let answer = bare.get(page);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{page}: {answer}");
    }
    drop(silent);
    let warned = bare.log.matches("too few file descriptors").count();
    assert_eq!(1, warned, "{}", bare.log);
}

/// Goal: what the system would give for the asking is asked for.
/// Method: a soft limit below the hard one; what the kernel says once it serves.
#[test]
fn the_soft_limit_of_descriptors_is_raised() {
    let folder = tempfile::tempdir().unwrap();
    let before = "ulimit -S -n 64 && ulimit -H -n 8192";
    let bare = Bare::start_with(before, folder.path(), &[]);
    let limits = fs::read_to_string(format!("/proc/{}/limits", bare.child.id())).unwrap();
    let open = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let words: Vec<_> = open.unwrap().split_whitespace().skip(3).take(2).collect();
    assert_eq!(["8192", "8192"], words[..]);
    assert!(!bare.log.contains("too few"), "{}", bare.log);
}

/// Goal: a second signal ends the process at once with 130, whatever the drain waits for.
/// Method: a drain that would take an hour.
#[test]
fn a_second_signal_exits_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut bare = Bare::start(folder.path(), &["--set", "shutdown.delay=1h"]);
    bare.signal(Signal::TERM);
    bare.line("\"message\":\"draining\"");
    let ready = bare.get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
    assert!(bare.get("/livez").starts_with("HTTP/1.1 200 "));

    let begun = Instant::now();
    bare.signal(Signal::INT);
    let (code, log) = bare.end();
    assert_eq!(Some(130), code, "{log}");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

/// Goal: what cannot run says why in one line and with the right code.
/// Method: bad command lines, configurations and start-ups.
#[test]
fn what_cannot_run_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("listen.address={}", taken.local_addr().unwrap());
    let cases = [
        (2, &["--nonsense"][..], "unexpected argument"),
        (2, &["--set", "shutdwon.delay=1s"], "shutdown"),
        (2, &["--set", "shutdown.delay=soon"], "shutdown.delay"),
        (2, &["--config", "nowhere.toml"], "nowhere.toml"),
        (1, &["--set", "bare.fail=no luck"], "start gantry: no luck"),
        (
            1,
            &[
                "--set",
                "listen.address=192.0.2.1:80",
                "--set",
                "listen.insecure=true",
            ],
            "listen.address 192.0.2.1:80",
        ),
        (1, &["--set", "listen.address=0.0.0.0:0"], "listen.insecure"),
        (1, &["--set", "admin.address=0.0.0.0:0"], "admin.insecure"),
        (0, &["--print-config"], ""),
    ];
    for (code, arguments, said) in cases {
        let output = run(folder.path(), arguments);
        let error = text(&output.stderr);
        assert_eq!(Some(code), output.status.code(), "{arguments:?}: {error}");
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = format!("listen.address={}", listener.local_addr().unwrap());
    let output = run(folder.path(), &["--set", &busy]);
    let error = text(&output.stderr);
    assert_eq!(Some(1), output.status.code(), "{error}");
    assert!(
        error.contains("taken") && error.lines().count() == 1,
        "{error}"
    );
    drop(taken);
}

/// Goal: a file's change of a live key is applied while the process runs, one that is wrong is
/// refused with its line, and SIGHUP reads at once.
/// Method: write the log level twice, then nonsense, and read the log and the metrics.
#[test]
fn files_are_followed_while_the_process_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bare.toml");
    fs::write(&file, "[telemetry]\nlog_level = 'info'\n").unwrap();
    let mut bare = Bare::start(folder.path(), &["--config", "bare.toml"]);

    fs::write(&file, "[telemetry]\nlog_level = 'debug'\n").unwrap();
    let line = bare.line("\"log level changed\"");
    assert!(line.contains("debug"), "{line}");

    fs::write(&file, "[telemetry]\nlog_level = 'loud'\n").unwrap();
    bare.signal(Signal::HUP);
    let line = bare.line("configuration refused");
    assert!(line.contains("bare.toml:2"), "{line}");
    let metrics = bare.get("/metrics");
    assert!(metrics.contains("gantry_config_version 2"), "{metrics}");
    assert!(
        metrics.contains("gantry_config_reloads_total{outcome=\"applied\"} 1"),
        "{metrics}"
    );

    bare.signal(Signal::TERM);
    bare.signal(Signal::TERM);
    drop(bare);
}

/// Goal: the panic of an essential task drains the process, which exits with 1.
/// Method: let it panic by a live key.
#[test]
fn an_essential_tasks_panic_exits_with_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bare.toml");
    fs::write(&file, "[shutdown]\ndelay = '0s'\n").unwrap();
    let bare = Bare::start(folder.path(), &["--config", "bare.toml"]);
    fs::write(&file, "[shutdown]\ndelay = '0s'\n[bare]\npanic = true\n").unwrap();
    let (code, log) = bare.end();
    assert_eq!(Some(1), code, "{log}");
    assert!(log.contains("task watcher panicked"), "{log}");
}

/// Goal: a store that never closes costs its bound, not the drain.
/// Method: one that hangs, with a short bound.
#[test]
fn what_never_closes_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "bare.hang=true",
        "shutdown.delay=0s",
        "shutdown.close=100ms",
    ];
    let arguments: Vec<_> = arguments.iter().flat_map(|set| ["--set", set]).collect();
    let bare = Bare::start(folder.path(), &arguments);
    bare.signal(Signal::TERM);
    let (code, log) = bare.end();
    assert_eq!(Some(0), code, "{log}");
    assert!(log.contains("did not close in time"), "{log}");
}

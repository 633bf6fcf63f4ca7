//! Runs a server and a client, one of them measured.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::BufReader,
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
};

use gantry_bench::Stack;

use crate::profile::{self, Rooms};

/// Which side is measured; the other is always the same stack, so that only one thing differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The server is measured, called by tonic's channel.
    Server,
    /// The client is measured, calling tonic's server.
    Client,
    /// Whoever hands calls on is measured, between tonic's channel and tonic's server.
    Forward,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Forward => "forwarder",
        })
    }
}

/// How much is called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    calls: usize,
    callers: usize,
}

impl Load {
    /// Enough callers to keep a server on its own core busy.
    pub(crate) fn pinned(calls: usize) -> Self {
        Self { calls, callers: 32 }
    }
}

/// Calls in the shorter of two counted runs, and how many more in the longer.
const COUNTED: usize = 500;
const MORE: usize = 2_000;

/// User-space instructions of one unary call on `side`, by the room of the code.
pub(crate) fn instructions(side: Side, stack: Stack) -> Result<Rooms, String> {
    let short = callgrind(side, stack, COUNTED)?;
    let long = callgrind(side, stack, COUNTED + MORE)?;
    let of_one = |(room, counted): (String, u64)| {
        let before = short.get(&room).copied().unwrap_or(0);
        (
            room,
            (precise(counted) - precise(before)) / precise(MORE as u64),
        )
    };
    Ok(long.into_iter().map(of_one).collect())
}

fn callgrind(side: Side, stack: Stack, calls: usize) -> Result<BTreeMap<String, u64>, String> {
    let folder = std::env::temp_dir().join(format!("gantry-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let output = folder.join("callgrind.out");
    let counted = |binary: &str| {
        let mut command = Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--quiet"])
            .arg("--zero-before=gantry_bench::counted_from_here")
            .arg(format!("--callgrind-out-file={}", output.display()))
            .arg(beside(binary));
        command
    };
    let load = Load { calls, callers: 8 };
    run(side, stack, load, counted, |binary| {
        Command::new(beside(binary))
    })?;
    let text =
        fs::read_to_string(&output).map_err(|error| format!("callgrind wrote nothing: {error}"))?;
    fs::remove_dir_all(&folder).map_err(|error| error.to_string())?;
    profile::by_room(&text)
}

/// CPU time of one unary call on `side`, in microseconds, both sides pinned to their own core.
pub(crate) fn cpu_micros_per_call(side: Side, stack: Stack, load: Load) -> Result<f64, String> {
    let pinned = |core: &'static str| {
        move |binary: &str| {
            let mut command = Command::new("taskset");
            command.args(["-c", core]).arg(beside(binary));
            command
        }
    };
    let report = match side {
        Side::Server | Side::Forward => run(side, stack, load, pinned("0"), pinned("1"))?,
        Side::Client => run(side, stack, load, pinned("1"), pinned("0"))?,
    };
    Ok(report / precise(load.calls as u64))
}

/// Microseconds that half of all calls take at most, one after the other: to tonic's server itself,
/// and through the gateway's step before it.
pub(crate) fn medians(calls: usize) -> Result<(f64, f64), String> {
    let load = [calls.to_string(), "1".to_owned(), "median".to_owned()];
    let mut server = Serving::start(&mut Command::new(beside("bench-server")), &["tonic"])?;
    let direct = called(
        Command::new(beside("bench-client")),
        Stack::Tonic,
        &server,
        &load,
    )?;
    let arguments = ["gantry", &server.address.clone()];
    let mut between = Serving::start(&mut Command::new(beside("bench-forward")), &arguments)?;
    let through = called(
        Command::new(beside("bench-client")),
        Stack::Tonic,
        &between,
        &load,
    )?;
    between.end()?;
    server.end()?;
    Ok((number(&direct)?, number(&through)?))
}

/// Unary calls of 32 callers that end in a second where both ends are of `stack`, each on a core of its
/// own.
pub(crate) fn calls_per_second(stack: Stack, calls: usize) -> Result<f64, String> {
    let pinned = |core: &str, binary: &str| {
        let mut command = Command::new("taskset");
        command.args(["-c", core]).arg(beside(binary));
        command
    };
    let serving = stack.to_string();
    let mut server = Serving::start(&mut pinned("0", "bench-server"), &[&serving])?;
    let load = [calls.to_string(), "32".to_owned(), "rate".to_owned()];
    let told = called(pinned("1", "bench-client"), stack, &server, &load)?;
    server.end()?;
    number(&told)
}

/// Runs all sides to their end; the CPU microseconds the measured side told of its calls.
fn run(
    side: Side,
    stack: Stack,
    load: Load,
    measured: impl Fn(&str) -> Command,
    other: impl Fn(&str) -> Command,
) -> Result<f64, String> {
    let on = |own: Side, binary: &str| {
        if side == own {
            (measured(binary), stack.to_string())
        } else {
            (other(binary), Stack::Tonic.to_string())
        }
    };
    let (mut command, serving) = on(Side::Server, "bench-server");
    let mut server = Serving::start(&mut command, &[&serving])?;
    let mut between = None;
    if side == Side::Forward {
        let (mut command, forwarding) = on(Side::Forward, "bench-forward");
        let arguments = [&*forwarding, &*server.address];
        between = Some(Serving::start(&mut command, &arguments)?);
    }
    let (client, calling) = on(Side::Client, "bench-client");
    let load = [load.calls.to_string(), load.callers.to_string()];
    let nearest = between.as_ref().unwrap_or(&server);
    let client = called(client, calling.parse()?, nearest, &load)?;
    let forwarder = between.as_mut().map(Serving::end).transpose()?;
    let server = server.end()?;
    number(match side {
        Side::Server => &server,
        Side::Client => &client,
        Side::Forward => forwarder.as_deref().unwrap_or_default(),
    })
}

/// What a client says last that calls `server`.
fn called(
    mut client: Command,
    stack: Stack,
    server: &Serving,
    load: &[String],
) -> Result<String, String> {
    let client = client
        .arg(stack.to_string())
        .arg(&server.address)
        .args(load)
        .stdout(Stdio::piped())
        .output()
        .map_err(|error| format!("start the client: {error}"))?;
    if !client.status.success() {
        return Err(format!("the client ended with {}", client.status));
    }
    Ok(String::from_utf8_lossy(&client.stdout).trim().to_owned())
}

fn number(told: &str) -> Result<f64, String> {
    told.parse()
        .map_err(|_| format!("expected a number, got {told:?}"))
}

/// A process that serves until its input is closed.
struct Serving {
    process: Child,
    told: BufReader<ChildStdout>,
    address: String,
}

impl Serving {
    fn start(command: &mut Command, arguments: &[&str]) -> Result<Self, String> {
        let mut process = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("start a server: {error}"))?;
        let mut told = BufReader::new(process.stdout.take().expect("standard output is piped"));
        let address = line(&mut told)?;
        Ok(Self {
            process,
            told,
            address,
        })
    }

    /// Ends it by closing its input; returns what it says last.
    fn end(&mut self) -> Result<String, String> {
        drop(self.process.stdin.take());
        let last = line(&mut self.told)?;
        let status = self.process.wait().map_err(|error| error.to_string())?;
        if status.success() {
            Ok(last)
        } else {
            Err(format!("a server ended with {status}"))
        }
    }
}

/// The next line it tells, empty at its end.
pub(crate) fn line(told: &mut impl std::io::BufRead) -> Result<String, String> {
    let mut text = String::new();
    told.read_line(&mut text)
        .map_err(|error| error.to_string())?;
    Ok(text.trim().to_owned())
}

/// A binary built together with this one.
pub(crate) fn beside(binary: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    own.with_file_name(binary)
}

/// Counts here stay far below what a double holds exactly.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn precise(count: u64) -> f64 {
    count as f64
}

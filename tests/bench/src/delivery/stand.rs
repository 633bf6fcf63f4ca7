//! Brokers, databases, and whoever is measured, each on its core.

use std::{
    cell::Cell,
    collections::HashMap,
    fs,
    io::{BufReader, Write as _},
    process::{Child, ChildStdout, Command, Stdio},
};

use gantry_bench::events::{HANDLERS, PARTITIONS, PREFETCH, WINDOW};
use gantry_harness::{
    leash::Leash,
    postgres::Postgres,
    rabbitmq::{self, RabbitMq},
};
use tempfile::TempDir;
use tokio::runtime::{self, Runtime};

use super::Pair;
use crate::measure::{beside, line, precise};

/// The core of brokers, and that of whoever is measured with its database.
const CORE_BROKER: &str = "0";
const CORE: &str = "1";

/// Ticks of a second in which the kernel tells of other processes.
const TICKS: f64 = 100.0;

/// How something went.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// Of what there was so many.
    pub(crate) count: f64,
    pub(crate) seconds: f64,
    /// Seconds of CPU time of whoever was measured, of its database and of the broker.
    pub(crate) cpu: f64,
    pub(crate) cpu_database: f64,
    pub(crate) cpu_broker: f64,
    more: String,
}

impl Outcome {
    /// How many a second.
    pub(crate) fn rate(&self) -> f64 {
        self.count / self.seconds
    }

    /// This and the other, one after the other.
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.seconds += other.seconds;
        self.cpu += other.cpu;
        self.cpu_database += other.cpu_database;
        self.cpu_broker += other.cpu_broker;
    }

    /// Two numbers that were told beside.
    pub(crate) fn two(&self) -> Result<(f64, f64), String> {
        two(&self.more)
    }
}

/// What runs meanwhile. Servers are ended with it.
pub(crate) struct Stand {
    rabbit: Option<RabbitMq>,
    postgres: Option<Postgres>,
    schemas: Cell<u32>,
    // Last: servers are ended within it.
    _runtime: Runtime,
}

impl Stand {
    /// Starts those servers that can be had.
    pub(crate) fn start() -> Result<Self, String> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        // What is started is where whoever starts it is.
        stay(CORE_BROKER)?;
        let rabbit = runtime.block_on(RabbitMq::start());
        stay(CORE)?;
        let postgres = runtime.block_on(Postgres::durable());
        stay(&format!("{CORE_BROKER},{CORE}"))?;
        Ok(Self {
            rabbit,
            postgres,
            schemas: Cell::new(0),
            _runtime: runtime,
        })
    }

    /// Whether its broker and its database are there.
    pub(crate) fn has(&self, pair: Pair) -> bool {
        (self.rabbit.is_some() || !pair.is_rabbit())
            && (self.postgres.is_some() || !pair.is_postgres())
    }

    /// Has `bench-events` do something, with a broker and a database that are empty.
    pub(crate) fn service(
        &self,
        pair: Pair,
        role: &str,
        (count, keys): (usize, usize),
    ) -> Result<Outcome, String> {
        let place = self.place(pair)?;
        let mut service = self.role(pair, &place, role, (count, keys));
        run(&mut service, count, role == "latency")
    }

    /// Has `bench-events` do two things in turns, so many times each; answers how each went, all its
    /// turns together.
    pub(crate) fn in_turns(
        &self,
        pair: Pair,
        role: &str,
        (count, keys): (usize, usize),
        turns: usize,
    ) -> Result<[Outcome; 2], String> {
        let place = self.place(pair)?;
        let mut process = Process::start(&mut self.role(pair, &place, role, (count, keys)))?;
        let mut both = [Outcome::default(), Outcome::default()];
        for turn in 0..2 * turns {
            if turn > 0 {
                process.first = process.says()?;
            }
            both[turn % 2].add(&measured(&mut process, count / turns)?);
        }
        Ok(both)
    }

    /// The same of `bench-bare`, with a database where it is to write rows.
    pub(crate) fn bare(
        &self,
        pair: Pair,
        what: &str,
        (count, keys): (usize, usize),
        writes: bool,
    ) -> Result<Outcome, String> {
        let place = self.place(pair)?;
        let broker = match &self.rabbit {
            Some(rabbit) if pair.is_rabbit() => {
                let (user, password) = (rabbitmq::USER, rabbitmq::PASSWORD);
                format!("amqp://{user}:{password}@{}/%2f", rabbit.address())
            }
            _ => place.broker(),
        };
        let mut bare = pinned(CORE, "bench-bare");
        bare.arg(what)
            .arg(broker)
            .args([count, keys].map(|it| it.to_string()));
        if writes {
            bare.arg(&place.database);
        }
        run(&mut bare, count, what == "latency")
    }

    fn place(&self, pair: Pair) -> Result<Place, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let number = self.schemas.get();
        self.schemas.set(number + 1);
        let database = match &self.postgres {
            Some(postgres) if pair.is_postgres() => {
                format!("{}?schema=bench_{number}", postgres.url())
            }
            _ => format!("sqlite:{}", folder.path().join("bench.db").display()),
        };
        let local = if pair.is_rabbit() {
            None
        } else {
            let kept = folder.path().join("broker");
            let mut broker = pinned(CORE_BROKER, "bench-broker");
            Some(Process::start(broker.arg(kept))?)
        };
        let place = Place {
            local,
            database,
            folder,
        };
        let told = Process::start(&mut self.command(pair, &place, "declare"))?;
        match told.first.as_str() {
            "done" => Ok(place),
            other => Err(format!("expected queues, got {other:?}")),
        }
    }

    /// The service with something to do.
    fn role(
        &self,
        pair: Pair,
        place: &Place,
        role: &str,
        (count, keys): (usize, usize),
    ) -> Command {
        let mut service = self.command(pair, place, role);
        service.env("GANTRY_BENCH__COUNT", count.to_string());
        service.env("GANTRY_BENCH__KEYS", keys.to_string());
        service
    }

    /// The service, in settings.
    fn command(&self, pair: Pair, place: &Place, role: &str) -> Command {
        let mut command = pinned(CORE, "bench-events");
        command
            .current_dir(place.folder.path())
            .env("GANTRY_LISTEN__ADDRESS", "127.0.0.1:0")
            .env("GANTRY_ADMIN__ADDRESS", "127.0.0.1:0")
            .env("GANTRY_TELEMETRY__LOG_LEVEL", "warn")
            .env("GANTRY_DATABASE__URL", &place.database)
            .env("GANTRY_EVENTS__RELAY__WINDOW", WINDOW.to_string())
            .env(
                "GANTRY_EVENTS__CONSUMER__PARTITIONS",
                PARTITIONS.to_string(),
            )
            .env("GANTRY_EVENTS__CONSUMER__PREFETCH", PREFETCH.to_string())
            .env(
                "GANTRY_EVENTS__CONSUMER__HANDLERS_MAX",
                HANDLERS.to_string(),
            )
            .env("GANTRY_BENCH__ROLE", role);
        match &self.rabbit {
            Some(rabbit) if pair.is_rabbit() => {
                command.env("GANTRY_BROKER__URL", rabbit.url());
                command.env("GANTRY_BROKER__USER", rabbitmq::USER);
                command.env("GANTRY_BROKER__PASSWORD", rabbitmq::PASSWORD);
            }
            _ => {
                command.env("GANTRY_BROKER__URL", place.broker());
            }
        }
        command
    }
}

/// An empty broker and an empty database.
struct Place {
    local: Option<Process>,
    database: String,
    // Behind whoever writes there.
    folder: TempDir,
}

impl Place {
    fn broker(&self) -> String {
        let address = self.local.as_ref().map(|it| it.first.as_str());
        format!("grpc://{}", address.unwrap_or_default())
    }
}

/// Keeps this process to some cores, and what it starts.
fn stay(cores: &str) -> Result<(), String> {
    let own = std::process::id().to_string();
    let moved = Command::new("taskset").args(["-cp", cores, &own]).output();
    let moved = moved.map_err(|error| format!("start taskset: {error}"))?;
    if moved.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&moved.stderr).into_owned())
    }
}

fn pinned(core: &str, binary: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(beside(binary));
    command
}

/// Measures a process from the moment at which it is ready.
fn run(command: &mut Command, count: usize, tells_more: bool) -> Result<Outcome, String> {
    let mut process = Process::start(command)?;
    let outcome = measured(&mut process, count)?;
    let more = if tells_more {
        process.says()?
    } else {
        String::new()
    };
    Ok(Outcome { more, ..outcome })
}

/// The same of one that has just said that it is.
fn measured(process: &mut Process, count: usize) -> Result<Outcome, String> {
    if process.first != "ready" {
        return Err(format!("expected to begin, got {:?}", process.first));
    }
    let (database, broker) = others(process.child.id());
    let input = process.child.stdin.as_mut();
    let input = input.expect("standard input is piped");
    writeln!(input, "go").map_err(|error| error.to_string())?;
    let (seconds, cpu) = two(&process.says()?)?;
    let (database_after, broker_after) = others(process.child.id());
    Ok(Outcome {
        count: precise(count as u64),
        seconds,
        cpu,
        cpu_database: database_after - database,
        cpu_broker: broker_after - broker,
        more: String::new(),
    })
}

fn two(told: &str) -> Result<(f64, f64), String> {
    let numbers = told.split_once(' ').and_then(|(first, second)| {
        let first = first.parse().ok()?;
        Some((first, second.parse().ok()?))
    });
    numbers.ok_or_else(|| format!("expected two numbers, got {told:?}"))
}

/// A process that is asked things by lines; killed when dropped, or with this one.
struct Process {
    child: Child,
    told: BufReader<ChildStdout>,
    /// What it said first, or before it began anew.
    first: String,
    _leash: Leash,
}

impl Process {
    fn start(command: &mut Command) -> Result<Self, String> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("start {command:?}: {error}"))?;
        let output = child.stdout.take().expect("standard output is piped");
        let mut process = Self {
            _leash: Leash::of(&child),
            child,
            told: BufReader::new(output),
            first: String::new(),
        };
        process.first = process.says()?;
        Ok(process)
    }

    /// The next thing it says; what it logs is passed on.
    fn says(&mut self) -> Result<String, String> {
        loop {
            let said = line(&mut self.told)?;
            if !said.starts_with('{') {
                return Ok(said);
            }
            eprintln!("{said}");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Seconds of CPU time of the databases and of the brokers that this process has started.
fn others(measured: u32) -> (f64, f64) {
    let mut children: HashMap<u32, Vec<Told>> = HashMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for entry in processes {
        let id = entry.file_name().to_str().and_then(|it| it.parse().ok());
        let text = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some(told) = id.and_then(|id| Told::of(id, &text)) {
            children.entry(told.parent).or_default().push(told);
        }
    }
    let (mut database, mut broker) = (0.0, 0.0);
    let mut next = vec![std::process::id()];
    while let Some(parent) = next.pop() {
        for told in children.get(&parent).into_iter().flatten() {
            if told.id == measured {
                continue;
            }
            next.push(told.id);
            if told.name.starts_with("postgres") {
                database += told.seconds;
            } else {
                broker += told.seconds;
            }
        }
    }
    (database, broker)
}

/// What the kernel tells of a process.
struct Told {
    id: u32,
    parent: u32,
    name: String,
    seconds: f64,
}

impl Told {
    fn of(id: u32, text: &str) -> Option<Self> {
        // The name may have spaces in it.
        let (name, rest) = text.split_once('(')?.1.rsplit_once(')')?;
        let fields: Vec<_> = rest.split_ascii_whitespace().collect();
        // User and system, its own and of children that have ended.
        let ticks = fields.get(11..15)?.iter();
        let ticks: u64 = ticks.filter_map(|it| it.parse::<u64>().ok()).sum();
        Some(Self {
            id,
            parent: fields.get(1)?.parse().ok()?,
            name: name.to_owned(),
            seconds: precise(ticks) / TICKS,
        })
    }
}

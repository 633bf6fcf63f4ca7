//! The replicas of the service under test, each started again whenever it has ended.

use std::{
    collections::BTreeMap, fs, net::SocketAddr, os::unix::process::ExitStatusExt as _,
    path::PathBuf, time::Duration,
};

use gantry_events::broker;
use gantry_harness::process::{self, Service, free_address};
use rustix::process::Signal;
use tokio::time::{self, Instant};

use super::load::{IN_PLACE, PARTITIONS};
use crate::{
    door::Tricks,
    evidence::{Measure, Process},
    metrics,
    service::NAME,
};

/// Longest time until a process ends that is to.
const END: Duration = Duration::from_secs(30);

/// Longest time until a process tells what it has written down.
const TOLD: Duration = Duration::from_secs(5);

/// Pause between two looks at whether a point was reached.
const LOOK: Duration = Duration::from_millis(20);

/// What all replicas are told.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) database: String,
    pub(super) broker: broker::Config,
    /// Where what they print goes when they end.
    pub(super) outputs: PathBuf,
    pub(super) logs: PathBuf,
    pub(super) consumer: String,
    /// What else is set.
    pub(super) more: Vec<(&'static str, String)>,
}

impl Settings {
    /// The name of the consumer's group.
    pub(super) fn group(&self) -> String {
        format!("{NAME}.{}", self.consumer)
    }
}

/// Replicas that run.
#[derive(Debug)]
pub(super) struct Replicas {
    settings: Settings,
    all: Vec<Replica>,
    /// Starts that are over and that are not known by their number, or told something before.
    gone: BTreeMap<String, Process>,
}

#[derive(Debug)]
struct Replica {
    address: SocketAddr,
    starts: u32,
    service: Service,
}

impl Replicas {
    /// Starts `count` of them, and waits until they are ready.
    pub(super) async fn start(settings: Settings, count: usize) -> Self {
        let mut replicas = Self {
            settings,
            all: Vec::new(),
            gone: BTreeMap::new(),
        };
        for _ in 0..count {
            replicas.add().await;
        }
        replicas
    }

    /// Starts one more, and waits until it is ready.
    pub(super) async fn add(&mut self) {
        let (address, number) = (free_address(), self.all.len());
        let service = begin(&self.settings, number, 1, address, Tricks::default());
        self.all.push(Replica {
            address,
            starts: 1,
            service: service.start().await,
        });
    }

    /// Has the last one end in order, for good.
    pub(super) async fn remove(&mut self) {
        let number = self.all.len() - 1;
        self.signal(number, Signal::TERM);
        self.ended(number, None).await;
        self.keep(number);
        self.gone.entry(self.name(number)).or_default();
        self.all.pop();
    }

    /// Has all end in order.
    pub(super) async fn stop(mut self) {
        while !self.all.is_empty() {
            self.remove().await;
        }
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.all.iter().map(|it| it.address).collect()
    }

    pub(super) fn signal(&self, number: usize, signal: Signal) {
        self.all[number].service.signal(signal);
    }

    /// The name of the present start of one.
    pub(super) fn name(&self, number: usize) -> String {
        name(number, self.all[number].starts)
    }

    /// Has one end at `point`, waits until it has, and starts it again; whether it came to it.
    pub(super) async fn crash(&mut self, number: usize, point: &str) -> bool {
        let folder = self.all[number].service.folder().join(".gantry/crash");
        fs::create_dir_all(&folder).expect("make a folder");
        let file = folder.join(point);
        fs::write(&file, "").expect("write a file");
        let until = Instant::now() + END;
        while file.exists() && Instant::now() < until {
            time::sleep(LOOK).await;
        }
        // By whoever is first.
        if fs::remove_file(&file).is_ok() {
            return false;
        }
        self.ended(number, Some(Signal::ABORT)).await;
        self.begin(number, Tricks::default()).await;
        true
    }

    /// Kills one, and starts it again.
    pub(super) async fn kill(&mut self, number: usize) {
        self.signal(number, Signal::KILL);
        self.again(number).await;
    }

    /// Starts one that was killed again, where it was.
    pub(super) async fn again(&mut self, number: usize) {
        self.ended(number, Some(Signal::KILL)).await;
        self.begin(number, Tricks::default()).await;
    }

    /// Has one end as in an update, and another take its place.
    pub(super) async fn replace(&mut self, number: usize, tricks: Tricks) {
        self.signal(number, Signal::TERM);
        self.ended(number, None).await;
        self.begin(number, tricks).await;
    }

    /// Waits until one has ended by `signal`, or by itself and well.
    async fn ended(&mut self, number: usize, signal: Option<Signal>) {
        let service = &mut self.all[number].service;
        let status = service.ended(END).await;
        let as_it_should = match signal {
            Some(signal) => status.signal() == Some(signal.as_raw()),
            None => status.success(),
        };
        let output = || self.all[number].service.output();
        assert!(as_it_should, "replica {number}: {status}\n{}", output());
    }

    async fn begin(&mut self, number: usize, tricks: Tricks) {
        self.keep(number);
        let replica = &mut self.all[number];
        replica.starts += 1;
        let (starts, address) = (replica.starts, replica.address);
        let next = begin(&self.settings, number, starts, address, tricks);
        self.all[number].service = next.start().await;
    }

    /// Keeps what one has printed.
    fn keep(&self, number: usize) {
        let file = format!("{}.output", self.name(number));
        let output = self.all[number].service.output();
        // For people only.
        drop(fs::write(self.settings.outputs.join(file), output));
    }

    /// Keeps, for people, what those that run say of themselves, and what is said of the broker.
    pub(super) async fn tell(&self, broker: &str) {
        let mut told = vec![broker.to_owned()];
        for (number, replica) in self.all.iter().enumerate() {
            told.push(self.name(number));
            told.extend(replica.service.get("/metrics").await);
        }
        let file = self.settings.outputs.join("not-at-rest");
        drop(fs::write(file, told.join("\n")));
    }

    /// Asks one that is about to leave in order what it has counted: of each measure `least`, or more, as
    /// it goes on.
    pub(super) async fn ask(&mut self, number: usize, least: BTreeMap<Measure, u64>) {
        let until = Instant::now() + TOLD;
        let mut told = self.told(number).await;
        // A line of the log may be written before the same is counted.
        while least
            .iter()
            .any(|(measure, least)| told.get(measure).unwrap_or(&0) < least)
            && Instant::now() < until
        {
            time::sleep(LOOK).await;
            told = self.told(number).await;
        }
        told.remove(&Measure::Backlog);
        let least = Some(least);
        self.gone.insert(self.name(number), Process { told, least });
    }

    /// What the metrics of one say.
    async fn told(&self, number: usize) -> BTreeMap<Measure, u64> {
        let page = self.all[number].service.get("/metrics").await;
        metrics::read(&page.unwrap_or_default(), &self.settings.group())
    }

    /// Every start of each, with the metrics of those that still run, and of those that were asked.
    pub(super) async fn processes(&self) -> BTreeMap<String, Process> {
        let mut processes = self.gone.clone();
        for (number, replica) in self.all.iter().enumerate() {
            for start in 1..replica.starts {
                processes.entry(name(number, start)).or_default();
            }
            let (told, least) = (self.told(number).await, None);
            processes.insert(self.name(number), Process { told, least });
        }
        processes
    }

    /// Whether those that run say that nothing is left to be published.
    pub(super) async fn told_all(&self) -> bool {
        for number in 0..self.all.len() {
            if self.told(number).await.get(&Measure::Backlog) != Some(&0) {
                return false;
            }
        }
        true
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        for number in 0..self.all.len() {
            self.keep(number);
        }
    }
}

fn name(number: usize, start: u32) -> String {
    format!("{}-{start}", ["a", "b", "c", "d"][number])
}

fn begin(
    settings: &Settings,
    number: usize,
    start: u32,
    address: SocketAddr,
    tricks: Tricks,
) -> process::Builder {
    let Settings {
        database,
        broker,
        logs,
        consumer,
        more,
        ..
    } = settings;
    let service = process::service(NAME)
        .at(address)
        .set("DATABASE__URL", database)
        .set("BROKER__URL", &broker.url);
    let service = match &broker.user {
        Some(user) => service
            .set("BROKER__USER", user)
            .set("BROKER__PASSWORD", broker.password.expose()),
        None => service,
    };
    let service = service
        // Short, as a run is: nothing that is waited for is to be waited for long.
        .set("BROKER__CONFIRM_TIMEOUT", "3s")
        .set("EVENTS__RELAY__LEASE", "2s")
        .set("EVENTS__RELAY__PAUSE_MAX", "1s")
        .set("EVENTS__CONSUMER__LEASE", "1s")
        .set("EVENTS__CONSUMER__PARTITIONS", PARTITIONS)
        .set("EVENTS__CONSUMER__ATTEMPTS_IN_PLACE", IN_PLACE)
        // What is put off waits at hand in some, and in the broker in others; but for copies made at the door,
        // which do not come again once their original is settled.
        .set(
            "EVENTS__CONSUMER__REST_MAX",
            if number.is_multiple_of(2) || tricks.double > 0 {
                "3s"
            } else {
                "0s"
            },
        )
        .set("LEDGER__LOGS", logs.display())
        .set("LEDGER__PROCESS", name(number, start))
        .set("LEDGER__CONSUMER", consumer)
        .set("LEDGER__DOUBLE_PERCENT", tricks.double)
        .set("LEDGER__SWAP_PERCENT", tricks.swap)
        .set("LEDGER__SEED", tricks.seed);
    more.iter()
        .fold(service, |service, (key, value)| service.set(key, value))
}

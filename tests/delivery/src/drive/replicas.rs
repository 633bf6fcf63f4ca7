//! The replicas of the service under test, each started again whenever it has ended.

use std::{
    collections::BTreeMap, fs, net::SocketAddr, os::unix::process::ExitStatusExt as _,
    path::PathBuf, time::Duration,
};

use gantry_harness::{
    process::{self, Service, free_address},
    wait,
};
use rustix::process::Signal;

use super::load::IN_PLACE;
use crate::{
    door::Tricks,
    evidence::{Measure, Process},
    metrics,
    service::NAME,
};

/// Longest time until a process ends that is to.
const END: Duration = Duration::from_secs(30);

/// What all replicas are told.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) database: String,
    pub(super) broker: String,
    pub(super) logs: PathBuf,
    pub(super) consumer: String,
    pub(super) tricks: Tricks,
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
        let mut all = Vec::new();
        for number in 0..count {
            let address = free_address();
            let service = begin(&settings, number, 1, address).start().await;
            all.push(Replica {
                address,
                starts: 1,
                service,
            });
        }
        Self { settings, all }
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.all.iter().map(|it| it.address).collect()
    }

    pub(super) fn signal(&self, number: usize, signal: Signal) {
        self.all[number].service.signal(signal);
    }

    /// Has one end at `point`, waits until it has, and starts it again.
    pub(super) async fn crash(&mut self, number: usize, point: &str) {
        let folder = self.all[number].service.folder().join(".gantry/crash");
        fs::create_dir_all(&folder).expect("make a folder");
        let file = folder.join(point);
        fs::write(&file, "").expect("write a file");
        let reached = format!("{point} to be reached, in a build with --all-features");
        wait::until(&reached, END, async || (!file.exists()).then_some(())).await;
        self.again(number, Signal::ABORT).await;
    }

    /// Kills one, and starts it again.
    pub(super) async fn kill(&mut self, number: usize) {
        self.signal(number, Signal::KILL);
        self.again(number, Signal::KILL).await;
    }

    /// Waits until one has ended by `signal`, and starts it again where it was.
    pub(super) async fn again(&mut self, number: usize, signal: Signal) {
        let replica = &mut self.all[number];
        let status = replica.service.ended(END).await;
        assert_eq!(
            Some(signal.as_raw()),
            status.signal(),
            "replica {number}: {status}"
        );
        replica.starts += 1;
        let next = begin(&self.settings, number, replica.starts, replica.address);
        replica.service = next.start().await;
    }

    /// Every start of each, with the metrics of those that still run.
    pub(super) async fn processes(&self) -> BTreeMap<String, Process> {
        let mut processes = BTreeMap::new();
        for (number, replica) in self.all.iter().enumerate() {
            for start in 1..replica.starts {
                processes.insert(name(number, start), Process::default());
            }
            let page = replica.service.get("/metrics").await.unwrap_or_default();
            let told = metrics::read(&page, &self.settings.group());
            processes.insert(name(number, replica.starts), Process { told });
        }
        processes
    }

    /// What each that runs says of the backlog.
    pub(super) async fn backlogs(&self) -> Vec<Option<u64>> {
        let processes = self.processes().await;
        let told = processes.values().filter(|it| !it.told.is_empty());
        told.map(|it| it.told.get(&Measure::Backlog).copied())
            .collect()
    }

    /// What each that runs has printed.
    pub(super) fn outputs(&self) -> Vec<(String, String)> {
        let all = self.all.iter().enumerate();
        all.map(|(number, it)| (name(number, it.starts), it.service.output()))
            .collect()
    }
}

fn name(number: usize, start: u32) -> String {
    format!("{}-{start}", ["a", "b", "c", "d"][number])
}

fn begin(settings: &Settings, number: usize, start: u32, address: SocketAddr) -> process::Builder {
    let Settings {
        database,
        broker,
        logs,
        consumer,
        tricks,
    } = settings;
    process::service(NAME)
        .at(address)
        .set("DATABASE__URL", database)
        .set("BROKER__URL", broker)
        // Short, as a run is: nothing that is waited for is to be waited for long.
        .set("EVENTS__RELAY__LEASE", "2s")
        .set("EVENTS__RELAY__PAUSE_MAX", "1s")
        .set("EVENTS__CONSUMER__LEASE", "1s")
        .set("EVENTS__CONSUMER__PARTITIONS", 4)
        .set("EVENTS__CONSUMER__ATTEMPTS_IN_PLACE", IN_PLACE)
        .set("LEDGER__LOGS", logs.display())
        .set("LEDGER__PROCESS", name(number, start))
        .set("LEDGER__CONSUMER", consumer)
        .set("LEDGER__DOUBLE_PERCENT", tricks.double)
        .set("LEDGER__SWAP_PERCENT", tricks.swap)
        .set("LEDGER__SEED", tricks.seed)
}

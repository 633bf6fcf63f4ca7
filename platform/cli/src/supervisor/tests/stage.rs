//! A world the test plays, and a system supervised in it.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use gantry::{journal::Journal, shutdown::Tasks};
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use crate::supervisor::{
    machine::Health,
    operation::Progress,
    world::{Launch, Place, Process},
    *,
};

pub(super) const DRAIN_MAX: Duration = Duration::from_secs(30);

/// A world: processes are entries of a table, health is a switch per port.
#[derive(Debug, Default)]
pub(super) struct Stage {
    scene: Arc<Mutex<Scene>>,
}

#[derive(Debug, Default)]
pub(super) struct Scene {
    ports: u16,
    pub(super) started: Vec<(Instant, Launch)>,
    pub(super) processes: HashMap<u32, watch::Sender<Option<Ended>>>,
    /// Who was told what, in order: `drain orders-1`.
    pub(super) told: Vec<String>,
    /// That, and everything else that happened: `start`, `serves` and `end`, in order.
    pub(super) history: Vec<String>,
    names: HashMap<u32, String>,
    pub(super) healthy: HashSet<SocketAddr>,
    pub(super) taken: HashSet<SocketAddr>,
    /// Instances that do not end when asked to.
    pub(super) stubborn: HashSet<String>,
    /// Instances that never serve.
    pub(super) sick: HashSet<String>,
    /// Instances whose processes end at once, and how.
    pub(super) failing: HashMap<String, Ended>,
    /// What happens while the next process is being started.
    pub(super) meanwhile: Meanwhile,
}

/// Something that happens once.
#[derive(Default)]
pub(super) struct Meanwhile(pub(super) Option<Box<dyn FnOnce() + Send>>);

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Meanwhile").field(&self.0.is_some()).finish()
    }
}

impl Scene {
    fn happened(&mut self, what: &str, pid: u32) -> String {
        let name = self.names[&pid].clone();
        self.history.push(format!("{what} {name}"));
        name
    }

    fn told(&mut self, what: &str, pid: u32) -> String {
        let name = self.happened(what, pid);
        self.told.push(format!("{what} {name}"));
        name
    }

    /// The last process started at a place.
    fn at(&self, place: Place) -> Option<u32> {
        let last = self.started.iter().rposition(|(_, it)| it.place == place)?;
        u32::try_from(last + 1).ok()
    }
}

#[derive(Debug)]
pub(super) struct Actor {
    pid: u32,
    ended: watch::Receiver<Option<Ended>>,
    scene: Arc<Mutex<Scene>>,
}

impl Process for Actor {
    fn pid(&self) -> u32 {
        self.pid
    }

    async fn wait(&mut self) -> Ended {
        let ended = self.ended.wait_for(Option::is_some).await;
        let ended = ended.unwrap().clone().unwrap();
        self.scene.lock().unwrap().happened("end", self.pid);
        ended
    }

    fn drain(&self) {
        let mut scene = self.scene.lock().unwrap();
        let name = scene.told("drain", self.pid);
        if !scene.stubborn.contains(&name) {
            scene.processes[&self.pid].send_replace(Some(Ended::Code(0)));
        }
    }

    fn kill(&self) {
        let mut scene = self.scene.lock().unwrap();
        scene.told("kill", self.pid);
        scene.processes[&self.pid].send_replace(Some(Ended::Signal(9)));
    }
}

impl World for Stage {
    type Process = Actor;

    fn places(&self, count: usize) -> io::Result<Vec<Place>> {
        let mut scene = self.scene.lock().unwrap();
        let mut next = || {
            scene.ports += 1;
            SocketAddr::from(([127, 0, 0, 1], scene.ports))
        };
        let place = |_| Place {
            address: next(),
            shared: false,
            side_address: next(),
        };
        Ok((0..count).map(place).collect())
    }

    fn taken(&self, place: Place) -> bool {
        self.scene.lock().unwrap().taken.contains(&place.address)
    }

    fn start(&self, launch: &Launch) -> io::Result<Actor> {
        let meanwhile = self.scene.lock().unwrap().meanwhile.0.take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        let mut scene = self.scene.lock().unwrap();
        scene.started.push((Instant::now(), launch.clone()));
        let pid = u32::try_from(scene.started.len()).unwrap();
        let (sender, ended) = watch::channel(scene.failing.get(&launch.instance).cloned());
        scene.processes.insert(pid, sender);
        scene.names.insert(pid, launch.instance.clone());
        scene.happened("start", pid);
        Ok(Actor {
            pid,
            ended,
            scene: Arc::clone(&self.scene),
        })
    }

    async fn probe(&self, place: Place) -> Health {
        let mut scene = self.scene.lock().unwrap();
        let pid = scene.at(place).expect("it was started");
        let name = scene.names[&pid].clone();
        if !scene.healthy.contains(&place.address) || scene.sick.contains(&name) {
            return Health::Not;
        }
        let serves = format!("serves {name}");
        let mut happened = scene.history.iter().rev();
        let since = happened.find(|it| **it == serves || **it == format!("start {name}"));
        if since != Some(&serves) {
            scene.history.push(serves);
        }
        Health::Serving
    }
}

/// A supervised system on a stage.
pub(super) struct Play {
    pub(super) stage: Arc<Stage>,
    pub(super) supervisor: Supervisor<Stage>,
    pub(super) tasks: Tasks,
}

impl Play {
    /// Starts instances by name: `orders-1` of `orders`, and so on. Services are
    /// drained from the last to the first.
    pub(super) fn of(instances: &[&str]) -> Self {
        let stage = Arc::new(Stage::default());
        let mut specs: Vec<Spec> = Vec::new();
        for instance in instances {
            let service = instance.rsplit_once('-').unwrap().0;
            match specs.last_mut().filter(|spec| spec.service == service) {
                Some(spec) => spec.replicas += 1,
                None => specs.push(Spec {
                    service: service.to_owned(),
                    replicas: 1,
                    program: PathBuf::from("/bin/service"),
                    arguments: Vec::new(),
                    environment: Vec::new(),
                    socket: None,
                    hidden: Vec::new(),
                    folder: PathBuf::from("/"),
                    drain_max: DRAIN_MAX,
                }),
            }
        }
        let order = specs.iter().rev().map(|spec| vec![spec.service.clone()]);
        let order = order.collect();
        let tasks = Tasks::new(Journal::new());
        let supervisor = Supervisor::start(&stage, specs, order, &tasks).unwrap();
        Self {
            stage,
            supervisor,
            tasks,
        }
    }

    /// As [`Play::of`], healthy and serving, with a clean history.
    pub(super) async fn serving(instances: &[&str]) -> Self {
        let play = Self::of(instances);
        play.all_healthy();
        play.supervisor.all_serving().await.unwrap();
        play.scene().history.clear();
        play
    }

    pub(super) fn scene(&self) -> std::sync::MutexGuard<'_, Scene> {
        self.stage.scene.lock().unwrap()
    }

    /// Makes every port healthy.
    pub(super) fn all_healthy(&self) {
        let mut scene = self.scene();
        scene.healthy = (1..1_000)
            .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
            .collect();
    }

    /// Waits until an instance is there, and comes to something.
    pub(super) async fn until(
        &self,
        instance: &str,
        mut wanted: impl FnMut(&Status) -> bool,
    ) -> Status {
        let mut changes = self.supervisor.changes();
        let wait = async {
            loop {
                changes.borrow_and_update();
                let listed = self.supervisor.list().into_iter();
                let status = listed.filter(|it| it.instance == instance).find_map(|it| {
                    let status = it.status.borrow().clone();
                    wanted(&status).then_some(status)
                });
                if let Some(status) = status {
                    return status;
                }
                changes.changed().await.unwrap();
            }
        };
        let status = time::timeout(Duration::from_mins(10), wait).await;
        status.unwrap_or_else(|_| panic!("{instance} does not come to that"))
    }

    /// Waits until something stands in the history.
    pub(super) async fn happened(&self, what: &str) {
        let mut changes = self.supervisor.changes();
        let wait = async {
            while !self.scene().history.iter().any(|it| it == what) {
                changes.changed().await.unwrap();
            }
        };
        let waited = time::timeout(Duration::from_mins(10), wait).await;
        waited.unwrap_or_else(|_| panic!("no {what} in {:?}", self.scene().history));
    }

    /// Ends the running process of an instance, as a crash would.
    pub(super) async fn crash(&self, instance: &str, ended: Ended) {
        let status = self.until(instance, |status| status.pid.is_some()).await;
        let scene = self.scene();
        scene.processes[&status.pid.unwrap()].send_replace(Some(ended));
    }

    pub(super) fn environment(&self, start: usize, key: &str) -> Option<String> {
        let scene = self.scene();
        let environment = scene.started[start].1.environment.iter();
        let mut values = environment
            .filter(|(k, _)| k == key)
            .map(|(_, v)| v.clone());
        values.next_back()
    }

    /// Carries out an operation with an asker that listens to its end.
    pub(super) async fn operate(&self, operation: Operation) -> (Result<(), Fault>, Vec<String>) {
        let (progress, mut events) = Progress::new();
        let listen = async {
            let mut heard = Vec::new();
            while let Some(Event { instance, step }) = events.recv().await {
                heard.push(format!("{instance} {step:?}"));
            }
            heard
        };
        tokio::join!(self.supervisor.operate(operation, progress), listen)
    }

    /// Scales with a minute's patience.
    pub(super) async fn scale(&self, counts: &[(&str, u16)]) -> Result<(), Fault> {
        self.operate(scale(counts)).await.0
    }

    /// Restarts by name with a minute's patience.
    pub(super) async fn restart(&self, names: &[&str]) -> Result<(), Fault> {
        self.operate(restart(names)).await.0
    }

    /// The names of the instances, in order.
    pub(super) fn names(&self) -> Vec<String> {
        let reports = self.supervisor.reports().into_iter();
        reports.map(|report| report.row.instance).collect()
    }
}

pub(super) const PATIENCE: Duration = Duration::from_mins(1);

pub(super) fn scale(counts: &[(&str, u16)]) -> Operation {
    let counts = counts.iter();
    Operation::Scale {
        counts: counts
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect(),
        timeout: PATIENCE,
    }
}

pub(super) fn restart(names: &[&str]) -> Operation {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Operation::Restart {
        targets: Targets::Named(names),
        timeout: PATIENCE,
    }
}

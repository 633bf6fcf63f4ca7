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

use super::{
    machine::Health,
    world::{Launch, Place, Process},
    *,
};

const DRAIN_MAX: Duration = Duration::from_secs(30);

/// A world the test plays: processes are entries of a table, health is a switch per port.
#[derive(Debug, Default)]
struct Stage {
    scene: Arc<Mutex<Scene>>,
}

#[derive(Debug, Default)]
struct Scene {
    ports: u16,
    started: Vec<(Instant, Launch)>,
    processes: HashMap<u32, watch::Sender<Option<Ended>>>,
    /// Who was told what, in order: `drain orders-1`.
    told: Vec<String>,
    names: HashMap<u32, String>,
    healthy: HashSet<SocketAddr>,
    taken: HashSet<SocketAddr>,
    /// Instances that do not end when asked to.
    stubborn: HashSet<String>,
}

#[derive(Debug)]
struct Actor {
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
        ended.unwrap().clone().unwrap()
    }

    fn drain(&self) {
        let mut scene = self.scene.lock().unwrap();
        let name = scene.names[&self.pid].clone();
        scene.told.push(format!("drain {name}"));
        if !scene.stubborn.contains(&name) {
            scene.processes[&self.pid].send_replace(Some(Ended::Code(0)));
        }
    }

    fn kill(&self) {
        let mut scene = self.scene.lock().unwrap();
        let name = scene.names[&self.pid].clone();
        scene.told.push(format!("kill {name}"));
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
            side_address: next(),
        };
        Ok((0..count).map(place).collect())
    }

    fn taken(&self, place: Place) -> bool {
        self.scene.lock().unwrap().taken.contains(&place.address)
    }

    fn start(&self, launch: &Launch) -> io::Result<Actor> {
        let mut scene = self.scene.lock().unwrap();
        scene.started.push((Instant::now(), launch.clone()));
        let pid = u32::try_from(scene.started.len()).unwrap();
        let (sender, ended) = watch::channel(None);
        scene.processes.insert(pid, sender);
        scene.names.insert(pid, launch.instance.clone());
        Ok(Actor {
            pid,
            ended,
            scene: Arc::clone(&self.scene),
        })
    }

    async fn probe(&self, place: Place) -> Health {
        let scene = self.scene.lock().unwrap();
        if scene.healthy.contains(&place.address) {
            Health::Serving
        } else {
            Health::Not
        }
    }
}

/// A supervised system on a stage.
struct Play {
    stage: Arc<Stage>,
    supervisor: Supervisor,
}

impl Play {
    /// Starts instances given as name and calls: `orders-1` of `orders`, and so on.
    fn of(instances: &[(&str, &[&str])]) -> Self {
        let stage = Arc::new(Stage::default());
        let mut specs: Vec<Spec> = Vec::new();
        for (instance, calls) in instances {
            let service = instance.rsplit_once('-').unwrap().0;
            match specs.last_mut().filter(|spec| spec.service == service) {
                Some(spec) => spec.replicas += 1,
                None => specs.push(Spec {
                    service: service.to_owned(),
                    replicas: 1,
                    calls: calls.iter().map(|call| (*call).to_owned()).collect(),
                    program: PathBuf::from("/bin/service"),
                    arguments: Vec::new(),
                    environment: Vec::new(),
                    folder: PathBuf::from("/"),
                    drain_max: DRAIN_MAX,
                }),
            }
        }
        let tasks = Tasks::new(Journal::new());
        let supervisor = Supervisor::start(&stage, specs, &tasks).unwrap();
        Self { stage, supervisor }
    }

    fn scene(&self) -> std::sync::MutexGuard<'_, Scene> {
        self.stage.scene.lock().unwrap()
    }

    /// Makes every port healthy.
    fn all_healthy(&self) {
        let mut scene = self.scene();
        scene.healthy = (1..100)
            .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
            .collect();
    }

    async fn until(&self, instance: &str, wanted: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.supervisor.statuses()[instance].clone();
        let wait = status.wait_for(wanted);
        let status = time::timeout(Duration::from_mins(10), wait).await;
        status.expect("it comes to that").unwrap().clone()
    }

    /// Ends the running process of an instance, as a crash would.
    async fn crash(&self, instance: &str, ended: Ended) {
        let status = self.until(instance, |status| status.pid.is_some()).await;
        let scene = self.scene();
        scene.processes[&status.pid.unwrap()].send_replace(Some(ended));
    }

    fn environment(&self, start: usize, key: &str) -> Option<String> {
        let scene = self.scene();
        let environment = scene.started[start].1.environment.iter();
        let mut values = environment
            .filter(|(k, _)| k == key)
            .map(|(_, v)| v.clone());
        values.next_back()
    }
}

/// Goal: everybody is started at once with its own address and those it calls.
/// Method: two replicas called by one service; read their environment, then make them healthy.
#[tokio::test(start_paused = true)]
async fn callers_get_the_addresses_of_all_replicas() {
    let play = Play::of(&[
        ("catalog-1", &[]),
        ("catalog-2", &[]),
        ("orders-1", &["catalog"]),
    ]);
    play.until("orders-1", |status| status.pid.is_some()).await;
    assert_eq!(State::Starting, play.supervisor.reports()[2].row.state);
    assert_eq!(
        Some("127.0.0.1:1,127.0.0.1:3".to_owned()),
        play.environment(2, "GANTRY_CLIENTS__CATALOG__TARGET")
    );
    assert_eq!(
        Some("127.0.0.1:5".to_owned()),
        play.environment(2, "GANTRY_LISTEN__ADDRESS")
    );
    assert_eq!(
        Some("127.0.0.1:6".to_owned()),
        play.environment(2, "GANTRY_ADMIN__ADDRESS")
    );

    play.all_healthy();
    assert_eq!(Ok(()), play.supervisor.all_serving().await);
}

/// Goal: a crashed instance comes back at its port, later each time, up to a minute.
/// Method: crash it at once eight times on a paused clock, and look at the times of its starts.
#[tokio::test(start_paused = true)]
async fn a_crashed_instance_comes_back_with_growing_pauses() {
    let play = Play::of(&[("orders-1", &[])]);
    play.all_healthy();
    for restarts in 0..8 {
        play.until("orders-1", |s| {
            s.restarts == restarts && s.state == State::Serving
        })
        .await;
        play.crash("orders-1", Ended::Signal(9)).await;
        play.until("orders-1", |s| s.state == State::Exited).await;
    }
    let status = play.until("orders-1", |s| s.state == State::Serving).await;
    assert_eq!(8, status.restarts);
    assert_eq!(Some(Ended::Signal(9)), status.ended);

    let times: Vec<_> = play.scene().started.iter().map(|(at, _)| *at).collect();
    let pauses: Vec<_> = times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs_f64())
        .collect();
    assert!((0.4..0.8).contains(&pauses[0]), "{pauses:?}");
    assert!((48.0..73.0).contains(&pauses[7]), "{pauses:?}");
    let addresses: HashSet<_> = (0..9)
        .map(|start| play.environment(start, "GANTRY_LISTEN__ADDRESS"))
        .collect();
    assert_eq!(1, addresses.len(), "the port is kept");
}

/// Goal: an instance that loses the race for its port before it served gets another, and its
/// callers learn of it; one that has served keeps its port.
/// Method: take the port, let it exit; then take the new port after it has served.
#[tokio::test(start_paused = true)]
async fn a_port_is_given_up_only_before_it_was_known() {
    let play = Play::of(&[("catalog-1", &[]), ("orders-1", &["catalog"])]);
    let old = play
        .until("catalog-1", |s| s.pid.is_some())
        .await
        .place
        .address;
    play.until("orders-1", |s| s.pid.is_some()).await;
    play.scene().taken.insert(old);
    play.crash("catalog-1", Ended::Code(1)).await;

    let moved = play
        .until("catalog-1", |s| s.place.address != old && s.pid.is_some())
        .await;
    play.all_healthy();
    play.until("orders-1", |s| s.restarts == 1 && s.state == State::Serving)
        .await;
    let last = play.scene().started.len() - 1;
    let target = |start| play.environment(start, "GANTRY_CLIENTS__CATALOG__TARGET");
    assert_eq!(
        Some(moved.place.address.to_string()),
        (0..=last).rev().find_map(target)
    );

    play.until("catalog-1", |s| s.state == State::Serving).await;
    play.scene().taken.insert(moved.place.address);
    play.crash("catalog-1", Ended::Code(1)).await;
    play.until("catalog-1", |s| s.state == State::Exited).await;
    let again = play.until("catalog-1", |s| s.state == State::Serving).await;
    assert_eq!(moved.place, again.place);
}

/// Goal: callers are drained and gone before what they call is told.
/// Method: a chain with two replicas in front; the order of what was told.
#[tokio::test(start_paused = true)]
async fn callers_drain_first() {
    let play = Play::of(&[
        ("catalog-1", &[]),
        ("orders-1", &["catalog"]),
        ("orders-2", &["catalog"]),
    ]);
    play.all_healthy();
    play.supervisor.all_serving().await.unwrap();
    play.scene().stubborn.insert("orders-2".to_owned());

    let order = [vec!["orders".to_owned()], vec!["catalog".to_owned()]];
    let began = Instant::now();
    let drain = time::timeout(DRAIN_MAX * 2, play.supervisor.drain(&order)).await;

    drain.expect("a drain is bounded");
    assert_eq!(
        vec![
            "drain orders-1",
            "drain orders-2",
            "kill orders-2",
            "drain catalog-1"
        ],
        play.scene().told,
        "the stubborn one was killed, and only then catalog told"
    );
    assert_eq!(DRAIN_MAX, began.elapsed());
    let reports = play.supervisor.reports();
    assert!(
        reports
            .iter()
            .all(|report| report.row.state == State::Exited)
    );
}

/// Goal: a second signal ends a drain that hangs.
/// Method: a stubborn instance; drain, then kill meanwhile.
#[tokio::test(start_paused = true)]
async fn killing_cuts_a_drain_short() {
    let play = Play::of(&[("orders-1", &[])]);
    play.all_healthy();
    play.supervisor.all_serving().await.unwrap();
    play.scene().stubborn.insert("orders-1".to_owned());

    let began = Instant::now();
    let order = [vec!["orders".to_owned()]];
    let cut = async {
        play.until("orders-1", |s| s.state == State::Draining).await;
        play.supervisor.kill().await;
    };
    tokio::join!(play.supervisor.drain(&order), cut);

    assert_eq!(vec!["drain orders-1", "kill orders-1"], play.scene().told);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

/// Goal: an instance that waits for its next try is stopped at once, and stays so.
/// Method: crash it, drain during the pause, and let an hour pass.
#[tokio::test(start_paused = true)]
async fn an_instance_between_two_processes_stops_at_once() {
    let play = Play::of(&[("orders-1", &[])]);
    play.crash("orders-1", Ended::Code(1)).await;
    play.until("orders-1", |s| s.state == State::Exited).await;

    play.supervisor.drain(&[vec!["orders".to_owned()]]).await;
    time::sleep(Duration::from_hours(1)).await;
    assert_eq!(1, play.scene().started.len());
}

/// Goal: what cannot work is given up: a refused configuration at once, a crash loop after a few.
/// Method: exit with 2 at the first start; crash another five times.
#[tokio::test(start_paused = true)]
async fn what_cannot_work_is_given_up() {
    let play = Play::of(&[("orders-1", &[])]);
    play.crash("orders-1", Ended::Code(2)).await;
    assert_eq!(
        Err("orders-1".to_owned()),
        play.supervisor.all_serving().await
    );
    assert_eq!(1, play.scene().started.len());

    let play = Play::of(&[("orders-1", &[])]);
    for restarts in 0..5 {
        play.until("orders-1", |s| s.restarts == restarts && s.pid.is_some())
            .await;
        play.crash("orders-1", Ended::Code(1)).await;
    }
    assert_eq!(
        Err("orders-1".to_owned()),
        play.supervisor.all_serving().await
    );
}

/// Goal: an instance that stops answering is shown as such, and back when it answers again.
/// Method: switch its health off and on.
#[tokio::test(start_paused = true)]
async fn health_is_followed() {
    let play = Play::of(&[("orders-1", &[])]);
    play.all_healthy();
    play.until("orders-1", |s| s.state == State::Serving).await;
    play.scene().healthy.clear();
    play.until("orders-1", |s| s.state == State::NotServing)
        .await;
    play.all_healthy();
    let status = play.until("orders-1", |s| s.state == State::Serving).await;
    assert_eq!(0, status.restarts, "the process is left alone");
}

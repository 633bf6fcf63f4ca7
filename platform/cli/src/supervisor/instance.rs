//! One instance of a service: its task keeps a process of it alive until told to stop.

use std::{path::PathBuf, sync::Arc, time::Duration};

use gantry::status::chain;
use tokio::{
    sync::{mpsc, watch},
    time::{self, Instant},
};

use super::{
    environment,
    machine::{Health, Machine, State},
    roster::Id,
    world::{Ended, Launch, Place, Process, Socket, World},
};

/// How often a starting instance is looked at: start-up is what people wait for.
const LOOK_STARTING: Duration = Duration::from_millis(50);

/// How often a running instance is looked at.
const LOOK_RUNNING: Duration = Duration::from_secs(1);

/// What all instances of a service have in common.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// The service's name.
    pub(crate) service: String,
    /// How many of it are started at first.
    pub(crate) replicas: u16,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// What of the environment does not depend on addresses.
    pub(crate) environment: Vec<(String, String)>,
    /// Where gantry listens for it.
    pub(crate) socket: Option<Socket>,
    /// Variables of gantry's own environment that its processes do not inherit.
    pub(crate) hidden: Vec<String>,
    /// Where its processes run.
    pub(crate) folder: PathBuf,
    /// How long a drain may take before the process is killed.
    pub(crate) drain_max: Duration,
}

impl Spec {
    /// The names of those that are started at first.
    pub(crate) fn instances(&self) -> impl Iterator<Item = String> {
        (1..=self.replicas).map(|number| format!("{}-{number}", self.service))
    }

    /// Where an instance is that is given `place`.
    pub(super) fn at(&self, place: Place) -> Place {
        match &self.socket {
            None => place,
            Some(socket) => Place {
                address: socket.address,
                shared: true,
                ..place
            },
        }
    }
}

/// What an instance is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Finish what it has within its bound, and end for good.
    Drain,
    /// End for good, at once.
    Kill,
}

/// What is known about an instance now.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) state: State,
    pub(crate) place: Place,
    pub(crate) pid: Option<u32>,
    /// Whether a process is about to have one, and was told by its environment already.
    pub(crate) launching: bool,
    pub(crate) restarts: u32,
    /// When the running process was started.
    pub(crate) since: Option<Instant>,
    /// How the last process ended, where it was not told to.
    pub(crate) ended: Option<Ended>,
    /// Whether it will not serve without somebody's help.
    pub(crate) hopeless: bool,
    /// Whether its task is over: no process will follow.
    pub(crate) over: bool,
}

/// Runs one instance.
#[derive(Debug)]
pub(crate) struct Instance<W: World> {
    pub(super) id: Id,
    pub(super) spec: Arc<Spec>,
    pub(super) world: Arc<W>,
    pub(super) place: Place,
    pub(super) orders: mpsc::Receiver<Order>,
    /// Whether the next process begins with its registration paused.
    pub(super) paused: watch::Receiver<bool>,
    pub(super) status: watch::Sender<Status>,
    /// Counts changes of any instance's status, for those who wait for several of them.
    pub(super) changes: watch::Sender<u64>,
}

/// Why a process is not there any more.
enum Gone {
    /// It was told to end, and so is the instance.
    Stopped,
    /// By itself.
    Ended(Ended),
}

impl<W: World> Instance<W> {
    /// The status of an instance before its first process.
    pub(crate) fn status_at(place: Place) -> Status {
        Status {
            state: State::Exited,
            place,
            pid: None,
            launching: false,
            restarts: 0,
            since: None,
            ended: None,
            hopeless: false,
            over: false,
        }
    }

    /// Keeps a process alive until an order ends it.
    pub(crate) async fn run(mut self) {
        let mut machine = Machine::new();
        loop {
            let gone = self.one_process(&mut machine).await;
            let pause = match gone {
                Gone::Stopped => {
                    machine.ended();
                    // How one before it had ended says nothing about this one.
                    self.update(|status| status.ended = None);
                    break;
                }
                Gone::Ended(ended) => {
                    let moved = self.lost_its_place(&machine);
                    let last = ended.is_configuration() && !moved && machine.restarts() == 0;
                    let pause = machine.crashed(Instant::now());
                    self.update(|status| {
                        status.ended = Some(ended);
                        status.hopeless = last || machine.hopeless();
                    });
                    self.publish(&machine, None);
                    if last {
                        break;
                    }
                    if moved { Duration::ZERO } else { pause }
                }
            };
            tokio::select! {
                biased;
                // Both orders mean the same to an instance without a process.
                _ = self.orders.recv() => break,
                () = time::sleep(pause) => {}
            }
        }
        self.publish(&machine, None);
        self.update(|status| status.over = true);
    }

    /// Starts a process and stays with it to its end.
    async fn one_process(&mut self, machine: &mut Machine) -> Gone {
        machine.launched();
        // Before it is looked whether that begins paused: whoever pauses it sees one or the other.
        self.update(|status| status.launching = true);
        let launch = self.launch();
        let mut process = match self.world.start(&launch) {
            Ok(process) => process,
            Err(error) => {
                self.update(|status| status.launching = false);
                let program = launch.program.display();
                return Gone::Ended(Ended::Failed(format!("{program}: {}", chain(&error))));
            }
        };
        let pid = process.pid();
        self.publish(machine, Some(pid));
        self.update(|status| {
            status.launching = false;
            status.since = Some(Instant::now());
        });
        loop {
            // All arms are cancel-safe: a look that is cut short is taken again.
            tokio::select! {
                biased;
                ended = process.wait() => return Gone::Ended(ended),
                order = self.orders.recv() => {
                    self.end(process, machine, order.unwrap_or(Order::Kill)).await;
                    return Gone::Stopped;
                }
                health = look(&*self.world, self.place, machine.has_served()) => {
                    machine.probed(health, Instant::now());
                    self.publish(machine, Some(pid));
                }
            }
        }
    }

    /// Ends a process within the bound, sooner when a further order says so.
    async fn end(&mut self, mut process: W::Process, machine: &mut Machine, order: Order) {
        machine.draining();
        self.publish(machine, Some(process.pid()));
        match order {
            Order::Drain => process.drain(),
            Order::Kill => process.kill(),
        }
        let deadline = time::sleep(self.spec.drain_max);
        tokio::pin!(deadline);
        let mut killed = order == Order::Kill;
        loop {
            tokio::select! {
                biased;
                _ = process.wait() => return,
                order = self.orders.recv(), if !killed => {
                    if order != Some(Order::Drain) {
                        process.kill();
                        killed = true;
                    }
                }
                () = &mut deadline, if !killed => {
                    process.kill();
                    killed = true;
                }
            }
        }
    }

    /// Moves to a new place if the process lost a race for its port before it ever served.
    ///
    /// A port an instance has served at is kept: clients know it.
    fn lost_its_place(&mut self, machine: &Machine) -> bool {
        if machine.ever_served() || !self.world.taken(self.place) {
            return false;
        }
        let Some(place) = self
            .world
            .places(1)
            .ok()
            .and_then(|places| places.first().copied())
        else {
            return false;
        };
        self.place = self.spec.at(place);
        true
    }

    fn launch(&self) -> Launch {
        Launch {
            instance: self.id.to_string(),
            place: self.place,
            socket: self.spec.socket.clone(),
            program: self.spec.program.clone(),
            arguments: self.spec.arguments.clone(),
            environment: environment::of(&self.spec, self.place, *self.paused.borrow()),
            hidden: self.spec.hidden.clone(),
            folder: self.spec.folder.clone(),
        }
    }

    fn publish(&self, machine: &Machine, pid: Option<u32>) {
        let before = {
            let status = self.status.borrow();
            (status.state, status.pid, status.place, status.restarts)
        };
        let now = (machine.state(), pid, self.place, machine.restarts());
        if before == now {
            return;
        }
        self.update(|status| {
            (status.state, status.pid, status.place, status.restarts) = now;
            if pid.is_none() {
                status.since = None;
            }
            if status.state == State::Serving {
                status.hopeless = false;
            }
        });
    }

    fn update(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
        self.changes.send_modify(|count| *count += 1);
    }
}

/// Waits until the next look is due, and looks.
async fn look<W: World>(world: &W, place: Place, has_served: bool) -> Health {
    time::sleep(if has_served {
        LOOK_RUNNING
    } else {
        LOOK_STARTING
    })
    .await;
    world.probe(place).await
}

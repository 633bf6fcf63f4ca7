//! Keeps the processes of a system alive, and ends them in order.
//!
//! ```text
//! Supervisor ──Order──▶ Instance (a task each) ──▶ World: processes, ports, health
//!     │ ▲                   │
//!     │ └────Status (watch)─┘
//!     └─▶ Roster: who belongs to the system; changed by operations, one per service at a time
//! ```
//!
//! Every instance's task owns its process and its state; the supervisor only sends orders and
//! reads statuses. Who belongs to the system stands in the roster, behind a lock that is never held
//! across an await; whoever waits for something there is woken by a count of changes and looks
//! again, so that nothing is missed.

pub(crate) mod control;
mod environment;
mod instance;
pub(crate) mod logs;
mod machine;
mod operation;
mod roster;
pub(crate) mod system;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use gantry::shutdown::Tasks;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use self::{
    instance::{Instance, Order},
    roster::{Roster, Standing},
    world::Place,
};
pub(crate) use self::{
    instance::{Spec, Status},
    machine::State,
    operation::{Event, Fault, Operation, Step, Targets},
    roster::{Id, Marked},
    world::{Ended, Socket, World},
};
use crate::failure::Failure;

/// Orders an instance has not looked at yet; to drain, from an operation and from the end, and to
/// kill are all there can be.
const ORDERS: usize = 4;

/// How often free ports are asked for, where some belong to instances between two processes.
const PLACES_TRIES: usize = 8;

/// One line of `gantry ps`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The service.
    pub(crate) name: String,
    pub(crate) instance: String,
    pub(crate) state: State,
    /// How it is known in the registry; absent where it does not register, or does not say.
    #[serde(default)]
    pub(crate) registration: Option<String>,
    /// What stands in the way of that, or of taking it back.
    #[serde(default)]
    pub(crate) registration_error: Option<String>,
    pub(crate) address: String,
    pub(crate) side_address: String,
    /// Absent while it has no process.
    pub(crate) pid: Option<u32>,
    pub(crate) restarts: u32,
    pub(crate) uptime_seconds: u64,
    pub(crate) rss_bytes: u64,
}

/// An instance as the running `up` reports it to other commands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) row: Row,
    /// How its last process ended by itself.
    pub(crate) ended: Option<String>,
    /// Whether it is counted upon and will not serve without help.
    pub(crate) hopeless: bool,
    /// Whether it was told to end, and nobody counts on it any more.
    #[serde(default)]
    pub(crate) leaving: bool,
    /// Whether its next process begins paused.
    #[serde(default)]
    pub(crate) paused: bool,
}

/// An instance to follow.
#[derive(Debug)]
pub(crate) struct Listed {
    /// Tells it apart from others that have had its name.
    pub(crate) joined: u64,
    pub(crate) instance: String,
    pub(crate) status: watch::Receiver<Status>,
}

/// All instances of a system; clones share them.
#[derive(Debug)]
pub(crate) struct Supervisor<W: World> {
    shared: Arc<Shared<W>>,
}

impl<W: World> Clone for Supervisor<W> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

#[derive(Debug)]
struct Shared<W: World> {
    world: Arc<W>,
    specs: BTreeMap<String, Arc<Spec>>,
    /// The services in the order to drain them, in groups.
    order: Vec<Vec<String>>,
    tasks: Tasks,
    roster: Mutex<Roster>,
    /// Counts changes of the roster and of any instance's status.
    changes: watch::Sender<u64>,
}

/// Tells the roster when an instance's task ends, in whatever way.
#[derive(Debug)]
struct Over<W: World> {
    /// Not the instances keep the system, but the system the instances: they end with it.
    shared: Weak<Shared<W>>,
    id: Id,
}

impl<W: World> Drop for Over<W> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.roster().over(&self.id);
            shared.changed();
        }
    }
}

impl<W: World> Shared<W> {
    /// Never held across an await.
    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes those who wait for a change.
    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Free places that no instance holds, not even one between two processes.
    fn places(&self, count: usize) -> io::Result<Vec<Place>> {
        let mut places = self.world.places(count)?;
        for _ in 1..PLACES_TRIES {
            let of = |place: &Place| [place.address, place.side_address];
            let roster = self.roster();
            let held = roster.members().flat_map(|(_, member)| {
                let status = member.status.borrow();
                of(&status.place)
            });
            let held: BTreeSet<_> = held.collect();
            drop(roster);
            let mut addresses = places.iter().flat_map(of);
            if !addresses.any(|address| held.contains(&address)) {
                break;
            }
            places = self.world.places(count)?;
        }
        Ok(places)
    }

    /// Enters an instance, whose processes begin with their registrations `paused` or not; it
    /// lives from [`Shared::run`] on, which wants the roster unlocked.
    fn enter(
        &self,
        roster: &mut Roster,
        spec: &Arc<Spec>,
        place: Place,
        (standing, paused): (Standing, bool),
    ) -> Instance<W> {
        let place = spec.at(place);
        let (orders, inbox) = mpsc::channel(ORDERS);
        let (publish, status) = watch::channel(Instance::<W>::status_at(place));
        let (mark, pause) = watch::channel(paused);
        let id = roster.enter(&spec.service, standing, (orders, status), mark);
        Instance {
            id,
            spec: Arc::clone(spec),
            world: Arc::clone(&self.world),
            place,
            orders: inbox,
            paused: pause,
            status: publish,
            changes: self.changes.clone(),
        }
    }

    fn run(self: &Arc<Self>, entered: Vec<Instance<W>>) {
        for instance in entered {
            let over = Over {
                shared: Arc::downgrade(self),
                id: instance.id.clone(),
            };
            self.tasks.spawn("instance", async move {
                let _over = over;
                instance.run().await;
            });
        }
        self.changed();
    }
}

impl<W: World> Supervisor<W> {
    /// Gives every instance its place and starts them all at once. They will drain in `order`,
    /// which names every service.
    pub(crate) fn start(
        world: &Arc<W>,
        specs: Vec<Spec>,
        order: Vec<Vec<String>>,
        tasks: &Tasks,
    ) -> Result<Self, Failure> {
        let count = specs.iter().map(|spec| usize::from(spec.replicas)).sum();
        let mut places = world
            .places(count)
            .map_err(|error| Failure::failed(format!("find free ports: {error}")))?
            .into_iter();
        let specs = specs.into_iter().map(|spec| (spec.service.clone(), spec));
        let shared = Arc::new(Shared {
            world: Arc::clone(world),
            specs: specs.map(|(name, spec)| (name, Arc::new(spec))).collect(),
            order,
            tasks: tasks.clone(),
            roster: Mutex::default(),
            changes: watch::Sender::new(0),
        });
        let mut entered = Vec::new();
        for spec in shared.specs.values() {
            let mut roster = shared.roster();
            for place in places.by_ref().take(spec.replicas.into()) {
                let instance = shared.enter(&mut roster, spec, place, (Standing::Settled, false));
                entered.push(instance);
            }
        }
        shared.run(entered);
        Ok(Self { shared })
    }

    /// Waits until every instance that is counted upon serves.
    ///
    /// # Errors
    ///
    /// The first instance that will not, without somebody's help.
    pub(crate) async fn all_serving(&self) -> Result<(), Id> {
        let mut changes = self.changes();
        loop {
            changes.borrow_and_update();
            if self.shared.roster().all_serving()? {
                return Ok(());
            }
            // Never an error: we hold the sending side.
            let _ = changes.changed().await;
        }
    }

    /// Ends all instances, callers before what they call: each group is told when the one before
    /// has ended. Bounded by the instances' own bounds. From the first poll on none is added, and
    /// operations end.
    pub(crate) async fn drain(&self) {
        self.close();
        for group in &self.shared.order {
            self.end(Order::Drain, |id| group.contains(&id.service))
                .await;
        }
    }

    /// Ends all instances at once and waits until they have.
    pub(crate) async fn kill(&self) {
        self.close();
        self.end(Order::Kill, |_| true).await;
    }

    /// Keeps the roster as it is, but for those who leave.
    fn close(&self) {
        self.shared.roster().ending = true;
        self.shared.changed();
    }

    async fn end(&self, order: Order, which: impl Fn(&Id) -> bool) {
        for mut status in self.tell(order, which) {
            // An error means the task is gone, and its process with it.
            drop(status.wait_for(|status| status.over).await);
        }
    }

    fn tell(&self, order: Order, which: impl Fn(&Id) -> bool) -> Vec<watch::Receiver<Status>> {
        let roster = self.shared.roster();
        let members = roster.members().filter(|(id, _)| which(id));
        let told = members.map(|(_, member)| {
            // A full inbox holds the same order already.
            let _ = member.orders.try_send(order);
            member.status.clone()
        });
        told.collect()
    }

    /// The instances now, by service and number.
    pub(crate) fn reports(&self) -> Vec<Report> {
        let roster = self.shared.roster();
        let reports = roster.members().map(|(id, member)| {
            let status = member.status.borrow();
            let up = status.since.map(|since| Instant::now() - since);
            let row = Row {
                name: id.service.clone(),
                instance: id.to_string(),
                state: status.state,
                registration: None,
                registration_error: None,
                address: status.place.address.to_string(),
                side_address: status.place.side_address.to_string(),
                pid: status.pid,
                restarts: status.restarts,
                uptime_seconds: up.unwrap_or_default().as_secs(),
                rss_bytes: status.pid.map(system::rss_bytes).unwrap_or_default(),
            };
            Report {
                row,
                ended: status.ended.as_ref().map(ToString::to_string),
                hopeless: status.hopeless && member.standing == Standing::Settled,
                leaving: member.standing == Standing::Leaving,
                paused: *member.paused.borrow(),
            }
        });
        reports.collect()
    }

    /// Has every further process of an instance, and of its successors, begin with its
    /// registration paused, or not. A process that runs already is not told.
    ///
    /// # Errors
    ///
    /// Why not: there is no such instance, or it may be about to be replaced.
    pub(crate) fn pause(&self, instance: &str, paused: bool) -> Result<Marked, String> {
        self.shared.roster().pause(instance, paused)
    }

    /// The instances now, to follow.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let roster = self.shared.roster();
        let listed = roster.members().map(|(id, member)| Listed {
            joined: member.joined,
            instance: id.to_string(),
            status: member.status.clone(),
        });
        listed.collect()
    }

    /// Changes whenever an instance's status does, or the list of them.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }
}

#[cfg(test)]
mod tests;

//! Keeps the processes of a system alive, and ends them in order.
//!
//! ```text
//! Supervisor ──Order──▶ Instance (a task each) ──▶ World: processes, ports, health
//!     ▲                     │
//!     └──────Status (watch)─┘        Board (watch): who listens where, for callers
//! ```
//!
//! Every instance's task owns its process and its state; the supervisor only sends orders and
//! reads statuses. Instances of services that call others are started with those addresses and
//! started again when one of them moves.

pub(crate) mod control;
mod environment;
mod instance;
pub(crate) mod logs;
mod machine;
mod roster;
pub(crate) mod system;
mod world;

use std::{collections::BTreeMap, sync::Arc};

use gantry::shutdown::Tasks;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use self::{
    environment::Board,
    instance::{Instance, Order},
    roster::Id,
};
pub(crate) use self::{
    instance::{Spec, Status},
    machine::State,
    world::{Ended, World},
};
use crate::failure::Failure;

/// Orders an instance has not looked at yet; one to drain and one to kill are all there can be.
const ORDERS: usize = 4;

/// One line of `gantry ps`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The service.
    pub(crate) name: String,
    pub(crate) instance: String,
    pub(crate) state: State,
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
    /// Whether it will not serve without help.
    pub(crate) hopeless: bool,
}

/// All instances of a system.
#[derive(Debug, Clone)]
pub(crate) struct Supervisor {
    members: Arc<Vec<Member>>,
    changes: watch::Receiver<u64>,
}

#[derive(Debug)]
struct Member {
    id: Id,
    orders: mpsc::Sender<Order>,
    status: watch::Receiver<Status>,
}

impl Supervisor {
    /// Gives every instance its place and starts them all at once.
    pub(crate) fn start<W: World>(
        world: &Arc<W>,
        specs: Vec<Spec>,
        tasks: &Tasks,
    ) -> Result<Self, Failure> {
        let count = specs.iter().map(|spec| usize::from(spec.replicas)).sum();
        let places = world
            .places(count)
            .map_err(|error| Failure::failed(format!("find free ports: {error}")))?;
        let ids = specs.into_iter().flat_map(|spec| {
            let spec = Arc::new(spec);
            (1..=spec.replicas).map(move |number| {
                let service = spec.service.clone();
                (Id { service, number }, Arc::clone(&spec))
            })
        });
        let ids: Vec<_> = ids.collect();
        let board = Board::default();
        for ((id, _), place) in ids.iter().zip(&places) {
            board.put(id, place.address);
        }
        let changes = watch::Sender::new(0);
        let members = ids
            .into_iter()
            .zip(places)
            .map(|((id, spec), place)| {
                let (orders, inbox) = mpsc::channel(ORDERS);
                let (publish, status) = watch::channel(Instance::<W>::status_at(place));
                let instance = Instance {
                    id: id.clone(),
                    spec,
                    world: Arc::clone(world),
                    place,
                    board: board.clone(),
                    orders: inbox,
                    status: publish,
                    changes: changes.clone(),
                };
                tasks.spawn("instance", instance.run());
                Member { id, orders, status }
            })
            .collect();
        Ok(Self {
            members: Arc::new(members),
            changes: changes.subscribe(),
        })
    }

    /// Waits until every instance serves.
    ///
    /// # Errors
    ///
    /// The first instance that will not, without somebody's help.
    pub(crate) async fn all_serving(&self) -> Result<(), String> {
        let mut changes = self.changes.clone();
        loop {
            changes.borrow_and_update();
            let mut serving = true;
            for member in self.members.iter() {
                let status = member.status.borrow();
                if status.over || status.hopeless {
                    return Err(member.id.to_string());
                }
                serving &= status.state == State::Serving;
            }
            // No change can follow when all tasks are gone, and then all are over.
            if serving || changes.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Ends all instances, callers before what they call: each group is told when the one before
    /// has ended. Bounded by the instances' own bounds.
    pub(crate) async fn drain(&self, order: &[Vec<String>]) {
        for group in order {
            let members = self
                .members
                .iter()
                .filter(|member| group.contains(&member.id.service));
            let members: Vec<_> = members.collect();
            for member in &members {
                // A full inbox holds the same order already.
                let _ = member.orders.try_send(Order::Drain);
            }
            for member in members {
                let mut status = member.status.clone();
                // An error means the task is gone, and its process with it.
                drop(status.wait_for(|status| status.over).await);
            }
        }
    }

    /// Ends all instances at once and waits until they have.
    pub(crate) async fn kill(&self) {
        for member in self.members.iter() {
            let _ = member.orders.try_send(Order::Kill);
        }
        for member in self.members.iter() {
            let mut status = member.status.clone();
            drop(status.wait_for(|status| status.over).await);
        }
    }

    /// The instances now, in the order of `gantry.toml`'s names.
    pub(crate) fn reports(&self) -> Vec<Report> {
        let report = |member: &Member| {
            let status = member.status.borrow();
            let up = status.since.map(|since| Instant::now() - since);
            let row = Row {
                name: member.id.service.clone(),
                instance: member.id.to_string(),
                state: status.state,
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
                hopeless: status.hopeless,
            }
        };
        self.members.iter().map(report).collect()
    }

    /// The statuses of all instances, to follow.
    pub(crate) fn statuses(&self) -> BTreeMap<String, watch::Receiver<Status>> {
        self.members
            .iter()
            .map(|member| (member.id.to_string(), member.status.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests;

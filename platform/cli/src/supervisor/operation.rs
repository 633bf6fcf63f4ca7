//! What operations on a running system are made of: the steps, the bounds, and what the asker
//! hears of them.
//!
//! An operation is a future that is driven to its end whether or not its asker still listens, so
//! every step either takes place or is undone. When the system ends, operations end with
//! [`Fault::ending`] at once and leave what they have started to the end itself.

mod restart;
mod scale;

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc,
    time::{self, Instant},
};

use super::{
    Supervisor,
    roster::{Id, Roster, Standing, busy},
    world::World,
};
use crate::failure::nearest;

/// Steps the asker may be behind; after that the operation waits for it.
const EVENTS: usize = 16;

/// How long an instance may take to be gone after its own bound is over and it was killed.
const KILL_MAX: Duration = Duration::from_secs(5);

/// What the running system can be made to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Operation {
    /// Run this many instances of each service.
    Scale {
        /// Services by name, and how many instances.
        counts: Vec<(String, u16)>,
        /// How long those that are started may take to serve, all together.
        timeout: Duration,
    },
    /// Replace instances, one after the other.
    Restart {
        /// Which.
        targets: Targets,
        /// How long each successor may take to serve.
        timeout: Duration,
    },
}

/// Which instances are replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Targets {
    /// Services and instances by name, in this order.
    Named(Vec<String>),
    /// Every service, callees before their callers.
    All,
}

/// A step of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) instance: String,
    pub(crate) step: Step,
}

/// What happened to an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Step {
    /// It was started.
    Starts,
    /// It serves.
    Serves,
    /// It did not come to serve, for this reason.
    Fails(String),
    /// It was told to end.
    Drains,
    /// It has ended, and is forgotten.
    Gone,
}

/// Why an operation was refused, or did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fault {
    /// Whether what was asked for is wrong; trying again will not help.
    pub(crate) usage: bool,
    pub(crate) text: String,
    /// Whose last words say more.
    pub(crate) instance: Option<String>,
}

impl Fault {
    fn usage(text: impl Into<String>) -> Self {
        Self {
            usage: true,
            ..Self::failed(text)
        }
    }

    fn failed(text: impl Into<String>) -> Self {
        Self {
            usage: false,
            text: text.into(),
            instance: None,
        }
    }

    fn ending() -> Self {
        Self::failed("`gantry up` is ending, and this with it")
    }

    /// Instances that were started and removed again; `kept` says what that leaves.
    fn undone(failed: &[(Id, String)], kept: &str) -> Self {
        let texts = failed.iter().map(|(id, how)| format!("{id} {how}"));
        let texts: Vec<_> = texts.collect();
        Self {
            instance: failed.first().map(|(id, _)| id.to_string()),
            ..Self::failed(format!("{}; {kept}", texts.join(", ")))
        }
    }
}

/// Tells the asker how an operation goes.
#[derive(Debug)]
pub(crate) struct Progress {
    events: mpsc::Sender<Event>,
}

impl Progress {
    /// What is told, and where it is heard; dropping the receiver is no longer asking.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Event>) {
        let (events, heard) = mpsc::channel(EVENTS);
        (Self { events }, heard)
    }

    async fn tell(&self, id: &Id, step: Step) {
        let instance = id.to_string();
        // An asker that has left misses nothing.
        let _ = self.events.send(Event { instance, step }).await;
    }

    /// Whether nobody asks any more.
    fn abandoned(&self) -> bool {
        self.events.is_closed()
    }
}

/// Services reserved for one operation, until this is dropped.
#[derive(Debug)]
struct Claim<W: World> {
    supervisor: Supervisor<W>,
    services: BTreeSet<String>,
}

impl<W: World> Drop for Claim<W> {
    fn drop(&mut self) {
        self.supervisor.shared.roster().release(&self.services);
    }
}

impl<W: World> Supervisor<W> {
    /// Carries out an operation. Must be driven to its end: dropped, it leaves off between two
    /// steps.
    pub(crate) async fn operate(
        &self,
        operation: Operation,
        progress: Progress,
    ) -> Result<(), Fault> {
        match operation {
            Operation::Scale { counts, timeout } => self.scale(&counts, timeout, &progress).await,
            Operation::Restart { targets, timeout } => {
                self.restart(&targets, timeout, &progress).await
            }
        }
    }

    /// Reserves services: there is one operation at a time on each.
    fn claim(&self, services: BTreeSet<String>) -> Result<Claim<W>, Fault> {
        let claimed = self.shared.roster().claim(&services);
        claimed.map_err(|taken| Fault::failed(busy(&taken)))?;
        Ok(Claim {
            supervisor: self.clone(),
            services,
        })
    }

    fn unknown(&self, what: &str, name: &str) -> Fault {
        let near = nearest(name, self.shared.specs.keys().map(String::as_str));
        Fault::usage(format!("no {what} \"{name}\"{near}"))
    }

    /// Starts further instances of a service, to be settled or told to leave. A successor `of` an
    /// instance is paused where that is.
    fn join(&self, service: &str, count: usize, of: Option<&Id>) -> Result<Vec<Id>, Fault> {
        let spec = self.shared.specs.get(service);
        let spec = spec.ok_or_else(|| self.unknown("service", service))?;
        let places = self.shared.places(count);
        let places = places.map_err(|error| Fault::failed(format!("find free ports: {error}")))?;
        let mut roster = self.shared.roster();
        if roster.ending {
            return Err(Fault::ending());
        }
        let standing = (Standing::Joining, of.is_some_and(|id| roster.is_paused(id)));
        let entered: Vec<_> = places
            .into_iter()
            .map(|place| self.shared.enter(&mut roster, spec, place, standing))
            .collect();
        drop(roster);
        let ids = entered.iter().map(|instance| instance.id.clone());
        let ids = ids.collect();
        self.shared.run(entered);
        Ok(ids)
    }

    /// Waits until each of `ids` serves or will not; returns those that do not, and how.
    async fn come_up(
        &self,
        ids: &[Id],
        timeout: Duration,
        progress: &Progress,
    ) -> Result<Vec<(Id, String)>, Fault> {
        let deadline = Instant::now() + timeout;
        let mut failed = Vec::new();
        let mut open = ids.to_vec();
        for id in ids {
            progress.tell(id, Step::Starts).await;
        }
        while !open.is_empty() {
            let next = self.until(|roster| {
                let mut verdicts = open.iter().enumerate();
                verdicts.find_map(|(at, id)| Some((at, roster.verdict(id)?)))
            });
            let Ok(next) = time::timeout_at(deadline, next).await else {
                for id in open.drain(..) {
                    let timeout = humantime::format_duration(timeout);
                    let how = format!("does not serve after {timeout}");
                    progress.tell(&id, Step::Fails(how.clone())).await;
                    failed.push((id, how));
                }
                break;
            };
            let (at, verdict) = next?;
            let id = open.remove(at);
            match verdict {
                Ok(()) => progress.tell(&id, Step::Serves).await,
                Err(how) => {
                    progress.tell(&id, Step::Fails(how.clone())).await;
                    failed.push((id, how));
                }
            }
        }
        Ok(failed)
    }

    /// Counts upon instances from now on, and lets callers know them.
    fn settle(&self, ids: &[Id]) {
        let mut roster = self.shared.roster();
        for id in ids {
            roster.settle(id);
        }
        drop(roster);
        self.shared.changed();
    }

    /// Tells instances to drain, unless the end of the system will: that has an order of its own.
    fn leave(&self, ids: &[Id]) -> Result<(), Fault> {
        let mut roster = self.shared.roster();
        if roster.ending {
            return Err(Fault::ending());
        }
        for id in ids {
            roster.leave(id);
        }
        drop(roster);
        self.shared.changed();
        Ok(())
    }

    /// Waits until instances that were told to leave have.
    async fn gone(&self, ids: &[Id], progress: &Progress) -> Result<(), Fault> {
        for id in ids {
            progress.tell(id, Step::Drains).await;
        }
        let bounds = ids.iter().filter_map(|id| {
            let spec = self.shared.specs.get(&id.service)?;
            Some(spec.drain_max)
        });
        let bound = bounds.max().unwrap_or_default() + KILL_MAX;
        let deadline = Instant::now() + bound;
        let mut open = ids.to_vec();
        while !open.is_empty() {
            let next = self.until(|roster| open.iter().position(|id| !roster.has(id)));
            let next = time::timeout_at(deadline, next).await;
            let at = next.map_err(|_| {
                let bound = humantime::format_duration(bound);
                Fault::failed(format!("{} is not gone after {bound}", open[0]))
            })??;
            progress.tell(&open.remove(at), Step::Gone).await;
        }
        Ok(())
    }

    /// Waits until `look` finds something in the roster.
    async fn until<T>(&self, mut look: impl FnMut(&Roster) -> Option<T>) -> Result<T, Fault> {
        let mut changes = self.shared.changes.subscribe();
        loop {
            changes.borrow_and_update();
            {
                let roster = self.shared.roster();
                if roster.ending {
                    return Err(Fault::ending());
                }
                if let Some(found) = look(&roster) {
                    return Ok(found);
                }
            }
            // Never an error: we hold the sending side.
            let _ = changes.changed().await;
        }
    }
}

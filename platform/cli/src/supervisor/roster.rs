//! Who belongs to a running system: its instances by service and number, as a plain table. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use super::{
    instance::{Order, Status},
    machine::State,
};

/// The name of an instance: `orders-1` is number 1 of `orders`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    /// The service.
    pub(crate) service: String,
    /// From 1; the number of an instance that is gone is given out again.
    pub(crate) number: u16,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.service, self.number)
    }
}

/// How an instance belongs to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is tried out: an operation decides whether it stays.
    Joining,
    /// It is counted upon.
    Settled,
    /// It was told to end, and is forgotten once it has.
    Leaving,
}

/// One instance, as others see it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) standing: Standing,
    /// Counts up with every instance that joins, so that it tells two of one name apart.
    pub(super) joined: u64,
    /// Whether its next process begins with its registration paused.
    pub(super) paused: watch::Sender<bool>,
    /// Whether its task has ended.
    over: bool,
}

/// An instance whose further processes begin with their registrations paused, or not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marked {
    /// How it was before.
    pub(crate) before: bool,
    /// Whether it has a process, which may have begun as it was before.
    pub(crate) running: bool,
}

/// All instances, and whether more may come.
#[derive(Debug, Default)]
pub(super) struct Roster {
    members: BTreeMap<Id, Member>,
    joined: u64,
    /// Services an operation is at work on.
    claimed: BTreeSet<String>,
    /// Whether the system ends: nobody joins, and the end itself tells everybody to leave.
    pub(super) ending: bool,
}

impl Member {
    /// What a started instance has come to; `None` while that is open.
    fn verdict(&self) -> Option<Result<(), String>> {
        let status = self.status.borrow();
        if status.state == State::Serving {
            return Some(Ok(()));
        }
        (self.over || status.over || status.hopeless).then(|| {
            let ended = status.ended.as_ref();
            Err(ended.map_or_else(|| "did not start".to_owned(), ToString::to_string))
        })
    }
}

/// Why a service cannot be changed while an operation is at work on it.
pub(super) fn busy(service: &str) -> String {
    format!(
        "{service} is being changed by another `gantry scale` or `gantry restart`; \
         try again when that has ended"
    )
}

impl Roster {
    /// Enters a new instance of `service` under its lowest free number.
    pub(super) fn enter(
        &mut self,
        service: &str,
        standing: Standing,
        (orders, status): (mpsc::Sender<Order>, watch::Receiver<Status>),
        paused: watch::Sender<bool>,
    ) -> Id {
        let id = |number| Id {
            service: service.to_owned(),
            number,
        };
        let mut free = (1..=u16::MAX).map(id);
        let free = free.find(|id| !self.members.contains_key(id));
        let id = free.expect("there are more numbers than instances");
        self.joined += 1;
        let member = Member {
            orders,
            status,
            standing,
            joined: self.joined,
            paused,
            over: false,
        };
        self.members.insert(id.clone(), member);
        id
    }

    /// Sets whether further processes of an instance begin paused.
    ///
    /// Not while an operation is at work on its service: a successor that is there already began
    /// as the old one was then.
    pub(super) fn pause(&mut self, instance: &str, paused: bool) -> Result<Marked, String> {
        let mut members = self.members.iter();
        let (id, member) = members
            .find(|(id, _)| id.to_string() == instance)
            .ok_or_else(|| format!("{instance} is gone"))?;
        if self.claimed.contains(&id.service) {
            return Err(busy(&id.service));
        }
        let before = member.paused.send_replace(paused);
        // Looked at after that: a process that begins later begins as is wanted. One that is just
        // beginning may have looked before.
        let status = member.status.borrow();
        let running = status.pid.is_some() || status.launching;
        Ok(Marked { before, running })
    }

    /// Whether further processes of an instance begin paused.
    pub(super) fn is_paused(&self, id: &Id) -> bool {
        self.members.get(id).is_some_and(|it| *it.paused.borrow())
    }

    /// Counts upon an instance from now on.
    pub(super) fn settle(&mut self, id: &Id) {
        if let Some(member) = self.members.get_mut(id) {
            member.standing = Standing::Settled;
        }
    }

    /// Tells an instance to finish what it has and end, and counts on it no more.
    pub(super) fn leave(&mut self, id: &Id) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        if member.over {
            self.members.remove(id);
            return;
        }
        member.standing = Standing::Leaving;
        // A full inbox holds the same order already.
        let _ = member.orders.try_send(Order::Drain);
    }

    /// Notes that the task of an instance has ended; forgets it if that was to be.
    pub(super) fn over(&mut self, id: &Id) {
        if let Some(member) = self.members.get_mut(id) {
            member.over = true;
            if member.standing == Standing::Leaving {
                self.members.remove(id);
            }
        }
    }

    /// Reserves `services` for one operation, or names the first that is.
    pub(super) fn claim(&mut self, services: &BTreeSet<String>) -> Result<(), String> {
        if let Some(taken) = services.intersection(&self.claimed).next() {
            return Err(taken.clone());
        }
        self.claimed.extend(services.iter().cloned());
        Ok(())
    }

    pub(super) fn release(&mut self, services: &BTreeSet<String>) {
        self.claimed.retain(|claimed| !services.contains(claimed));
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (&Id, &Member)> {
        self.members.iter()
    }

    pub(super) fn has(&self, id: &Id) -> bool {
        self.members.contains_key(id)
    }

    /// The instances of `service` that are counted upon, the oldest first.
    pub(super) fn settled(&self, service: &str) -> Vec<Id> {
        let settled = self
            .members()
            .filter(|(id, member)| id.service == service && member.standing == Standing::Settled);
        let mut settled: Vec<_> = settled.collect();
        settled.sort_by_key(|(_, member)| member.joined);
        settled.into_iter().map(|(id, _)| id.clone()).collect()
    }

    /// What a started instance has come to; `None` while that is open.
    pub(super) fn verdict(&self, id: &Id) -> Option<Result<(), String>> {
        match self.members.get(id) {
            Some(member) => member.verdict(),
            None => Some(Err("is gone".to_owned())),
        }
    }

    /// The first instance counted upon that will not serve without somebody's help; else whether
    /// all of them serve.
    pub(super) fn all_serving(&self) -> Result<bool, Id> {
        let mut serving = true;
        for (id, member) in self.members() {
            if member.standing == Standing::Settled {
                match member.verdict() {
                    Some(Ok(())) => {}
                    Some(Err(_)) => return Err(id.clone()),
                    None => serving = false,
                }
            }
        }
        Ok(serving)
    }
}

//! Which types of events a group has: those that any of its instances handles.
//!
//! Instances of two versions may handle different ones, so none lets go by itself of what it does not
//! know. Each shows with its signs of life what it handles, before it tells the broker. Whenever others
//! come or go, or show something else, each has the broker add what all of them want. What nobody wants
//! is let go of by one instance, when nothing has changed for long: one that stands still shows nothing,
//! and one that is started again is not there for a moment, and either would miss what comes meanwhile.
//!
//! Who lets go sees nobody who comes at the same time; but sees that one at its next look, and has the
//! broker add what it handles.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{self, Instant},
};

use super::{
    pauses,
    shares::View,
    shown::{Shown, Where},
};
use crate::broker::{Broker, BrokerError, Group};

/// What a group wants of its broker.
#[derive(Debug)]
pub(crate) struct Wants {
    /// As this instance has it.
    own: Group,
    state: Mutex<State>,
    /// Told when there is something to tell.
    changed: Notify,
}

/// What the broker is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    /// To add what is wanted.
    Add,
    /// To have the group want nothing else.
    LetGo,
}

#[derive(Debug)]
struct State {
    members: BTreeSet<String>,
    topics: BTreeSet<String>,
    /// Since when both are as they are.
    since: Instant,
    /// Whether that was let go of which these do not want.
    let_go: bool,
    telling: Option<Telling>,
    /// Counts what is to be told.
    count: u64,
}

impl State {
    fn tell(&mut self, telling: Telling) {
        self.telling = Some(telling);
        self.count += 1;
    }
}

impl Wants {
    /// As one instance has it that has seen no other.
    pub(crate) fn new(own: Group) -> Self {
        Self {
            state: Mutex::new(State {
                members: BTreeSet::new(),
                topics: own.topics.iter().cloned().collect(),
                since: Instant::now(),
                let_go: false,
                telling: Some(Telling::Add),
                count: 0,
            }),
            changed: Notify::new(),
            own,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How things stood at a look.
    pub(crate) fn seen(&self, view: &View, let_go_after: Duration) {
        let mut state = self.state();
        let topics = self.own.topics.iter().chain(&view.topics).cloned();
        let topics: BTreeSet<_> = topics.collect();
        if state.members != view.members || state.topics != topics {
            state.members.clone_from(&view.members);
            state.topics = topics;
            state.since = Instant::now();
            state.let_go = false;
            state.tell(Telling::Add);
        }
        let settled = state.since.elapsed() >= let_go_after;
        if view.is_first && settled && !state.let_go && state.telling.is_none() {
            state.let_go = true;
            state.tell(Telling::LetGo);
        }
        let is_any = state.telling.is_some();
        drop(state);
        if is_any {
            self.changed.notify_one();
        }
    }

    fn group_of(&self, state: &State) -> Group {
        Group {
            topics: state.topics.iter().cloned().collect(),
            ..self.own.clone()
        }
    }

    /// The group, as all of its instances want it.
    pub(crate) fn group(&self) -> Group {
        self.group_of(&self.state())
    }

    /// Tells the broker what there is to tell. Dropped meanwhile, it is told the next time.
    ///
    /// # Errors
    ///
    /// If the broker does not do it: it is told the next time.
    pub(crate) async fn tell_once(&self, broker: &dyn Broker) -> Result<(), BrokerError> {
        let (telling, count, group) = {
            let state = self.state();
            (state.telling, state.count, self.group_of(&state))
        };
        let told = match telling {
            None => return Ok(()),
            Some(Telling::Add) => broker.declare(&group).await,
            Some(Telling::LetGo) => broker.narrow(&group).await,
        };
        let mut state = self.state();
        if told.is_err() {
            // It may come about all the same, and when it is not meant any more.
            state.let_go = false;
            state.since = Instant::now();
            state.tell(Telling::Add);
        } else if state.count == count {
            state.telling = None;
        }
        told
    }

    /// Tells the broker whatever is to be told, for as long as it is polled.
    pub(crate) async fn tell(&self, broker: &dyn Broker, shown: &Shown) {
        let mut pauses = pauses();
        loop {
            match self.tell_once(broker).await {
                Ok(()) => {
                    shown.fine(Where::Topics);
                    pauses = super::pauses();
                    self.changed.notified().await;
                }
                Err(error) => {
                    shown.broker(Where::Topics, &error);
                    time::sleep(pauses.next_pause()).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

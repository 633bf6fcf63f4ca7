//! Takes events from a broker; each has its effect once.
//!
//! ```text
//! Consumer ─ on(handler) ─ start ─▶ instance ─ shares partitions with others ─▶ Partition
//!                                      └─ pauses while its service is not ready
//! ```
//!
//! The note that an event is done (the *inbox*) is in the transaction of its effect, and the broker is
//! told after the commit: an event that comes again is known. One that fails is tried again a moment
//! later, then put off for longer and longer, and becomes a dead letter when its attempts are used up.
//! Those of its key behind it wait for it. For a short time it is put off at hand: nobody is told, and
//! it keeps its place. For longer the broker has it, and it is noted in the same database that it is
//! *held*, as it comes again behind those that wait for it.
//!
//! Instances share the partitions of a consumer by leases in their database; see [`shares`]. What an
//! instance writes carries the fence of its lease, so of a key two never have effects at once. Instances
//! of two versions may handle different types of events; see [`wants`].

mod clock;
mod config;
mod facts;
mod handler;
mod inbox;
mod instance;
mod lanes;
mod letter;
mod partition;
mod shares;
mod shown;
mod telemetry;
mod wants;
mod work;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use gantry::{
    backoff::{self, Backoff},
    config::Live,
};
use tokio::sync::Semaphore;

pub use config::Config;
pub use handler::{Attempt, Event, Failure, Handle, HandleFn, Received};
pub(crate) use inbox::MIGRATIONS;

use crate::{
    Events,
    broker::{Broker, Group},
};
use handler::{Decode, Typed};
use inbox::Inbox;
pub(crate) use instance::{Instance, Process};
use shares::Shares;
pub(crate) use shown::Shown;
use telemetry::Metrics;
use wants::Wants;

/// What a consumer is made of, before it starts.
#[must_use = "a consumer does nothing before it is started"]
pub struct Consumer<'a> {
    events: &'a Events,
    name: &'static str,
    handlers: BTreeMap<String, Arc<dyn Decode>>,
    in_sequence: bool,
}

impl fmt::Debug for Consumer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("name", &self.name)
            .field("topics", &self.handlers.keys())
            .finish_non_exhaustive()
    }
}

impl<'a> Consumer<'a> {
    pub(crate) fn new(events: &'a Events, name: &'static str) -> Self {
        Self {
            events,
            name,
            handlers: BTreeMap::new(),
            in_sequence: false,
        }
    }

    /// Has events of type `E` handled by `handler`, an async function or whatever else is a [`Handle`].
    ///
    /// # Panics
    ///
    /// If events of this type are handled already.
    pub fn on<E: Event>(mut self, handler: impl Handle<E>) -> Self {
        let topic = E::full_name();
        let handler = Arc::new(Typed::<E, _>::new(handler));
        let before = self.handlers.insert(topic.clone(), handler);
        assert!(before.is_none(), "two handlers of {topic}");
        self
    }

    /// Says that its handlers take every type of event that there is for their keys. Then sequences have
    /// no gaps, and an event that comes before its predecessor, as from a broker that does not keep the
    /// order, waits for it: `gap_wait` at most, as those from before the consumer was there never come.
    /// What is done is noted for each key.
    pub fn in_sequence(mut self) -> Self {
        self.in_sequence = true;
        self
    }

    /// Begins to consume as soon as the service is ready, until the process drains. The broker is told of
    /// the group before.
    ///
    /// # Panics
    ///
    /// If a consumer of this name was started already.
    pub fn start(self) {
        let (events, name) = (self.events, self.name);
        let (all, shares) = self.made();
        events.show(Arc::clone(&all.shown));
        events.run(name, |process| Instance {
            shared: Arc::new(all),
            shares,
            process,
        });
    }

    /// What its partitions share, and the shares of its instances; nothing is begun.
    fn made(self) -> (Shared, Shares) {
        let Self {
            events,
            name,
            handlers,
            in_sequence,
        } = self;
        let config = events.config.map(|config| &config.consumer);
        let settings = config.load();
        let group = Group {
            name: format!("{}.{name}", events.service),
            partitions: settings.partitions,
            topics: handlers.keys().cloned().collect(),
            queue_messages_max: None,
        };
        let label: Arc<str> = group.name.as_str().into();
        let shown = Arc::new(Shown::new(&label, events.journal()));
        let system = events.broker.system();
        let metrics = Metrics::new(system, label, handlers.keys(), Arc::clone(&shown));
        let inbox = Inbox::new(events.database.clone(), name);
        let shares = Shares::new(
            events.database.clone(),
            name,
            &events.instance,
            (settings.partitions, &group.topics),
            settings.lease,
        );
        let all = Shared {
            inbox,
            broker: Arc::clone(&events.broker),
            prefetch: settings.prefetch,
            places: Semaphore::new(settings.handlers_max),
            metrics: Arc::new(metrics),
            shown,
            config,
            wants: Wants::new(group.clone()),
            group,
            handlers,
            in_sequence,
        };
        (all, shares)
    }
}

/// What all partitions of a consumer share.
struct Shared {
    group: Group,
    wants: Wants,
    inbox: Inbox,
    broker: Arc<dyn Broker>,
    handlers: BTreeMap<String, Arc<dyn Decode>>,
    config: Live<Config>,
    prefetch: u16,
    /// Whether every type of event of a key comes here.
    in_sequence: bool,
    /// For what is handled at once.
    places: Semaphore,
    metrics: Arc<Metrics>,
    shown: Arc<Shown>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("group", &self.group.name)
            .finish_non_exhaustive()
    }
}

/// Pauses between tries at what is away.
fn pauses() -> Backoff {
    let pauses = backoff::Config {
        min: Duration::from_millis(50),
        max: Duration::from_secs(5),
        multiplier: 2.0,
        jitter: 0.2,
    };
    Backoff::new(pauses).expect("the pauses are above zero and grow")
}

#[cfg(test)]
mod tests;

//! Which endpoint takes a call.
//!
//! A [`Balancer`] holds the endpoints of one target, connected, and picks among those that are
//! ready: two at random, the cheaper one wins (power of two choices). The cost is the endpoint's
//! recent latency times its calls in flight, or these alone where two are about as fast, so that
//! replicas of one kind share alike however few calls there are. An endpoint that fails fast is
//! charged a penalty instead of its latency, so that failing attracts no calls. One that is ready
//! again after its connections failed begins anew, as one that was never measured: one call at a
//! time until it has answered. One that was slow or failed, and got no call for a while since, gets
//! one now and then to find out whether it still does.
//!
//! Picking reads one snapshot and a few atomics and takes no lock. Everything that changes (the
//! resolver's list, an endpoint's state) goes through one task, which publishes a new snapshot.
//!
//! What is held against an endpoint:
//!
//! | what | why | for how long |
//! | --- | --- | --- |
//! | its breaker is open | it failed calls in a row, or most of them | a pause, then one call finds out |
//! | it is ejected | it fails more than others do | 30 s, longer each time |
//! | it is new, or was out | what is cold takes less | its share grows for 30 s |
//! | it is in another zone | the way there is longer | always: it counts for half |
//!
//! Where fewer than half of the endpoints are left, the first two are passed over, and so are zones:
//! better to try those than to overload the rest. That is called panic, as elsewhere.
//!
//! Of a long list a process connects to a part, which is its own; of another, to every endpoint at
//! once. One that its registry lists no longer, but may have lost by mistake, serves for as long as
//! its connection does.

mod config;
mod endpoint;
mod gate;
mod hand;
mod keeper;
mod load;
mod outlier;
mod panic;
mod pick;
mod set;
mod slow_start;
mod subset;
mod zone;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::{self, Instant},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{hand::Hand, set::Set};
use crate::{
    breaker,
    config::Live,
    discovery::{Attributes, Resolution, Resolve},
    journal::Journal,
    transport::subchannel::{self, Connectivity, Slot},
};

pub use self::{
    config::{Config, SlowStart},
    endpoint::Picked,
    gate::GateState,
    hand::NotSet,
    outlier::{Config as OutlierConfig, Ejected, Reason},
};

/// What a [`Balancer`] needs to know about its target.
#[derive(Debug)]
pub struct Builder {
    /// The name under which people know the target.
    pub name: Arc<str>,
    /// What requests name as their authority; each endpoint's address, where there is none.
    pub authority: Option<http::uri::Authority>,
    /// How long calls wait for a ready endpoint, counted from when there was none.
    pub fail_fast: Duration,
    /// How endpoints are connected.
    pub common: subchannel::Common,
    /// Where changes are written.
    pub journal: Journal,
    /// Which of the endpoints are connected, and how calls are spread over them.
    pub config: Live<Config>,
    /// Where this process runs, if that is known.
    pub zone: Option<Arc<str>>,
    /// By which this process takes its part of a list; see [`Builder::process_seed`].
    pub seed: u64,
}

impl Builder {
    /// The seed of this process: another one in each, so that not all take the same part.
    #[must_use]
    pub fn process_seed() -> u64 {
        subset::seed()
    }
}

/// The connected endpoints of one target; clones share them.
#[derive(Debug, Clone)]
pub struct Balancer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: Arc<str>,
    fail_fast: Duration,
    set: arc_swap::ArcSwap<Set>,
    hand: Arc<Hand>,
    /// Wakes calls that wait for an endpoint.
    published: Notify,
    /// Ends the task when the last handle goes.
    _gone: DropGuard,
}

/// How often a call that is in line at one endpoint looks whether another has room.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Where a call came to a place.
enum Placed {
    There(Slot),
    Elsewhere(Picked, Slot),
}

/// Why no endpoint took a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    /// None is ready, for as long as calls wait.
    #[error("{target}: no endpoint is ready: {detail}")]
    NotReady {
        /// The target.
        target: Arc<str>,
        /// The endpoints and what is wrong with them.
        detail: String,
    },
    /// The one that is has too many calls in line.
    #[error("{target}: {endpoint} has too many calls in line")]
    Full {
        /// The target.
        target: Arc<str>,
        /// The endpoint.
        endpoint: SocketAddr,
    },
}

/// One endpoint as seen at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What the resolver knows about it.
    pub attributes: Attributes,
    /// Whether it can be used.
    pub connectivity: Connectivity,
    /// Since when.
    pub since: Instant,
    /// What went wrong last, if it is not ready.
    pub error: Option<Arc<str>>,
    /// Connections that take calls.
    pub connections: usize,
    /// Calls in flight.
    pub pending: usize,
    /// The latency it is judged by; none before the first answer.
    pub latency: Option<Duration>,
    /// Why it gets no calls for a while and until when, if it is ejected.
    pub ejected: Option<Ejected>,
    /// Where its breaker stands.
    pub breaker: GateState,
    /// The share of calls it is to have now, 1 being ordinary.
    pub weight: f32,
}

impl Balancer {
    /// Starts to follow `name` at `resolver` and to connect what it lists, in a task of its own;
    /// returns at once.
    #[must_use]
    pub fn start(builder: Builder, resolver: Arc<dyn Resolve>, name: &str) -> Self {
        let resolutions = resolver.resolve(name);
        let name = name.to_owned();
        Self::follow(builder, resolutions, move || resolver.refresh(&name))
    }

    /// As [`Balancer::start`], for a list that never changes.
    #[must_use]
    pub fn constant(builder: Builder, resolution: Resolution) -> Self {
        let (_, resolutions) = watch::channel(resolution);
        Self::follow(builder, resolutions, || {})
    }

    fn follow(
        builder: Builder,
        resolutions: watch::Receiver<Resolution>,
        refresh: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let gone = CancellationToken::new();
        let hand = Arc::new(Hand::new(Arc::clone(&builder.common.on_change)));
        let shared = Arc::new(Shared {
            name: Arc::clone(&builder.name),
            fail_fast: builder.fail_fast,
            set: arc_swap::ArcSwap::from_pointee(Set::empty()),
            hand: Arc::clone(&hand),
            published: Notify::new(),
            _gone: gone.clone().drop_guard(),
        });
        let tasks = builder.common.tasks.clone();
        // Weak, so that the last call or channel that goes ends the task.
        let weak = Arc::downgrade(&shared);
        let keeper = keeper::Keeper::new(builder, weak, hand, gone, Box::new(refresh));
        tasks.spawn("endpoints", keeper.run(resolutions));
        Self { shared }
    }

    /// A place for one call at the best endpoint that is ready. While none is, the call waits no
    /// longer than the fail-fast bound, counted from when it finds none or from the moment since
    /// which none is ready, whichever is earlier. Where all are full it waits in line at one of them,
    /// until that or another has room, bounded by the caller's deadline. Dropping the future leaves every line.
    ///
    /// # Errors
    ///
    /// If no endpoint became ready, naming each and what is wrong with it.
    pub async fn place(&self) -> Result<(Picked, Slot), NoEndpoint> {
        self.place_elsewhere(&[], Instant::now()).await
    }

    /// As [`Balancer::place`], for a call that begins to look for one at `now`, at an endpoint that is
    /// not among `tried` where another one is ready.
    ///
    /// # Errors
    ///
    /// As [`Balancer::place`].
    pub async fn place_elsewhere(
        &self,
        tried: &[SocketAddr],
        now: Instant,
    ) -> Result<(Picked, Slot), NoEndpoint> {
        let mut picked = {
            let set = self.shared.set.load();
            match tried {
                [] => set.pick(now),
                _ => set.pick_elsewhere(now, tried),
            }
        };
        loop {
            let chosen = match picked {
                Some(chosen) => chosen,
                None => self.wait().await?,
            };
            if let Some(slot) = chosen.free_slot() {
                return Ok((chosen, slot));
            }
            // In a box: nearly no call waits, and each would carry it.
            let placed = Box::pin(self.in_line(&chosen, tried)).await;
            match placed {
                Ok(Placed::There(slot)) => return Ok((chosen, slot)),
                Ok(Placed::Elsewhere(other, slot)) => {
                    chosen.unsent();
                    return Ok((other, slot));
                }
                // It left since the snapshot, or while this call was in line: another one, then.
                Err(subchannel::NoSlot::Gone) => chosen.unsent(),
                Err(subchannel::NoSlot::Full) => {
                    let endpoint = chosen.addr();
                    chosen.unsent();
                    return Err(NoEndpoint::Full {
                        target: Arc::clone(&self.shared.name),
                        endpoint,
                    });
                }
            }
            picked = self.pick_ready();
        }
    }

    /// A place at the endpoint that was chosen, in line for it, or at another one that has room first:
    /// whoever holds the places may hold them for hours.
    async fn in_line(
        &self,
        chosen: &Picked,
        tried: &[SocketAddr],
    ) -> Result<Placed, subchannel::NoSlot> {
        let mut slot = std::pin::pin!(chosen.slot());
        loop {
            if let Some(other) = self.pick_with_room(tried) {
                match other.free_slot() {
                    Some(slot) => return Ok(Placed::Elsewhere(other, slot)),
                    None => other.unsent(),
                }
            }
            // Cancel-safe: it stays in line.
            if let Ok(slot) = time::timeout(LOOK_INTERVAL, slot.as_mut()).await {
                return slot.map(Placed::There);
            }
        }
    }

    /// The better of two endpoints that were ready when last looked at, taken at random; none while
    /// none was. It may have left since, or have no place for a call just now: [`Balancer::place`]
    /// is for making one. Takes no lock, and as long however many endpoints there are.
    #[must_use]
    pub fn pick(&self) -> Option<Picked> {
        self.shared.set.load().pick(Instant::now())
    }

    /// The same among those that are ready at this moment: for a call that met one that is not.
    fn pick_ready(&self) -> Option<Picked> {
        self.shared.set.load().pick_ready(Instant::now())
    }

    fn pick_with_room(&self, tried: &[SocketAddr]) -> Option<Picked> {
        let set = self.shared.set.load();
        set.pick_with_room(Instant::now(), tried)
    }

    async fn wait(&self) -> Result<Picked, NoEndpoint> {
        let since = Instant::now();
        loop {
            let published = self.shared.published.notified();
            let mut published = std::pin::pin!(published);
            // From here on no snapshot is missed.
            published.as_mut().enable();
            if let Some(picked) = self.pick_ready() {
                return Ok(picked);
            }
            let unready_since = self.shared.set.load().unready_since().unwrap_or(since);
            let bound = since.min(unready_since) + self.shared.fail_fast;
            if time::timeout_at(bound, published).await.is_err() {
                return match self.pick_ready() {
                    Some(picked) => Ok(picked),
                    None => Err(self.not_ready()),
                };
            }
        }
    }

    fn not_ready(&self) -> NoEndpoint {
        NoEndpoint::NotReady {
            target: Arc::clone(&self.shared.name),
            detail: self.shared.set.load().complaint(),
        }
    }

    /// Every endpoint as it is now.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Snapshot> {
        self.shared.set.load().snapshots()
    }

    /// The breaker of every endpoint as it is now.
    #[must_use]
    pub fn breakers(&self) -> Vec<(SocketAddr, breaker::Snapshot)> {
        let set = self.shared.set.load();
        let endpoints = set.all.iter().map(|known| &known.endpoint);
        let snapshot = |endpoint: &Arc<endpoint::Endpoint>| {
            let by_hand = self.shared.hand.of(endpoint.addr);
            (endpoint.addr, endpoint.record.gate.snapshot(by_hand))
        };
        endpoints.map(snapshot).collect()
    }

    /// Has the breaker of the endpoint at `addr`, or those of all there are and will be, do as `order`
    /// says, until `until` or for ever. No call is picked for one that is forced open, whatever
    /// becomes of the others.
    ///
    /// # Errors
    ///
    /// If there is no such endpoint, or something was said of too many.
    pub fn set_breakers(
        &self,
        addr: Option<SocketAddr>,
        order: breaker::Order,
        until: Option<Instant>,
    ) -> Result<(), NotSet> {
        let set = self.shared.set.load();
        let endpoints: Vec<_> = set.all.iter().map(|known| &*known.endpoint).collect();
        self.shared.hand.set(addr, order, until, &endpoints)
    }

    /// Whether some endpoint is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared.set.load().is_ready()
    }
}

impl Shared {
    fn publish(&self, set: Set) {
        self.set.store(Arc::new(set));
        self.published.notify_waiters();
    }
}

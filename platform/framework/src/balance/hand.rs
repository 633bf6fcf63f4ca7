//! What operators decided about the breakers of a target's endpoints.
//!
//! It is said of one endpoint, or of all there are and will be; what is said of one goes before. It
//! holds for an address: whoever listens there, and whatever became of the connection meanwhile.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::Instant};

use super::endpoint::Endpoint;
use crate::breaker::{ByHand, Cause, Mode, Order};

/// How many endpoints something may be said of at once; of more it is said of all.
const HELD_MAX: usize = 256;

/// Why the breakers are as they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSet {
    /// There is no such endpoint.
    #[error("no such endpoint")]
    Unknown,
    /// Something is said of as many endpoints as may be.
    #[error("breakers of {HELD_MAX} endpoints are set by hand already; set those of all")]
    TooMany,
}

/// What was said.
#[derive(Debug)]
pub(super) struct Hand {
    held: Mutex<Vec<Held>>,
    /// Wakes whoever keeps the endpoints.
    wake: Arc<Notify>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    /// Of whom; none for all.
    addr: Option<SocketAddr>,
    /// What holds in the place of the configuration; none for that itself, where all are to do
    /// otherwise.
    mode: Option<Mode>,
    until: Option<Instant>,
}

impl Hand {
    pub(super) fn new(wake: Arc<Notify>) -> Self {
        Self {
            held: Mutex::default(),
            wake,
        }
    }

    /// Has the breaker of `addr`, or those of all, do as `order` says, until `until` or for ever.
    /// `endpoints` are those there are; they do so at once.
    pub(super) fn set(
        &self,
        addr: Option<SocketAddr>,
        order: Order,
        until: Option<Instant>,
        endpoints: &[&Endpoint],
    ) -> Result<(), NotSet> {
        let meant = |it: &&&Endpoint| addr.is_none_or(|addr| it.addr == addr);
        if addr.is_some() && !endpoints.iter().any(|it| meant(&it)) {
            return Err(NotSet::Unknown);
        }
        let now = Instant::now();
        let mut held = self.lock();
        // What is said of all is said of each.
        held.retain(|held| addr.is_some() && held.addr != addr);
        let mode = order.mode();
        if mode.is_some() || !held.iter().all(|held| held.addr.is_some()) {
            if held.len() >= HELD_MAX {
                return Err(NotSet::TooMany);
            }
            let until = until.filter(|_| mode.is_some());
            held.push(Held { addr, mode, until });
        }
        for endpoint in endpoints {
            endpoint.obey(mode_of(&held, endpoint.addr), Cause::ByHand, now);
        }
        if order == Order::Close {
            let meant = endpoints.iter().filter(meant);
            meant.for_each(|endpoint| endpoint.close(now));
        }
        drop(held);
        self.wake.notify_one();
        Ok(())
    }

    /// Has `endpoints` do as was said, of which some may be new, and forgets what has ended by `now`.
    pub(super) fn heed<'a>(&self, endpoints: impl Iterator<Item = &'a Endpoint>, now: Instant) {
        let mut held = self.lock();
        let before = held.len();
        held.retain(|held| held.until.is_none_or(|until| until > now));
        let cause = if held.len() < before {
            Cause::TimeOver
        } else {
            Cause::ByHand
        };
        for endpoint in endpoints {
            endpoint.obey(mode_of(&held, endpoint.addr), cause, now);
        }
    }

    /// When the next of it ends.
    pub(super) fn until(&self) -> Option<Instant> {
        self.lock().iter().filter_map(|held| held.until).min()
    }

    /// What was said of `addr`, where that is not what its configuration says.
    pub(super) fn of(&self, addr: SocketAddr) -> Option<ByHand> {
        let held = self.lock();
        let held = of(&held, addr).filter(|held| held.mode.is_some())?;
        Some(ByHand { until: held.until })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of(held: &[Held], addr: SocketAddr) -> Option<&Held> {
    let its = held.iter().find(|held| held.addr == Some(addr));
    its.or_else(|| held.iter().find(|held| held.addr.is_none()))
}

fn mode_of(held: &[Held], addr: SocketAddr) -> Option<Mode> {
    of(held, addr).and_then(|held| held.mode)
}

//! Nothing is published before those are there who are to have it.
//!
//! A group has what is published from its making on. On a broker that has lost what it had, or that
//! nobody has reached so far, groups are made in any order: what is published in their midst is for those
//! that are there, and whoever is late never has it.
//!
//! What the broker says holds for the connection that is published by: a broker that loses what it has
//! loses its connections too, be anything published meanwhile or not. So each event goes by the
//! connection that was asked for, or not at all.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use gantry::{config::Live, status::chain};
use tokio::time::{Duration, Instant};

use super::{Config, Unroutable};
use crate::broker::{Broker, BrokerError, PublishError};

/// No connection: it is to be asked.
const CLOSED: u64 = 0;

/// How often it is asked at most because of events that are passed over as nobody wants them.
const DROPPED_INTERVAL: Duration = Duration::from_secs(1);

/// Whether everybody is there.
pub(super) struct Gate {
    config: Live<Config>,
    groups: Vec<String>,
    /// The connection of which it is known that all of them are, or [`CLOSED`].
    open: AtomicU64,
    asking: Mutex<Asking>,
    /// How often it was asked.
    asked: AtomicU64,
    /// What came of it the last time, where that was no good.
    failure: tokio::sync::Mutex<Option<Failure>>,
}

/// A question that is under way, or the last one.
#[derive(Debug, Default)]
struct Asking {
    /// For which connection.
    epoch: u64,
    begun: Option<Instant>,
    /// Whether what is answered is worth nothing, as something went wrong since.
    doubted: bool,
}

/// Why nothing passes.
#[derive(Debug, Clone)]
enum Failure {
    Missing(String),
    Denied(String),
    Unanswered(String),
}

impl Gate {
    /// Waits for the groups of `config`.
    pub(super) fn new(config: Live<Config>) -> Self {
        Self {
            groups: config.read(|config| config.groups.clone()),
            config,
            open: AtomicU64::new(CLOSED),
            asking: Mutex::default(),
            asked: AtomicU64::new(0),
            failure: tokio::sync::Mutex::default(),
        }
    }

    /// Asks where it is not known, one at a time; those that wait meanwhile have the same answer. Gives the
    /// connection that it holds for; none where nobody is waited for, and any will do.
    ///
    /// # Errors
    ///
    /// If one of them is missing, or the broker does not say.
    pub(super) async fn pass(&self, broker: &dyn Broker) -> Result<Option<u64>, PublishError> {
        if self.groups.is_empty() {
            return Ok(None);
        }
        if let Some(epoch) = self.open() {
            return Ok(Some(epoch));
        }
        let seen = self.asked.load(Ordering::Acquire);
        let mut failure = self.failure.lock().await;
        if let Some(epoch) = self.open() {
            return Ok(Some(epoch));
        }
        if self.asked.load(Ordering::Acquire) == seen {
            *failure = self.ask(broker).await.err();
            self.asked.fetch_add(1, Ordering::Release);
        }
        match (&*failure, self.open()) {
            (Some(failure), _) => Err(failure.clone().into()),
            (None, Some(epoch)) => Ok(Some(epoch)),
            // It was closed since.
            (None, None) => Err(Failure::doubt().into()),
        }
    }

    fn open(&self) -> Option<u64> {
        let epoch = self.open.load(Ordering::Acquire);
        (epoch != CLOSED).then_some(epoch)
    }

    async fn ask(&self, broker: &dyn Broker) -> Result<(), Failure> {
        // First of all: what happens from here on shows in another connection.
        let epoch = broker.epoch().await.map_err(Failure::of)?;
        *self.asking() = Asking {
            epoch,
            begun: Some(Instant::now()),
            doubted: false,
        };
        for group in &self.groups {
            if !broker.knows(group).await.map_err(Failure::of)? {
                return Err(Failure::Missing(group.clone()));
            }
        }
        let asking = self.asking();
        if asking.doubted {
            return Err(Failure::doubt());
        }
        self.open.store(epoch, Ordering::Release);
        Ok(())
    }

    fn asking(&self) -> MutexGuard<'_, Asking> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in how a publication ended that passed for the connection `epoch`: a broker that was away may
    /// have lost what it had.
    pub(super) fn learn(&self, epoch: Option<u64>, outcome: &Result<(), PublishError>) {
        let (Some(epoch), Err(error)) = (epoch, outcome) else {
            return;
        };
        let mut asking = self.asking();
        match error {
            // One of many that went out together, perhaps: what is asked because of the first of them holds.
            PublishError::Unroutable if self.is_dropped(&asking) => return,
            PublishError::Unroutable => {}
            PublishError::TimedOut | PublishError::Denied(_) | PublishError::Disconnected(_) => {
                asking.doubted |= asking.epoch == epoch;
            }
            PublishError::Refused(_) | PublishError::Blocked { .. } | PublishError::Awaiting(_) => {
                return;
            }
        }
        // Of another one it says nothing.
        let _ = self
            .open
            .compare_exchange(epoch, CLOSED, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Whether an event that nobody wants is none to ask for: it is passed over, and it was asked not long
    /// ago.
    fn is_dropped(&self, asking: &Asking) -> bool {
        let passed_over = self
            .config
            .read(|config| config.unroutable == Unroutable::Drop);
        let recent = |begun: Instant| begun.elapsed() < DROPPED_INTERVAL;
        passed_over && asking.begun.is_some_and(recent)
    }
}

impl Failure {
    fn of(error: BrokerError) -> Self {
        match error {
            BrokerError::Denied(why) => Self::Denied(why),
            BrokerError::Disconnected(why) => Self::Unanswered(chain(&*why)),
            error => Self::Unanswered(chain(&error)),
        }
    }

    fn doubt() -> Self {
        Self::Unanswered("it broke off while it was asked who is there".to_owned())
    }
}

impl From<Failure> for PublishError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Missing(group) => Self::Awaiting(group),
            Failure::Denied(why) => Self::Denied(why),
            Failure::Unanswered(why) => Self::Disconnected(why.into()),
        }
    }
}

#[cfg(test)]
mod tests;

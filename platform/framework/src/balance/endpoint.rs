//! One endpoint: its connections and what is known of its load.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Snapshot, load::Load};
use crate::{
    classify::Verdict,
    discovery::Attributes,
    transport::subchannel::{NoSlot, Slot, Subchannel},
};

/// Charged instead of a latency when a call failed, so that failing fast attracts no calls.
const PENALTY: Duration = Duration::from_secs(5);
/// An endpoint that asks for a longer pause is charged no more than this.
const PENALTY_MAX: Duration = Duration::from_mins(5);
/// A call was given a fair time if it had this many times the endpoint's latency.
const FAIR_FACTOR: f32 = 4.0;
/// A time that is fair at any endpoint.
const FAIR: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) addr: SocketAddr,
    pub(super) attributes: Attributes,
    pub(super) subchannel: Arc<Subchannel>,
    pub(super) load: Arc<Load>,
}

impl Endpoint {
    pub(super) fn is_ready(&self) -> bool {
        self.subchannel.is_ready()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let state = self.subchannel.state();
        Snapshot {
            addr: self.addr,
            attributes: self.attributes.clone(),
            connectivity: state.connectivity,
            since: state.since,
            error: state.error,
            connections: self.subchannel.connections(),
            pending: self.load.pending(),
            latency: self
                .load
                .latency(Instant::now())
                .map(Duration::from_secs_f32),
        }
    }
}

/// A call's hold on the endpoint picked for it: counts as in flight until dropped, and takes in
/// how the call went.
#[derive(Debug)]
pub struct Picked {
    endpoint: Arc<Endpoint>,
    since: Instant,
    /// Whether it was sent to find out how the endpoint does now.
    trial: bool,
    /// Whether anything was heard of its answer.
    heard: bool,
    measured: bool,
}

impl Picked {
    pub(super) fn new(endpoint: Arc<Endpoint>, now: Instant) -> Self {
        endpoint.load.begin(now);
        Self {
            endpoint,
            since: now,
            trial: false,
            heard: false,
            measured: false,
        }
    }

    /// A call for which a trial was begun.
    pub(super) fn on_trial(endpoint: Arc<Endpoint>, now: Instant) -> Self {
        let mut picked = Self::new(endpoint, now);
        picked.trial = true;
        picked
    }

    /// Where the endpoint listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.endpoint.addr
    }

    pub(super) async fn slot(&self) -> Result<Slot, NoSlot> {
        self.endpoint.subchannel.slot().await
    }

    /// The answer's headers are there. A server may send them early, so they measure nothing, but
    /// whoever sends them does not stand still: the next trial does not wait for the end of a stream.
    pub fn heard(&mut self) {
        if std::mem::replace(&mut self.heard, true) {
            return;
        }
        if self.trial {
            self.endpoint.load.end_trial();
        }
        self.endpoint.load.heard();
    }

    /// The answer begins: its first message, not its headers, which a server may send early.
    pub fn answered(&mut self) {
        if !self.measured {
            self.measured = true;
            self.answered_at(Instant::now());
        }
    }

    fn answered_at(&self, now: Instant) {
        let latency = now - self.since;
        if self.trial {
            self.endpoint.load.passed(latency, now);
        } else {
            self.endpoint.load.answered(latency, now);
        }
    }

    /// There was no place for the call: that says nothing about how calls do.
    pub(super) fn unsent(mut self) {
        self.measured = true;
    }

    /// The call is over.
    pub fn judged(&mut self, verdict: Verdict) {
        let now = Instant::now();
        let load = &self.endpoint.load;
        match verdict {
            Verdict::Success | Verdict::Ignored | Verdict::Unserved if self.measured => {}
            Verdict::Success => self.answered_at(now),
            Verdict::Unserved if !load.is_proven() => load.charge(PENALTY, now),
            Verdict::Ignored | Verdict::Unserved => load.observe_at_least(now - self.since, now),
            Verdict::Hard => load.charge(PENALTY, now),
            Verdict::Soft(pause) => {
                let penalty = pause.unwrap_or(PENALTY).clamp(PENALTY, PENALTY_MAX);
                load.charge(penalty, now);
            }
        }
        self.measured = true;
    }

    /// Whether `time` is enough for a call to this endpoint, as far as is known.
    #[must_use]
    pub fn is_fair(&self, time: Duration) -> bool {
        let usual = self
            .endpoint
            .load
            .latency(self.since)
            .map_or(FAIR, |latency| {
                Duration::try_from_secs_f32(latency * FAIR_FACTOR).unwrap_or(FAIR)
            });
        time >= usual.min(FAIR)
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        // Nobody waited for the end: all that is known is that it had not come yet.
        if !self.measured {
            self.judged(Verdict::Ignored);
        }
        self.heard();
        self.endpoint.load.end();
    }
}

//! The task that keeps a target's endpoints current: the only one that changes what is published.
//!
//! It is level-triggered: woken by anything, or when something is due, it looks at how things are
//! and publishes that.

mod census;
mod ejection;
mod roster;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Weak},
};

use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use self::{census::Scarcity, ejection::Sweeps, roster::Left};
use super::{
    Builder, Shared,
    endpoint::Endpoint,
    gate::GateState,
    hand::Hand,
    load,
    outlier::Standing,
    pick::{Candidate, Candidates},
    set::{Known, Set},
    slow_start::Ramp,
    zone,
};
use crate::{
    breaker::Mode,
    discovery::Resolution,
    journal::Kind,
    names::metric,
    telemetry::{
        metric::{Family, Gauge, Label as _},
        platform::EndpointBreakers,
    },
    transport::subchannel::{Connectivity, State},
};

/// Keeps a set current.
pub(super) struct Keeper {
    epoch: Instant,
    builder: Builder,
    shared: Weak<Shared>,
    gone: CancellationToken,
    refresh: Box<dyn Fn() + Send + Sync>,
    members: Vec<Member>,
    /// Held by the resolver, and unreachable: not tried while others are ready.
    buried: HashSet<SocketAddr>,
    /// What is known of endpoints that left.
    left: HashMap<SocketAddr, Left>,
    /// Endpoints that are connected beyond the size of a subset, in place of some that fail.
    extra: usize,
    sweeps: Sweeps,
    scarcity: Scarcity,
    unready_since: Option<Instant>,
    by_state: Family<Gauge, Connectivity>,
    breakers: EndpointBreakers,
    /// What operators say of breakers.
    hand: Arc<Hand>,
    /// What the configuration last said of them.
    mode: Mode,
}

/// An endpoint, and what only the keeper knows of it.
struct Member {
    endpoint: Arc<Endpoint>,
    /// How it was when last looked at, to notice changes.
    seen: Option<Connectivity>,
    /// Whether it failed since it last was ready.
    failed: bool,
    /// How often it had been connected when it last was ready.
    lives: u64,
    /// Whether it was never ready, at an address of which nothing was known.
    newcomer: bool,
    standing: Standing,
    /// Where its breaker stood when last looked at.
    gate: GateState,
    /// Since when it comes to its share of calls, while it does.
    warm_from: Option<Instant>,
}

impl Member {
    /// Whether calls are kept from it that its connection would take.
    fn is_out(&self) -> bool {
        self.standing.ejected().is_some() || self.gate.is_shut()
    }
}

impl Keeper {
    pub(super) fn new(
        builder: Builder,
        shared: Weak<Shared>,
        hand: Arc<Hand>,
        gone: CancellationToken,
        refresh: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        let name = || Arc::clone(&builder.name).into();
        Self {
            by_state: Family::register(&metric::ENDPOINTS, &[name()]),
            breakers: EndpointBreakers::register(name()),
            mode: builder.config.read(|config| config.breaker.state),
            hand,
            sweeps: Sweeps::new(name(), Instant::now()),
            scarcity: Scarcity::new(name()),
            builder,
            shared,
            gone,
            refresh,
            members: Vec::new(),
            buried: HashSet::new(),
            left: HashMap::new(),
            extra: 0,
            unready_since: Some(Instant::now()),
            epoch: Instant::now(),
        }
    }

    /// Runs until the target is dropped or its owner stops.
    pub(super) async fn run(mut self, mut resolutions: watch::Receiver<Resolution>) {
        let stopping = self.builder.common.tasks.stopping();
        let on_change = Arc::clone(&self.builder.common.on_change);
        let mut configs = self.builder.config.subscribe();
        let mut resolving = true;
        self.take_in(&resolutions.borrow_and_update().clone());
        loop {
            let resolution = resolutions.borrow().clone();
            self.tend(&resolution);
            let Some(shared) = self.shared.upgrade() else {
                break;
            };
            shared.publish(self.set(resolution.error));
            drop(shared);
            let due = self.due();
            // Every arm is a level: what is missed in one round is seen in the next.
            tokio::select! {
                () = stopping.cancelled() => break,
                () = self.gone.cancelled() => break,
                () = on_change.notified() => {}
                () = time::sleep_until(due) => {}
                Ok(()) = configs.changed() => {
                    self.configured();
                    self.take_in(&resolutions.borrow().clone());
                }
                changed = resolutions.changed(), if resolving => {
                    // A fixed list has nobody to change it.
                    resolving = changed.is_ok();
                    let resolution = resolutions.borrow_and_update().clone();
                    self.take_in(&resolution);
                }
            }
        }
        for member in &self.members {
            member.endpoint.subchannel.close();
        }
        self.members.clear();
        self.count();
        self.scarcity.end();
    }

    /// Looks at how things are, and acts on it.
    fn tend(&mut self, resolution: &Resolution) {
        let now = Instant::now();
        let endpoints = self.members.iter().map(|member| &*member.endpoint);
        self.hand.heed(endpoints, now);
        self.release(now);
        if self.sweeps.are_due(now) {
            self.sweep(now);
            self.shrink(resolution);
        }
        self.look();
        if self.members.iter().any(|it| it.endpoint.is_ready()) {
            self.bury();
        } else if !self.buried.is_empty() {
            // Those that are held are all there is: one may have come back.
            self.buried.clear();
            self.take_in(resolution);
            self.look();
        }
        self.take_census(resolution);
        self.count();
    }

    /// When the next thing is to be done that nobody else wakes for.
    fn due(&self) -> Instant {
        let members = self.members.iter();
        let dues = members.flat_map(|member| {
            let ejected = member.standing.ejected().map(|ejected| ejected.until);
            [member.gate.until(), ejected]
        });
        let dues = dues.flatten().chain(self.hand.until());
        dues.fold(self.sweeps.next(), Instant::min)
    }

    /// Notices and reports what changed at the endpoints.
    fn look(&mut self) {
        let now = Instant::now();
        let mut failing = false;
        let mut changes = Vec::new();
        for member in &mut self.members {
            let state = member.endpoint.subchannel.state();
            let connectivity = state.connectivity;
            if member.seen.replace(connectivity) != Some(connectivity) {
                if member.note(&state, now) {
                    let detail = "over: it was restarted".to_owned();
                    changes.push((Kind::Ejection, member.endpoint.addr, detail));
                }
                failing |= connectivity == Connectivity::TransientFailure;
                let detail = match &state.error {
                    Some(error) => format!("{connectivity}: {error}"),
                    None => connectivity.to_string(),
                };
                changes.push((Kind::EndpointState, member.endpoint.addr, detail));
            }
            member.note_gate(now);
        }
        for (kind, addr, detail) in changes {
            self.record(kind, addr, detail);
        }
        if failing {
            (self.refresh)();
        }
    }

    /// The configuration may say otherwise of breakers.
    fn configured(&mut self) {
        let mode = self.builder.config.read(|config| config.breaker.state);
        if std::mem::replace(&mut self.mode, mode) != mode {
            let now = Instant::now();
            for member in &self.members {
                member.endpoint.configured(now);
            }
        }
    }

    /// Shows how many endpoints are in each state, are ejected, and have a breaker in each state.
    fn count(&self) {
        self.sweeps.count(&self.members);
        let breakers = self.members.iter().map(|it| it.endpoint.record.gate.last());
        self.breakers.count(breakers);
        for connectivity in Connectivity::all() {
            let seen = self.members.iter().filter_map(|member| member.seen);
            let count = seen.filter(|it| *it == connectivity);
            let count = u32::try_from(count.count()).unwrap_or(u32::MAX);
            self.by_state.with(connectivity).set(count.into());
        }
    }

    fn set(&mut self, error: Option<Arc<str>>) -> Set {
        let config = self.builder.config.load();
        let panic = self.scarcity.picks();
        let ramp = Ramp::new(&config.slow_start);
        let now = Instant::now();
        let here = self.builder.zone.as_deref().filter(|_| panic.is_none());
        let (mut all, mut ready, mut half_open) = (Vec::new(), Vec::new(), Vec::new());
        let alone = self.members.len() == 1;
        for member in &mut self.members {
            let Member { endpoint, .. } = &*member;
            endpoint.record.gate.set_alone(alone);
            let attributes = &endpoint.attributes;
            let there = attributes.zone.as_deref();
            let weight = zone::weight(attributes.weight_percent)
                * zone::factor(here, there, config.zone_other_percent);
            let grows = |since: &Instant| now - *since < config.slow_start.window;
            let warm_from = member.warm_from.filter(grows);
            // An operator's word goes before panic.
            if endpoint.is_ready() && !member.gate.is_forced() {
                let ejected = member.standing.ejected().is_some();
                if member.gate.is_half_open() && (!ejected || panic.is_some()) {
                    half_open.push(Arc::clone(endpoint));
                }
                if panic.is_some() || !member.is_out() {
                    ready.push(Candidate {
                        load: Arc::clone(&endpoint.load),
                        weight,
                        warm_from: warm_from.map(|since| load::millis(self.epoch, since)),
                        endpoint: Arc::clone(endpoint),
                    });
                }
            }
            all.push(Known {
                endpoint: Arc::clone(endpoint),
                ejected: member.standing.ejected(),
                weight,
                warming: ramp.zip(warm_from),
            });
            member.warm_from = warm_from;
        }
        if ready.is_empty() {
            self.unready_since.get_or_insert(now);
        } else {
            self.unready_since = None;
        }
        Set {
            epoch: self.epoch,
            config,
            all,
            ready: Candidates::new(ready, ramp, panic.is_some()),
            half_open,
            panic,
            unready_since: self.unready_since,
            error,
        }
    }

    fn record(&self, kind: Kind, addr: SocketAddr, detail: impl Into<String>) {
        let subject = format!("{}/{addr}", self.builder.name);
        self.builder.journal.record(kind, subject, detail);
    }
}

impl Member {
    /// Its connection is in another state. Whether that ends an ejection.
    fn note(&mut self, state: &State, now: Instant) -> bool {
        let mut released = false;
        match state.connectivity {
            Connectivity::TransientFailure => self.failed = true,
            Connectivity::Ready => {
                // A replica that was restarted, most likely: what was held against the one before
                // would keep calls away from it for a minute. One that only says that it serves again
                // is who it was: its word is not what calls came to.
                let again = std::mem::replace(&mut self.lives, state.lives) != state.lives;
                if self.failed && again {
                    self.endpoint.begin_anew(now);
                    // Nothing of that was its doing, and its share is whole at once.
                    self.gate = GateState::Closed;
                    released = self.standing.release();
                }
                if self.newcomer {
                    self.warm_from = Some(now);
                }
                self.failed = false;
                self.newcomer = false;
            }
            _ => {}
        }
        released
    }

    /// Looks at where its breaker stands.
    fn note_gate(&mut self, now: Instant) {
        let gate = self.endpoint.record.gate.state(now);
        self.endpoint.load.set_shut(gate.is_shut());
        let before = std::mem::replace(&mut self.gate, gate);
        if before.is_shut() && !gate.is_shut() {
            self.warm_from = Some(now);
        }
    }
}

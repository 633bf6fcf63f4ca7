//! The endpoints of one target as of one moment, and the task that keeps them current.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Builder, Shared, Snapshot,
    endpoint::{Endpoint, Picked},
    load::{self, Load},
};
use crate::{
    discovery::Resolution,
    journal::Kind,
    names::metric,
    telemetry::metric::{Family, Gauge, Label as _},
    transport::subchannel::{Connectivity, State, Subchannel},
};

/// How long the statistics of an endpoint that left wait for its return.
const REMEMBER: Duration = Duration::from_mins(10);
/// How many such endpoints are remembered at most.
const REMEMBER_MAX: usize = 1_024;
/// Pairs that are drawn before all endpoints are looked at for one that is ready.
const TRIES: usize = 4;

/// One in so many calls goes to any endpoint, where that is due for a trial.
const TRIAL_ONE_IN: u8 = 64;

/// Endpoints that a complaint tells of; one is usually like the other.
const COMPLAINT_ENDPOINTS_MAX: usize = 3;
/// Bytes of a complaint: it travels in a header, where it can become three times as long.
const COMPLAINT_MAX: usize = 1_024;

/// The endpoints as of one moment.
#[derive(Debug)]
pub(super) struct Set {
    /// From where the loads count time.
    epoch: Instant,
    all: Vec<Arc<Endpoint>>,
    /// Those of `all` that were ready; one that is not any more is passed over.
    ready: Vec<Ready>,
    /// Since when none is ready.
    unready_since: Option<Instant>,
    /// What the resolver complains about.
    error: Option<Arc<str>>,
}

/// One that was ready, its load beside it: a pick looks at two loads and counts one endpoint's
/// owners. Whether it is ready still, its place for a call tells, without another look at what is
/// in no cache.
#[derive(Debug)]
struct Ready {
    load: Arc<Load>,
    endpoint: Arc<Endpoint>,
}

impl Set {
    pub(super) fn empty() -> Self {
        let now = Instant::now();
        Self {
            epoch: now,
            all: Vec::new(),
            ready: Vec::new(),
            unready_since: Some(now),
            error: None,
        }
    }

    /// The cheaper of two endpoints taken at random, or now and then one that is due for a trial.
    /// A connection may have gone since this snapshot was taken.
    pub(super) fn pick(&self, now: Instant) -> Option<Picked> {
        let at = load::millis(self.epoch, now);
        if let Some(ready) = self.trial(at) {
            return Some(Picked::on_trial(Arc::clone(&ready.endpoint), now));
        }
        let ready = self.cheaper_of_two(at)?;
        Some(Picked::new(Arc::clone(&ready.endpoint), now))
    }

    /// The cheaper of two that are ready still, or of all of them, where nearly none is: no ordinary
    /// call's work grows with their number.
    pub(super) fn pick_ready(&self, now: Instant) -> Option<Picked> {
        let at = load::millis(self.epoch, now);
        let ready = (0..TRIES)
            .filter_map(|_| self.cheaper_of_two(at))
            .find(|ready| ready.endpoint.is_ready())
            .or_else(|| self.cheapest(at))?;
        Some(Picked::new(Arc::clone(&ready.endpoint), now))
    }

    /// The same among those that are not in `tried`, where there are such; for a call that was
    /// tried there.
    pub(super) fn pick_elsewhere(&self, now: Instant, tried: &[SocketAddr]) -> Option<Picked> {
        let at = load::millis(self.epoch, now);
        let fits =
            |ready: &&Ready| !tried.contains(&ready.endpoint.addr) && ready.endpoint.is_ready();
        let drawn = (0..TRIES)
            .filter_map(|_| self.cheaper_of_two(at))
            .find(fits);
        let cheapest = || {
            let others = self.ready.iter().filter(fits);
            others.min_by(|one, other| one.load.cost(at).total_cmp(&other.load.cost(at)))
        };
        match drawn.or_else(cheapest) {
            Some(ready) => Some(Picked::new(Arc::clone(&ready.endpoint), now)),
            None => self.pick_ready(now),
        }
    }

    fn trial(&self, at: u32) -> Option<&Ready> {
        if fastrand::u8(..TRIAL_ONE_IN) != 0 {
            return None;
        }
        let any = fastrand::choice(&self.ready)?;
        (any.endpoint.is_ready() && any.load.begin_trial(at)).then_some(any)
    }

    fn cheaper_of_two(&self, at: u32) -> Option<&Ready> {
        match self.ready.as_slice() {
            [] => None,
            [only] => Some(only),
            ready => {
                let first = fastrand::usize(..ready.len());
                let other = fastrand::usize(..ready.len() - 1);
                let other = if other < first { other } else { other + 1 };
                let (first, other) = (&ready[first], &ready[other]);
                Some(if first.load.is_as_good_as(&other.load, at) {
                    first
                } else {
                    other
                })
            }
        }
    }

    fn cheapest(&self, at: u32) -> Option<&Ready> {
        self.ready
            .iter()
            .filter(|ready| ready.endpoint.is_ready())
            .min_by(|one, other| one.load.cost(at).total_cmp(&other.load.cost(at)))
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.iter().any(|ready| ready.endpoint.is_ready())
    }

    pub(super) fn unready_since(&self) -> Option<Instant> {
        self.unready_since
    }

    pub(super) fn snapshots(&self) -> Vec<Snapshot> {
        self.all
            .iter()
            .map(|endpoint| endpoint.snapshot())
            .collect()
    }

    /// What is wrong, for a call that found no endpoint; short, however many there are.
    pub(super) fn complaint(&self) -> String {
        let mut complaint = self.complaint_in_full();
        complaint.truncate(complaint.floor_char_boundary(COMPLAINT_MAX));
        complaint
    }

    fn complaint_in_full(&self) -> String {
        if self.all.is_empty() {
            return match &self.error {
                Some(error) => error.to_string(),
                None => "the name stands for no endpoint".to_owned(),
            };
        }
        let told = self.all.iter().take(COMPLAINT_ENDPOINTS_MAX);
        let complaints: Vec<_> = told
            .map(|endpoint| {
                let State {
                    connectivity,
                    error,
                    ..
                } = endpoint.subchannel.state();
                match error {
                    Some(error) => format!("{} {connectivity} ({error})", endpoint.addr),
                    None => format!("{} {connectivity}", endpoint.addr),
                }
            })
            .collect();
        let complaints = complaints.join(", ");
        match self.all.len().saturating_sub(COMPLAINT_ENDPOINTS_MAX) {
            0 => complaints,
            more => format!("{complaints} and {more} more"),
        }
    }
}

/// An endpoint as it was when last looked at.
#[derive(Debug, Clone, Copy)]
struct Seen {
    connectivity: Connectivity,
    /// Whether it failed since it last was ready.
    failed: bool,
}

/// Keeps a set current: the only one that changes it.
pub(super) struct Keeper {
    epoch: Instant,
    builder: Builder,
    shared: Weak<Shared>,
    gone: CancellationToken,
    refresh: Box<dyn Fn() + Send + Sync>,
    endpoints: Vec<Arc<Endpoint>>,
    /// How each endpoint was when last looked at, to notice changes.
    seen: HashMap<SocketAddr, Seen>,
    /// Held by the resolver, and unreachable: not tried while others are ready.
    buried: HashSet<SocketAddr>,
    /// Statistics of endpoints that left, and when.
    left: HashMap<SocketAddr, (Arc<Load>, Instant)>,
    unready_since: Option<Instant>,
    by_state: Family<Gauge, Connectivity>,
}

impl Keeper {
    pub(super) fn new(
        builder: Builder,
        shared: Weak<Shared>,
        gone: CancellationToken,
        refresh: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        let by_state = Family::register(&metric::ENDPOINTS, &[Arc::clone(&builder.name).into()]);
        Self {
            by_state,
            builder,
            shared,
            gone,
            refresh,
            endpoints: Vec::new(),
            seen: HashMap::new(),
            buried: HashSet::new(),
            left: HashMap::new(),
            unready_since: Some(Instant::now()),
            epoch: Instant::now(),
        }
    }

    /// Runs until the target is dropped or its owner stops.
    pub(super) async fn run(mut self, mut resolutions: watch::Receiver<Resolution>) {
        let stopping = self.builder.common.tasks.stopping();
        let on_change = Arc::clone(&self.builder.common.on_change);
        let mut resolving = true;
        self.take_in(&resolutions.borrow_and_update().clone());
        loop {
            let error = resolutions.borrow().error.clone();
            self.look();
            if self.endpoints.iter().any(|endpoint| endpoint.is_ready()) {
                self.bury();
            } else if !self.buried.is_empty() {
                // Those that are held are all there is: one may have come back.
                self.buried.clear();
                let resolution = resolutions.borrow().clone();
                self.take_in(&resolution);
                self.look();
            }
            let Some(shared) = self.shared.upgrade() else {
                break;
            };
            shared.publish(self.set(error));
            drop(shared);
            // Every arm is a level: what is missed in one round is seen in the next.
            tokio::select! {
                () = stopping.cancelled() => break,
                () = self.gone.cancelled() => break,
                () = on_change.notified() => {}
                changed = resolutions.changed(), if resolving => {
                    // A fixed list has nobody to change it.
                    resolving = changed.is_ok();
                    let resolution = resolutions.borrow_and_update().clone();
                    self.take_in(&resolution);
                }
            }
        }
        for endpoint in &self.endpoints {
            endpoint.subchannel.close();
        }
        self.seen.clear();
        self.count();
    }

    /// Follows a new list: starts what joined, closes what left, keeps the rest as it is.
    fn take_in(&mut self, resolution: &Resolution) {
        let now = Instant::now();
        let mut before: HashMap<_, _> = std::mem::take(&mut self.endpoints)
            .into_iter()
            .map(|endpoint| (endpoint.addr, endpoint))
            .collect();
        let mut seen = HashSet::with_capacity(resolution.endpoints.len());
        let mut buried = HashSet::new();
        for listed in resolution.endpoints.iter() {
            // Named twice is named once.
            if !seen.insert(listed.addr) {
                continue;
            }
            if listed.attributes.held && self.buried.contains(&listed.addr) {
                buried.insert(listed.addr);
                continue;
            }
            let endpoint = match before.remove(&listed.addr) {
                Some(known) if known.attributes == listed.attributes => known,
                Some(known) => Arc::new(Endpoint {
                    addr: known.addr,
                    attributes: listed.attributes.clone(),
                    subchannel: Arc::clone(&known.subchannel),
                    load: Arc::clone(&known.load),
                }),
                None => self.join(listed.addr, listed.attributes.clone()),
            };
            self.endpoints.push(endpoint);
        }
        self.buried = buried;
        for endpoint in before.into_values() {
            self.leave(&endpoint, now, "");
        }
        self.left.retain(|_, (_, since)| now - *since < REMEMBER);
    }

    fn leave(&mut self, endpoint: &Endpoint, now: Instant, why: &str) {
        let addr = endpoint.addr;
        endpoint.subchannel.close();
        let seen = self.seen.remove(&addr);
        // Whoever comes after one that failed is judged by nothing of it.
        let failed = seen.is_some_and(|seen| seen.failed);
        if !failed && self.left.len() < REMEMBER_MAX {
            self.left.insert(addr, (Arc::clone(&endpoint.load), now));
        }
        self.record(Kind::EndpointLeft, addr, why);
    }

    /// Lets go of endpoints that are only held for being reachable, and are not. Only while there
    /// are others: a list from the disk or from an etcd that is gone may be all there is to try.
    fn bury(&mut self) {
        let dead: Vec<_> = self
            .endpoints
            .extract_if(.., |endpoint| {
                endpoint.attributes.held
                    && endpoint.subchannel.state().connectivity == Connectivity::TransientFailure
            })
            .collect();
        for endpoint in dead {
            self.buried.insert(endpoint.addr);
            self.leave(
                &endpoint,
                Instant::now(),
                "held, and not reachable any more",
            );
        }
    }

    fn join(
        &mut self,
        addr: SocketAddr,
        attributes: crate::discovery::Attributes,
    ) -> Arc<Endpoint> {
        let authority = self.builder.authority.clone().unwrap_or_else(|| {
            addr.to_string()
                .parse()
                .expect("an address is an authority")
        });
        let load = match self.left.remove(&addr) {
            Some((left, _)) => left.inherited(),
            None => Load::new(self.epoch),
        };
        self.record(Kind::EndpointJoined, addr, "");
        Arc::new(Endpoint {
            addr,
            attributes,
            subchannel: Arc::new(Subchannel::start(
                addr,
                authority,
                self.builder.common.clone(),
            )),
            load: Arc::new(load),
        })
    }

    /// Notices and reports what changed at the endpoints.
    fn look(&mut self) {
        let mut failing = false;
        for endpoint in &self.endpoints {
            let state = endpoint.subchannel.state();
            let before = self.seen.get(&endpoint.addr).copied();
            if before.is_some_and(|before| before.connectivity == state.connectivity) {
                continue;
            }
            let failed = before.is_some_and(|before| before.failed);
            let failed = match state.connectivity {
                Connectivity::TransientFailure => true,
                Connectivity::Ready => {
                    // A replica that was restarted, most likely: the penalties of the one before
                    // would keep calls away from it for a minute.
                    if failed {
                        endpoint.load.begin_anew();
                    }
                    false
                }
                _ => failed,
            };
            let connectivity = state.connectivity;
            let seen = Seen {
                connectivity,
                failed,
            };
            self.seen.insert(endpoint.addr, seen);
            failing |= connectivity == Connectivity::TransientFailure;
            let detail = match &state.error {
                Some(error) => format!("{connectivity}: {error}"),
                None => connectivity.to_string(),
            };
            self.record(Kind::EndpointState, endpoint.addr, detail);
        }
        if failing {
            (self.refresh)();
        }
        self.count();
    }

    /// Shows how many endpoints are in each state.
    fn count(&self) {
        for connectivity in Connectivity::all() {
            let seen = self.seen.values();
            let count = seen.filter(|it| it.connectivity == connectivity);
            let count = u32::try_from(count.count()).unwrap_or(u32::MAX);
            self.by_state.with(connectivity).set(count.into());
        }
    }

    fn set(&mut self, error: Option<Arc<str>>) -> Set {
        let ready: Vec<_> = self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.is_ready())
            .map(|endpoint| Ready {
                load: Arc::clone(&endpoint.load),
                endpoint: Arc::clone(endpoint),
            })
            .collect();
        if ready.is_empty() {
            self.unready_since.get_or_insert_with(Instant::now);
        } else {
            self.unready_since = None;
        }
        Set {
            epoch: self.epoch,
            all: self.endpoints.clone(),
            ready,
            unready_since: self.unready_since,
            error,
        }
    }

    fn record(&self, kind: Kind, addr: SocketAddr, detail: impl Into<String>) {
        let subject = format!("{}/{addr}", self.builder.name);
        self.builder.journal.record(kind, subject, detail);
    }
}

#[cfg(test)]
mod tests;

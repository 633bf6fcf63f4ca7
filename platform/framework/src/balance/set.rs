//! The endpoints of one target as of one moment.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Snapshot,
    config::Config,
    endpoint::{Endpoint, Picked},
    load,
    outlier::Ejected,
    pick::{Candidate, Candidates},
    slow_start::Ramp,
};
use crate::{telemetry::metric::Counter, transport::subchannel::State};

/// Pairs that are drawn before all endpoints are looked at for one that is ready.
const TRIES: usize = 4;

/// Endpoints that a complaint tells of; one is usually like the other.
const COMPLAINT_ENDPOINTS_MAX: usize = 3;
/// Bytes of a complaint: it travels in a header, where it can become three times as long.
const COMPLAINT_MAX: usize = 1_024;

/// The endpoints as of one moment.
#[derive(Debug)]
pub(super) struct Set {
    /// From where the loads count time.
    pub(super) epoch: Instant,
    pub(super) config: Arc<Config>,
    pub(super) all: Vec<Known>,
    /// Those of `all` that were ready and get calls; one that is not ready any more is passed over.
    pub(super) ready: Candidates<Arc<Endpoint>>,
    /// Those whose breakers wait for one call to find out how they do, or for its end.
    pub(super) half_open: Vec<Arc<Endpoint>>,
    /// Counts calls, where what is held against endpoints is passed over.
    pub(super) panic: Option<Counter>,
    /// Since when none is ready.
    pub(super) unready_since: Option<Instant>,
    /// What the resolver complains about.
    pub(super) error: Option<Arc<str>>,
}

/// An endpoint and how it stands.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) ejected: Option<Ejected>,
    /// The share of calls it comes to, 1 being ordinary.
    pub(super) weight: f32,
    /// How it comes to that, and since when, if that is not long ago.
    pub(super) warming: Option<(Ramp, Instant)>,
}

impl Set {
    pub(super) fn empty() -> Self {
        let now = Instant::now();
        Self {
            epoch: now,
            config: Arc::default(),
            all: Vec::new(),
            ready: Candidates::new(Vec::new(), None, false),
            half_open: Vec::new(),
            panic: None,
            unready_since: Some(now),
            error: None,
        }
    }

    /// One whose breaker wants to find out how it does, or is due for a trial, or the cheaper of two
    /// taken at random. A connection may have gone since this snapshot was taken.
    pub(super) fn pick(&self, now: Instant) -> Option<Picked> {
        if let Some(probe) = self.probe(now) {
            return Some(probe);
        }
        let at = load::millis(self.epoch, now);
        if let Some(due) = self.ready.trial(at, |endpoint| endpoint.is_ready()) {
            let endpoint = Arc::clone(&due.endpoint);
            self.count();
            return Some(Picked::on_trial(endpoint, now, &self.config));
        }
        // Of two that were shut since, neither.
        let picked = self.ready.cheaper_of_two(at);
        let picked = picked.or_else(|| self.ready.cheapest(at, |_| true));
        self.take(picked, now)
    }

    /// The same among those that are ready still: the cheaper of two, or of all of them, where nearly
    /// none is: no ordinary call's work grows with their number.
    pub(super) fn pick_ready(&self, now: Instant) -> Option<Picked> {
        if let Some(probe) = self.probe(now) {
            return Some(probe);
        }
        self.take(self.draw(now, Endpoint::is_ready), now)
    }

    /// The same among those that are not in `tried`, where there are such; for a call that was
    /// tried there.
    pub(super) fn pick_elsewhere(&self, now: Instant, tried: &[SocketAddr]) -> Option<Picked> {
        match self.draw(now, |it| !tried.contains(&it.addr) && it.is_ready()) {
            Some(other) => self.take(Some(other), now),
            None => self.pick_ready(now),
        }
    }

    /// One that has a place for a call at once and is not in `tried`, for a call that met one without.
    pub(super) fn pick_with_room(&self, now: Instant, tried: &[SocketAddr]) -> Option<Picked> {
        let free = self.draw(now, |it| it.has_room() && !tried.contains(&it.addr))?;
        self.take(Some(free), now)
    }

    /// The cheaper of two that fits, or of all of them, where nearly none does.
    fn draw(
        &self,
        now: Instant,
        fits: impl Fn(&Endpoint) -> bool,
    ) -> Option<&Candidate<Arc<Endpoint>>> {
        let at = load::millis(self.epoch, now);
        (0..TRIES)
            .filter_map(|_| self.ready.cheaper_of_two(at))
            .find(|picked| fits(&picked.endpoint))
            .or_else(|| self.ready.cheapest(at, |it| fits(it)))
    }

    /// A call for the one that was chosen, or for one whose breaker has closed since.
    fn take(&self, chosen: Option<&Candidate<Arc<Endpoint>>>, now: Instant) -> Option<Picked> {
        let reopened = || {
            let mut half_open = self.half_open.iter();
            half_open.find(|endpoint| endpoint.is_ready() && !endpoint.load.is_shut())
        };
        let endpoint = chosen.map(|it| &it.endpoint).or_else(reopened)?;
        self.count();
        Some(Picked::new(Arc::clone(endpoint), now, &self.config))
    }

    /// The one call that finds out for a breaker how its endpoint does, where one is wanted.
    fn probe(&self, now: Instant) -> Option<Picked> {
        let mut ready = self.half_open.iter().filter(|it| it.is_ready());
        ready.find_map(|endpoint| Picked::probing(endpoint, now, &self.config))
    }

    fn count(&self) {
        if let Some(picks) = &self.panic {
            picks.increment();
        }
    }

    /// Whether a call would be taken now, be it to find out how an endpoint does.
    pub(super) fn is_ready(&self) -> bool {
        let mut ready = self.ready.iter();
        let now = Instant::now();
        let due = |it: &&Arc<Endpoint>| it.record.gate.is_due(now, &self.config) && it.is_ready();
        ready.any(|it| self.ready.is_open(it) && it.endpoint.is_ready())
            || self.half_open.iter().any(|it| due(&it))
    }

    pub(super) fn unready_since(&self) -> Option<Instant> {
        self.unready_since
    }

    pub(super) fn snapshots(&self) -> Vec<Snapshot> {
        let now = Instant::now();
        self.all.iter().map(|known| known.snapshot(now)).collect()
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
        let complaints: Vec<_> = told.map(Known::complaint).collect();
        let complaints = complaints.join(", ");
        match self.all.len().saturating_sub(COMPLAINT_ENDPOINTS_MAX) {
            0 => complaints,
            more => format!("{complaints} and {more} more"),
        }
    }
}

impl Known {
    fn snapshot(&self, now: Instant) -> Snapshot {
        let Endpoint {
            subchannel, load, ..
        } = &*self.endpoint;
        let state = subchannel.state();
        let warm = self.warming.map_or(1.0, |(ramp, since)| {
            let elapsed = now.saturating_duration_since(since);
            ramp.factor(elapsed.as_secs_f32())
        });
        Snapshot {
            addr: self.endpoint.addr,
            attributes: self.endpoint.attributes.clone(),
            connectivity: state.connectivity,
            since: state.since,
            error: state.error,
            connections: subchannel.connections(),
            pending: load.pending(),
            latency: load.latency(now).map(Duration::from_secs_f32),
            ejected: self.ejected,
            breaker: self.endpoint.record.gate.state(now),
            weight: self.weight * warm,
        }
    }

    fn complaint(&self) -> String {
        let addr = self.endpoint.addr;
        let State {
            connectivity,
            error,
            ..
        } = self.endpoint.subchannel.state();
        let breaker = self.endpoint.record.gate.state(Instant::now());
        match error {
            Some(error) => format!("{addr} {connectivity} ({error})"),
            None if breaker.is_forced() => format!("{addr} has its breaker forced open"),
            None if breaker.is_shut() => format!("{addr} fails its calls"),
            None if self.ejected.is_some() => format!("{addr} is ejected for failing its calls"),
            None => format!("{addr} {connectivity}"),
        }
    }
}

#[cfg(test)]
mod tests;

//! What the side port tells that only the application knows.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use gantry_api::admin::v1::{
    CallBounds, Endpoint, ExplainPolicyResponse, GetConfigResponse, GetEventsResponse, PolicyValue,
    call_bounds,
    endpoint::{Breaker, State},
};
use tokio::time::Instant;

use super::{
    registry::{Registering, Registry},
    settings::{Platform, Settings},
};
use crate::{
    admin::{self, Inside, Whose},
    balance::{GateState, NotSet, Snapshot},
    breaker::{self, NoBreaker, Order, Register},
    client::Clients,
    config::{Both, Faults, Live, Section},
    discovery::Registration,
    health::Health,
    limit::board::{Board, Fill},
    policy::{self, Policies},
    retry::{Bounds, Way},
    server::Stack,
    transport::subchannel::Connectivity,
};

/// How events fare, once somebody tells.
pub(super) type Shown = Arc<OnceLock<Box<dyn Fn() -> GetEventsResponse + Send + Sync>>>;

/// The application as the admin service sees it.
pub(super) struct View<C> {
    pub(super) settings: Settings<C>,
    pub(super) clients: Clients,
    pub(super) limits: Board,
    pub(super) breakers: Register,
    pub(super) health: Health,
    pub(super) registry: Option<Registry>,
    pub(super) registering: Arc<Registering>,
    pub(super) events: Shown,
    /// What is served, once the service has started.
    pub(super) served: Arc<OnceLock<Stack>>,
}

impl<C: Section> Inside for View<C> {
    fn config(&self) -> GetConfigResponse {
        let status = self.settings.handle.status();
        let status = status.borrow();
        let faults = status.refusal.iter().flat_map(Faults::iter);
        GetConfigResponse {
            version: status.version,
            keys: status.entries.iter().map(admin::key).collect(),
            faults: faults.map(ToString::to_string).collect(),
        }
    }

    fn config_version(&self) -> u64 {
        self.settings.handle.status().borrow().version
    }

    fn explain(&self, method: &str) -> ExplainPolicyResponse {
        let status = self.settings.handle.status();
        let explained = policy::explain(&status.borrow().entries, method);
        let values = explained.values.into_iter().map(|value| {
            let doc: Vec<_> = value.doc.iter().map(|line| line.trim()).collect();
            PolicyValue {
                key: value.key,
                value: value.value.unwrap_or_default(),
                pattern: value.pattern.unwrap_or_default(),
                origin: value.origin.to_string(),
                description: doc.join(" "),
            }
        });
        let policies = |settings: &Both<Platform, C>| settings.first.policies.clone();
        let policies = Policies::new(&Live::fixed(self.settings.live.read(policies)));
        let bounds = self.clients.bounds(method, &policies.find(method));
        let bounds = bounds.into_iter();
        let mut methods = self.clients.methods();
        methods.extend(self.served.get().into_iter().flat_map(Stack::methods));
        let meant = policy::meant(method, &methods);
        ExplainPolicyResponse {
            meant: meant.unwrap_or_default().to_owned(),
            patterns: explained.patterns,
            values: values.collect(),
            calls: bounds
                .map(|(client, it)| bounds_on_wire(client, it))
                .collect(),
        }
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        let mut targets = self.clients.states();
        targets.extend(self.registry.iter().flat_map(Registry::states));
        let endpoints = targets.iter().flat_map(|target| {
            let endpoints = target.endpoints.iter();
            endpoints.map(|endpoint| on_wire(&target.name, endpoint))
        });
        endpoints.collect()
    }

    fn breakers(&self) -> Vec<(Whose, breaker::Snapshot)> {
        let named = self.breakers.snapshots().into_iter();
        let named = named.map(|(name, snapshot)| (Whose::Named(name), snapshot));
        let mut targets = self.clients.breakers();
        targets.extend(self.registry.iter().flat_map(Registry::breakers));
        let endpoints = targets.into_iter().map(|(client, addr, snapshot)| {
            let whose = Whose::Client {
                client: client.to_string(),
                addr: Some(addr),
            };
            (whose, snapshot)
        });
        named.chain(endpoints).collect()
    }

    fn set_breaker(
        &self,
        whose: &Whose,
        order: Order,
        until: Option<Instant>,
    ) -> Result<(), NotSet> {
        match whose {
            Whose::Named(name) => {
                let set = self.breakers.set(name, order, until);
                set.map_err(|NoBreaker| NotSet::Unknown)
            }
            Whose::Client { client, addr } => {
                let mut set = self.clients.set_breakers(client, *addr, order, until);
                if let (Err(NotSet::Unknown), Some(registry)) = (&set, &self.registry) {
                    set = registry.set_breakers(client, *addr, order, until);
                }
                set
            }
        }
    }

    fn limits(&self) -> Vec<Fill> {
        let now = Instant::now();
        let mut fills = self.limits.fills(now);
        fills.extend(self.clients.limits(now));
        fills
    }

    fn events(&self) -> GetEventsResponse {
        let shown = self.events.get().map(|events| events());
        shown.unwrap_or_default()
    }

    fn services(&self) -> Vec<String> {
        let services = self.health.statuses().into_keys();
        services.filter(|service| !service.is_empty()).collect()
    }

    fn registration(&self) -> Option<Registration> {
        self.registering.now()
    }

    fn pause_registration(&self, pause: bool) -> bool {
        self.registering.pause(pause)
    }

    fn drain_bound(&self) -> Duration {
        self.settings
            .live
            .read(|settings| settings.first.shutdown.total())
    }
}

fn bounds_on_wire(client: String, bounds: Bounds) -> CallBounds {
    let way = match bounds.way {
        Way::Once => call_bounds::Way::Once,
        Way::Retried => call_bounds::Way::Retried,
        Way::Hedged => call_bounds::Way::Hedged,
    };
    CallBounds {
        client,
        way: way.into(),
        timeout: bounds.timeout.and_then(admin::duration),
        latency_max: bounds.latency_max.and_then(admin::duration),
        attempts_time: bounds.attempts_time.and_then(admin::duration),
        pauses_time: admin::duration(bounds.pauses_time),
        waits_time: admin::duration(bounds.waits_time),
        attempts_max: bounds.attempts_max,
        repeats_max: bounds.repeats_max,
        amplification: bounds.amplification,
        spare_per_second: bounds.spare_per_second,
    }
}

fn on_wire(client: &str, endpoint: &Snapshot) -> Endpoint {
    let state = match endpoint.connectivity {
        Connectivity::Idle => State::Idle,
        Connectivity::Connecting => State::Connecting,
        Connectivity::Ready => State::Ready,
        Connectivity::TransientFailure => State::TransientFailure,
        Connectivity::Shutdown => State::Unspecified,
    };
    let breaker = match endpoint.breaker {
        GateState::Closed => Breaker::Closed,
        GateState::Open(_) | GateState::Forced => Breaker::Open,
        GateState::Due | GateState::Probing(_) => Breaker::HalfOpen,
    };
    let ejected = endpoint.ejected.as_ref();
    let left = ejected.map(|it| it.until.saturating_duration_since(Instant::now()));
    Endpoint {
        client: client.to_owned(),
        address: endpoint.addr.to_string(),
        state: state.into(),
        reason: endpoint.error.as_deref().unwrap_or_default().to_owned(),
        state_time: admin::ago(endpoint.since.elapsed()),
        connections: u32::try_from(endpoint.connections).unwrap_or(u32::MAX),
        calls_in_flight: u64::try_from(endpoint.pending).unwrap_or(u64::MAX),
        latency: endpoint.latency.and_then(admin::duration),
        held: endpoint.attributes.held,
        ejected: ejected.map_or_else(String::new, |it| it.reason.as_str().to_owned()),
        ejection_left: left.and_then(admin::duration),
        breaker: breaker.into(),
        weight: endpoint.weight,
    }
}

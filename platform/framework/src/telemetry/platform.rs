//! Handles to the metrics of the platform's own parts, one struct per part.

mod resilience;

use std::{sync::Arc, time::Duration};

use super::metric::{Counter, Family, Gauge, Held, Histogram, Value, series};
use crate::names::metric;

pub use resilience::{
    Breaker, BreakerState, Concurrency, EndpointBreakers, Injected, InjectedFaults, Load, Refusals,
    RefusedCall, RefusedRetry,
};

super::label! {
    /// Why a connection was closed before it carried a call.
    pub enum RefusedConnection {
        /// The process has as many as it may.
        TooMany = "too_many",
        /// The peer has as many as it may.
        TooManyOfPeer = "too_many_of_peer",
        /// Too many connections have sent no request yet.
        TooManyWaiting = "too_many_waiting",
        /// No first request came in time.
        NoRequest = "no_request",
        /// TLS was not agreed on.
        Tls = "tls",
        /// It is not HTTP/2, or broke its rules.
        Protocol = "protocol",
        /// Its peer gave up calls too fast.
        GivenUp = "given_up",
        /// The process drains.
        Draining = "draining",
        /// It could not be accepted: no file descriptor was left.
        Accept = "accept",
    }
}

super::label! {
    /// For what a connection without calls was closed.
    pub enum EvictedConnection {
        /// The process had as many as it may.
        TooMany = "too_many",
        /// Too many connections had sent no request yet, and it was one of them.
        TooManyWaiting = "too_many_waiting",
    }
}

super::label! {
    /// The state of the connection to an endpoint (gRPC's connectivity semantics).
    pub enum EndpointState {
        /// Nothing to do for it.
        Idle = "idle",
        /// On its way.
        Connecting = "connecting",
        /// Calls can go over it.
        Ready = "ready",
        /// It failed and waits to try again.
        TransientFailure = "transient_failure",
    }
}

super::label! {
    /// What became of a configuration read after start.
    pub enum Reload {
        /// It is in use.
        Applied = "applied",
        /// It had faults; the one before stays.
        Refused = "refused",
    }
}

super::label! {
    /// Why a limit refused a call.
    pub enum RefusedByLimit {
        /// A quota has nothing left.
        Quota = "quota",
        /// There was no room to count the caller alone, and those like it have nothing left.
        Keys = "keys",
        /// As many calls were in flight as may be, of the process or of the method.
        Concurrency = "concurrency",
        /// The process was overloaded, and other calls mattered more.
        Overload = "overload",
    }
}

/// Calls that limits refused.
#[derive(Debug, Clone)]
pub struct Limits {
    refused: Family<Counter, RefusedByLimit>,
}

impl Limits {
    /// Looks the handles up.
    #[must_use]
    pub fn register() -> Self {
        Self {
            refused: Family::register(&metric::LIMIT_REFUSED, &[]).visible(),
        }
    }

    /// Counts one more call as refused.
    pub fn refuse(&self, reason: RefusedByLimit) {
        self.refused.with(reason).increment();
    }
}

/// Connections of a listener.
#[derive(Debug, Clone)]
pub struct Connections {
    open: Gauge,
    accepted: Counter,
    refused: Family<Counter, RefusedConnection>,
    evicted: Family<Counter, EvictedConnection>,
}

impl Connections {
    /// Looks the handles up.
    #[must_use]
    pub fn register() -> Self {
        Self {
            open: series(&metric::CONNECTIONS_OPEN, &[]),
            accepted: series(&metric::CONNECTIONS_ACCEPTED, &[]),
            refused: Family::register(&metric::CONNECTIONS_REFUSED, &[]).visible(),
            evicted: Family::register(&metric::CONNECTIONS_EVICTED, &[]).visible(),
        }
    }

    /// Counts `count` more connections as accepted.
    pub fn accept(&self, count: u64) {
        self.accepted.add(count);
    }

    /// Tells how many connections are open now.
    pub fn open(&self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.open.set(count.into());
    }

    /// Counts `count` more connections as refused, or cut before they carried a call.
    pub fn refuse(&self, reason: RefusedConnection, count: u64) {
        self.refused.with(reason).add(count);
    }

    /// Counts `count` more connections as closed to make room.
    pub fn evict(&self, reason: EvictedConnection, count: u64) {
        self.evicted.with(reason).add(count);
    }
}

/// Endpoints of one client.
#[derive(Debug, Clone)]
pub struct Endpoints {
    by_state: Family<Gauge, EndpointState>,
}

impl Endpoints {
    /// Looks the handles up; `target` is the name of a configured client.
    #[must_use]
    pub fn register(target: &Arc<str>) -> Self {
        let target = Arc::clone(target).into();
        Self {
            by_state: Family::register(&metric::ENDPOINTS, &[target]).visible(),
        }
    }

    /// Counts an endpoint in `state` until the answer is dropped; a new state is a new hold.
    #[must_use]
    pub fn hold(&self, state: EndpointState) -> Held {
        self.by_state.with(state).hold()
    }
}

/// The registration of the process.
#[derive(Debug, Clone)]
pub struct Registrations {
    registered: Gauge,
    made: Counter,
}

impl Registrations {
    /// Looks the handles up.
    #[must_use]
    pub fn register() -> Self {
        Self {
            registered: series(&metric::REGISTRY_REGISTERED, &[]),
            made: series(&metric::REGISTRY_REGISTRATIONS, &[]),
        }
    }

    /// Says whether the process is registered.
    pub fn registered(&self, registered: bool) {
        self.registered.set(if registered { 1.0 } else { 0.0 });
    }

    /// Counts a registration that was written.
    pub fn made(&self) {
        self.made.increment();
    }
}

/// What is known of one name.
#[derive(Debug, Clone)]
pub struct Discovery {
    current: Gauge,
    held: Gauge,
    malformed: Counter,
}

impl Discovery {
    /// Looks the handles up; `name` is one that the configuration names.
    #[must_use]
    pub fn register(name: Value) -> Self {
        let name = [name];
        Self {
            current: series(&metric::DISCOVERY_CURRENT, &name),
            held: series(&metric::DISCOVERY_HELD, &name),
            malformed: series(&metric::DISCOVERY_MALFORMED, &name),
        }
    }

    /// Says whether the registry tells of changes.
    pub fn current(&self, current: bool) {
        self.current.set(if current { 1.0 } else { 0.0 });
    }

    /// Says how many endpoints are kept without being listed.
    #[allow(clippy::cast_precision_loss)]
    pub fn held(&self, count: usize) {
        self.held.set(count as f64);
    }

    /// Counts a value that was passed over.
    pub fn malformed(&self) {
        self.malformed.increment();
    }
}

/// Configurations of the process.
#[derive(Debug, Clone)]
pub struct Configurations {
    version: Gauge,
    reloads: Family<Counter, Reload>,
}

impl Configurations {
    /// Looks the handles up.
    #[must_use]
    pub fn register() -> Self {
        Self {
            version: series(&metric::CONFIG_VERSION, &[]),
            reloads: Family::register(&metric::CONFIG_RELOADS, &[]).visible(),
        }
    }

    /// Says which version is in use, counted from 1 at start.
    #[allow(clippy::cast_precision_loss)]
    pub fn version(&self, version: u64) {
        self.version.set(version as f64);
    }

    /// Counts a configuration read after start.
    pub fn reload(&self, outcome: Reload) {
        self.reloads.with(outcome).increment();
    }
}

/// One named health check.
#[derive(Debug, Clone)]
pub struct Check {
    passing: Gauge,
    duration: Histogram,
}

impl Check {
    /// Looks the handles up; `name` is fixed in the program or its configuration.
    #[must_use]
    pub fn register(name: &str) -> Self {
        let name = [name.to_owned().into()];
        Self {
            passing: series(&metric::HEALTH_CHECK_PASSING, &name),
            duration: series(&metric::HEALTH_CHECK_DURATION, &name),
        }
    }

    /// Notes one run of the check.
    pub fn ran(&self, passing: bool, duration: Duration) {
        self.passing.set(if passing { 1.0 } else { 0.0 });
        self.duration.record_duration(duration);
    }
}

//! Handles to the metrics of the platform's own parts, one struct per part.

use std::{sync::Arc, time::Duration};

use super::metric::{Counter, Family, Gauge, Held, Histogram, Value, series};
use crate::{caller::Criticality, names::metric};

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
        /// The address has nothing left of its quota.
        Quota = "quota",
        /// There was no room to count the address, and those like it have nothing left.
        Clients = "clients",
        /// As many calls were in flight as may be, of the process or of the method.
        Concurrency = "concurrency",
        /// The process was overloaded, and other calls mattered more.
        Overload = "overload",
    }
}

super::label! {
    /// What is done to a call on purpose.
    pub enum Injected {
        /// It waits first.
        Delay = "delay",
        /// It fails in its handler's place.
        Fail = "fail",
        /// Its answer breaks off.
        Abort = "abort",
        /// It is not answered.
        Drop = "drop",
    }
}

/// What was done to calls on purpose.
#[derive(Debug, Clone)]
pub struct InjectedFaults {
    injected: Family<Counter, Injected>,
}

impl InjectedFaults {
    /// Looks the handles up.
    #[must_use]
    pub fn register() -> Self {
        Self {
            injected: Family::register(&metric::FAULTS_INJECTED, &[]),
        }
    }

    /// Counts one more.
    pub fn inject(&self, fault: Injected) {
        self.injected.with(fault).increment();
    }
}

super::label! {
    /// What a breaker is.
    pub enum BreakerState {
        /// Calls pass.
        Closed = "closed",
        /// They are refused for a time.
        Open = "open",
        /// One passes, to find out whether all may.
        HalfOpen = "half_open",
        /// They are refused because somebody wants it so.
        ForcedOpen = "forced_open",
        /// They pass, and nothing is counted.
        Disabled = "disabled",
    }
}

/// One breaker.
#[derive(Debug, Clone)]
pub struct Breaker {
    state: Family<Gauge, BreakerState>,
    transitions: Family<Counter, BreakerState>,
    refused: Counter,
    would_refuse: Counter,
}

impl Breaker {
    /// Looks the handles up; `name` is fixed in the program.
    #[must_use]
    pub fn register(name: Value) -> Self {
        let name = [name];
        Self {
            state: Family::register(&metric::BREAKER_STATE, &name).visible(),
            transitions: Family::register(&metric::BREAKER_TRANSITIONS, &name).visible(),
            refused: series(&metric::BREAKER_REFUSED, &name),
            would_refuse: series(&metric::BREAKER_WOULD_REFUSE, &name),
        }
    }

    /// Says what it is, and so what it is not.
    pub fn state(&self, state: BreakerState) {
        for other in BreakerState::ALL {
            let is = if *other == state { 1.0 } else { 0.0 };
            self.state.with(*other).set(is);
        }
    }

    /// Counts that it came to `state`.
    pub fn transition(&self, state: BreakerState) {
        self.transitions.with(state).increment();
    }

    /// Counts a call that it refused.
    pub fn refuse(&self) {
        self.refused.increment();
    }

    /// Counts a call that it would have refused.
    pub fn would_refuse(&self) {
        self.would_refuse.increment();
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

super::label! {
    /// Why a failure of a kind that is tried again was not.
    pub enum RefusedRetry {
        /// So many attempts were made as may be.
        Attempts = "attempts",
        /// Too many calls to the target failed lately (gRFC A6).
        Throttled = "throttled",
        /// Retries to the target have spent their share of its calls.
        Budget = "budget",
        /// The server said not to.
        Pushback = "pushback",
        /// The pause does not fit the deadline.
        Deadline = "deadline",
        /// The call being served is itself tried again.
        Chain = "chain",
        /// The request is too large to be kept, or came in part when the answer began.
        Replay = "replay",
    }
}

super::label! {
    /// Why this process did not send a call of its own.
    pub enum RefusedCall {
        /// As many calls to the target are in flight as may be.
        Bulkhead = "bulkhead",
        /// Most calls to the target fail.
        Throttle = "throttle",
    }
}

/// Calls to one target that this process did not make, or not again.
#[derive(Debug, Clone)]
pub struct Refusals {
    retries: Family<Counter, RefusedRetry>,
    calls: Family<Counter, RefusedCall>,
}

impl Refusals {
    /// Looks the handles up; `target` is the name of a configured client.
    #[must_use]
    pub fn register(target: &Arc<str>) -> Self {
        let target = [Arc::clone(target).into()];
        Self {
            retries: Family::register(&metric::RETRIES_REFUSED, &target),
            calls: Family::register(&metric::CLIENT_CALLS_REFUSED, &target).visible(),
        }
    }

    /// Counts a retry that was not made.
    pub fn retry(&self, reason: RefusedRetry) {
        self.retries.with(reason).increment();
    }

    /// Counts a call that was not sent.
    pub fn call(&self, reason: RefusedCall) {
        self.calls.with(reason).increment();
    }
}

/// The calls of one method, as far as they are bounded.
#[derive(Debug, Clone)]
pub struct Concurrency {
    limit: Gauge,
    waiting: Gauge,
    would_refuse: Counter,
}

impl Concurrency {
    /// Looks the handles up; `method` is one that is served.
    #[must_use]
    pub fn register(method: &'static str) -> Self {
        let method = [method.into()];
        Self {
            limit: series(&metric::CONCURRENCY_LIMIT, &method),
            waiting: series(&metric::CONCURRENCY_WAITING, &method),
            would_refuse: series(&metric::CONCURRENCY_WOULD_REFUSE, &method),
        }
    }

    /// Says which limit was found by measuring.
    #[allow(clippy::cast_precision_loss)]
    pub fn found(&self, limit: usize) {
        self.limit.set(limit as f64);
    }

    /// Counts a call that waits, until the answer is dropped.
    #[must_use]
    pub fn wait(&self) -> Held {
        self.waiting.hold()
    }

    /// Counts a call that would have been refused.
    pub fn would_refuse(&self) {
        self.would_refuse.increment();
    }
}

/// How loaded the process is, and what it refuses for that.
#[derive(Debug, Clone)]
pub struct Load {
    lag: Gauge,
    cpu: Gauge,
    memory: Gauge,
    refusing: Family<Gauge, Criticality>,
    refused: Family<Counter, Criticality>,
}

impl Load {
    /// Looks the handles up.
    #[must_use]
    pub fn register() -> Self {
        Self {
            lag: series(&metric::LOAD_LAG, &[]),
            cpu: series(&metric::LOAD_CPU, &[]),
            memory: series(&metric::LOAD_MEMORY, &[]),
            refusing: Family::register(&metric::SHED_SHARE, &[]).visible(),
            refused: Family::register(&metric::SHED_REFUSED, &[]).visible(),
        }
    }

    /// Says how late tasks begin to run.
    pub fn lag(&self, lag: Duration) {
        self.lag.set(lag.as_secs_f64());
    }

    /// Says how much of its processors the process uses, from 0 to 1.
    pub fn cpu(&self, share: f64) {
        self.cpu.set(share);
    }

    /// Says how much of its memory the process uses, from 0 to 1.
    pub fn memory(&self, share: f64) {
        self.memory.set(share);
    }

    /// Says which share of calls of a criticality is refused now.
    pub fn refusing(&self, criticality: Criticality, share: f64) {
        self.refusing.with(criticality).set(share);
    }

    /// Counts a call as refused, or as one that would be.
    pub fn refuse(&self, criticality: Criticality) {
        self.refused.with(criticality).increment();
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

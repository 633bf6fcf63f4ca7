//! What is refused, broken off and made to fail.

use std::{sync::Arc, time::Duration};

use crate::{
    caller::Criticality,
    names::metric,
    telemetry::metric::{Counter, Family, Gauge, Held, Label as _, Value, series},
};

crate::telemetry::label! {
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

crate::telemetry::label! {
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

/// The breakers of a target's endpoints.
#[derive(Debug, Clone)]
pub struct EndpointBreakers {
    state: Family<Gauge, BreakerState>,
    transitions: Family<Counter, BreakerState>,
}

impl EndpointBreakers {
    /// Looks the handles up; `target` is the name of a configured client.
    #[must_use]
    pub fn register(target: Value) -> Self {
        let target = [target];
        Self {
            state: Family::register(&metric::ENDPOINT_BREAKERS, &target).visible(),
            transitions: Family::register(&metric::ENDPOINT_BREAKER_TRANSITIONS, &target).visible(),
        }
    }

    /// Says how many there are in each state.
    pub fn count(&self, states: impl Iterator<Item = BreakerState>) {
        let mut counts = [0_u32; BreakerState::COUNT];
        states.for_each(|state| counts[state.index()] += 1);
        for state in BreakerState::ALL {
            let count = counts[state.index()];
            self.state.with(*state).set(count.into());
        }
    }

    /// Counts that one came to `state`.
    pub fn transition(&self, state: BreakerState) {
        self.transitions.with(state).increment();
    }
}

crate::telemetry::label! {
    /// Why a failure of a kind that is tried again was not.
    pub enum RefusedRetry {
        /// So many attempts were made as may be.
        Attempts = "attempts",
        /// Too many calls to the target failed lately (gRFC A6).
        Throttled = "throttled",
        /// Retries to the target have spent their share of its calls.
        Budget = "budget",
        /// Hedges to the target have.
        HedgeBudget = "hedge_budget",
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

crate::telemetry::label! {
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

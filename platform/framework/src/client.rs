//! Calling other services.
//!
//! [`Clients`] holds the configured targets of a process; a [`Channel`] is the virtual connection
//! to one of them, taken by any tonic-generated client. Building either does no I/O: connections
//! are made in the background, and a missing peer shows in [`Clients::targets`] and in calls,
//! never as a failure to start.
//!
//! A call's way, outermost first; why each is where it is:
//!
//! | step | why here |
//! | --- | --- |
//! | span and metrics | see the whole call, waiting and every attempt included |
//! | deadline | bounds everything below, the answer's body too |
//! | bulkhead | a call waits, retries and reads its answer in one place; refused, it is not retried |
//! | retry or hedge | above the pick, so that another endpoint may take the request |
//! | throttle | sees every attempt: further out it would see only what retries hid |
//! | attempt's span | one per request on the wire |
//! | pick | waits for a ready endpoint, then the cheaper of two |
//! | place on a connection | waits in line while the peer's limits leave none |
//! | exchange | the stream itself |

mod attempt;
mod body;
mod config;
mod endpoint;
mod hedged;
mod methods;
mod reflection;
mod repeats;
mod retried;
mod rules;
mod targets;
mod timer;

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::time::Instant;
use tonic::{Status, body::Body};
use tower::Service;

use self::{
    attempt::Begun,
    methods::{Methods, Throttles},
    rules::{Guards, Rules},
    timer::Timer,
};
use crate::{
    balance::Balancer,
    breaker, call,
    config::Live,
    contract::{self, Idempotency, Method},
    deadline::{self, Deadline, GRPC_TIMEOUT},
    limit::{
        bulkhead::{Bulkhead, Permit},
        throttle::Throttle,
    },
    policy::Policies,
    retry::{self, Allowance, Latencies, Way},
    status::{self, Refusal},
    telemetry::{platform::RefusedCall, rpc::ClientCall},
    transport::subchannel::Outgoing,
};

pub use self::{
    body::ResponseBody,
    config::{Config, Tls},
    endpoint::PickedEndpoint,
    reflection::{Answer, Question, Reflection},
    targets::{Clients, TargetState},
};

/// Held back from what is inherited, so that a callee's `DEADLINE_EXCEEDED` still reaches the
/// caller's caller in time.
const MARGIN: Duration = Duration::from_millis(1);

/// The virtual connection to one target; clones are cheap and share everything.
///
/// Always ready: a call that finds no endpoint waits within its bounds and then fails alone.
///
/// Of a method that it has no contract of, whoever calls may tell what a second try would do
/// ([`Channel::assume`]); without, nothing is tried again that may have been seen by a handler.
#[derive(Debug, Clone)]
pub struct Channel {
    target: Arc<Target>,
    methods: Arc<Methods>,
    // Shared: channels are held by futures, many at once.
    said: Option<Arc<(HeaderName, HeaderValue)>>,
    assumed: Idempotency,
}

/// One target of a process.
#[derive(Debug)]
struct Target {
    name: Arc<str>,
    balancer: Balancer,
    timeout_default: Duration,
    guards: Live<Guards>,
    bulkhead: Bulkhead,
    allowance: Allowance,
    throttles: Throttles,
}

impl Channel {
    fn new(target: Arc<Target>, methods: &'static [Method], policies: &Policies) -> Self {
        let methods = Arc::new(Methods::new(methods, &target, policies));
        Self {
            target,
            methods,
            said: None,
            assumed: Idempotency::Unknown,
        }
    }

    /// Assumes that a second try of what is called next does what `idempotency` says, where it has no
    /// contract of the method.
    pub fn assume(&mut self, idempotency: Idempotency) {
        self.assumed = idempotency;
    }

    /// The same, whose calls say `value` in `name`, beside what others have said there.
    #[must_use]
    pub fn saying(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.said = Some(Arc::new((name, value)));
        self
    }

    /// The name of the target, as configured.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.target.name
    }

    /// Whether a call would find a ready endpoint at this moment.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.target.balancer.is_ready()
    }
}

/// A channel is its own client, for those who call methods they know no contract of.
impl contract::Client<Channel> for Channel {
    const NAME: &'static str = "";
    const METHODS: &'static [Method] = &[];

    fn from_channel(channel: Channel) -> Self {
        channel
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some((name, value)) = self.said.as_deref() {
            request.headers_mut().append(name, value.clone());
        }
        let (called, rules) = self.methods.find(request.uri().path());
        call::pass_on_criticality(request.headers_mut(), rules.criticality);
        let idempotency = called
            .method
            .map_or(self.assumed, |method| method.idempotency);
        let way = rules.retry.way(idempotency);
        let measured = way == Way::Hedged && rules.retry.measures();
        let began = Instant::now();
        // Here and not in the future: what is inherited is the context of whoever calls.
        let call = Box::new(Call {
            measured: called.measured.start(began),
            throttle: Arc::clone(&called.throttle),
            method: called.method,
            way,
            latencies: measured.then(|| called.latencies.clone()).flatten(),
            retry: rules.retry,
            breaker: rules.breaker,
            guards: self.target.guards.read(|guards| *guards),
            in_retry: call::with_current(|current| {
                current.is_some_and(|served| served.previous_attempts > 0)
            }),
            deadline: self
                .target
                .deadline_of(called.method, &rules, request.headers()),
            began,
            target: Arc::clone(&self.target),
        });
        call.run(request)
    }
}

impl Target {
    /// When the caller of a request stops waiting: what it says itself, and no more than the policy;
    /// where it says nothing that, or the default of a unary method. Never later than the call being
    /// served allows.
    fn deadline_of(
        &self,
        method: Option<&Method>,
        rules: &Rules,
        headers: &HeaderMap,
    ) -> Result<Option<Deadline>, deadline::MalformedTimeout> {
        let said = headers.get(&GRPC_TIMEOUT).map(deadline::parse_timeout);
        let own = match (said.transpose()?, rules.timeout) {
            (Some(said), Some(longest)) => Some(said.min(longest)),
            (Some(timeout), None) | (None, Some(timeout)) => Some(timeout),
            (None, None) => method
                .is_some_and(Method::is_unary)
                .then_some(self.timeout_default),
        };
        let inherited = call::with_current(|current| current.and_then(|call| call.deadline))
            .map(|deadline| deadline.instant() - MARGIN)
            .map(Deadline::at);
        Ok(Deadline::earlier(own.and_then(Deadline::after), inherited))
    }
}

/// One call on its way.
#[derive(Debug)]
struct Call {
    measured: ClientCall,
    throttle: Arc<Throttle>,
    method: Option<&'static Method>,
    guards: Guards,
    retry: retry::Policy,
    breaker: breaker::Policy,
    way: Way,
    /// What such calls take, where it is hedged by that.
    latencies: Option<Arc<Latencies>>,
    /// Whether it is made for a call that is itself tried again: those above do it already.
    in_retry: bool,
    deadline: Result<Option<Deadline>, deadline::MalformedTimeout>,
    began: Instant,
    target: Arc<Target>,
}

impl Call {
    /// The whole stack. Not an `async fn`: those keep what they are given twice, and this is moved to
    /// where it stays.
    fn run(
        mut self: Box<Self>,
        request: Request<Body>,
    ) -> <Channel as Service<Request<Body>>>::Future {
        let (mut head, body) = request.into_parts();
        let mut outgoing = Outgoing::new(body);
        Box::pin(async move {
            let answered = match self.deadline {
                Ok(deadline) => self.admitted(deadline, &mut head, &mut outgoing).await,
                Err(malformed) => Err(Refusal::MalformedHeader.status(malformed.to_string())),
            };
            match answered {
                Ok((answered, permit)) => body::begin(answered, self, permit),
                Err(status) => {
                    self.measured.end(status.code());
                    Err(status)
                }
            }
        })
    }

    async fn admitted(
        &self,
        deadline: Option<Deadline>,
        head: &mut http::request::Parts,
        outgoing: &mut Outgoing,
    ) -> Result<(Answered, Option<Permit>), Status> {
        if deadline.is_some_and(Deadline::has_passed) {
            return Err(self.too_late("before it was sent"));
        }
        let target = &*self.target;
        let guarded = self.is_guarded();
        let permit = guarded.then(|| self.place_of_its_own()).transpose()?;
        target.allowance.call(self.began);
        let answered = match self.way {
            Way::Once | Way::Retried => self.retried(deadline, head, outgoing).await,
            // Rare and large: others do not carry its future.
            Way::Hedged => Box::pin(self.hedged(deadline, head, outgoing)).await,
        };
        Ok((answered?, permit))
    }

    /// Whether it is a call of this process's own, by contract. What hands on the calls of others
    /// bounds each of these by itself: together, one of them could take the place of all.
    fn is_guarded(&self) -> bool {
        self.method.is_some()
    }

    fn place_of_its_own(&self) -> Result<Permit, Status> {
        let target = &*self.target;
        target
            .bulkhead
            .enter(self.guards.calls_max)
            .map_err(|full| {
                target.allowance.refusals().call(RefusedCall::Bulkhead);
                full.status(&target.name)
            })
    }

    fn too_late(&self, when: &str) -> Status {
        let public = format!("deadline exceeded after {:?}", self.began.elapsed());
        let text = format!("{}: {public}, {when}", self.target.name);
        status::with_public(Refusal::DeadlineExceeded.status(text), public)
    }
}

/// A call whose answer began.
struct Answered {
    begun: Box<Begun>,
    timer: Timer,
}

#[cfg(test)]
mod tests;

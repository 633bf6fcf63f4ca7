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
//! | transparent retry | above the pick, so that another endpoint may take the request |
//! | attempt's span | one per request on the wire |
//! | pick | waits for a ready endpoint, then the cheaper of two |
//! | place on a connection | waits in line while the peer's limits leave none |
//! | exchange | the stream itself |

mod body;
mod config;
mod endpoint;
mod reflection;
mod targets;
mod timer;

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use tokio::time::Instant;
use tonic::{Status, body::Body};
use tower::Service;

use self::timer::Timer;
use crate::{
    balance::{Balancer, NoEndpoint, Picked},
    call,
    classify::{self, End, Fate},
    config::Live,
    contract::{self, Method},
    deadline::{self, Deadline, GRPC_TIMEOUT},
    policy::{Policies, Policy},
    status::{self, Refusal},
    telemetry::rpc::{Attempt, ClientCall, ClientMethod, Try},
    transport::subchannel::{Outgoing, exchange},
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
/// When a call that found no endpoint is worth another try: connections are tried again about as
/// often, and a line has moved by then.
const NO_ENDPOINT_PAUSE: Duration = Duration::from_secs(1);

/// How often a request is sent again that a peer refused before it was seen.
const REFUSED_MAX: u32 = 1;

/// How often one that a peer left behind when it went. More than gRFC A6's one: each costs a
/// connection that ends in good order, so it cannot go round, and where everything is restarted in
/// turn a call may meet more than one that goes.
const LEFT_BEHIND_MAX: u32 = 3;

/// What we call ourselves where the caller says nothing.
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("gantry/", env!("CARGO_PKG_VERSION")));
/// Set by retries alone.
static PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// The virtual connection to one target; clones are cheap and share everything.
///
/// Always ready: a call that finds no endpoint waits within its bounds and then fails alone.
#[derive(Debug, Clone)]
pub struct Channel {
    target: Arc<Target>,
    methods: Arc<Methods>,
    // Shared: channels are held by futures, many at once.
    said: Option<Arc<(HeaderName, HeaderValue)>>,
}

/// One target of a process.
#[derive(Debug)]
struct Target {
    name: Arc<str>,
    balancer: Balancer,
    timeout_default: Duration,
}

/// What is known of the methods called through a channel.
#[derive(Debug)]
struct Methods {
    known: Vec<Known>,
    /// All others, as one to those who measure.
    other: ClientMethod,
    policies: Policies,
}

#[derive(Debug)]
struct Known {
    method: &'static Method,
    measured: ClientMethod,
    policy: Live<Policy>,
}

impl Methods {
    fn new(methods: &'static [Method], target: &Arc<str>, policies: &Policies) -> Self {
        let known = methods.iter().map(|method| Known {
            method,
            measured: ClientMethod::new(method, target),
            policy: policies.follow(method.full_name()),
        });
        Self {
            known: known.collect(),
            other: ClientMethod::other(target),
            policies: policies.clone(),
        }
    }

    /// What is known of the method at `path`, and its policy as it is now.
    fn find(&self, path: &str) -> (Option<&'static Method>, &ClientMethod, Arc<Policy>) {
        let known = self.known.iter().find(|known| known.method.path == path);
        match known {
            Some(known) => (Some(known.method), &known.measured, known.policy.load()),
            None => {
                let name = path.strip_prefix('/').unwrap_or(path);
                (None, &self.other, self.policies.find(name))
            }
        }
    }
}

impl Channel {
    fn new(target: Arc<Target>, methods: &'static [Method], policies: &Policies) -> Self {
        let methods = Arc::new(Methods::new(methods, &target.name, policies));
        Self {
            target,
            methods,
            said: None,
        }
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
        let (method, measured, policy) = self.methods.find(request.uri().path());
        // Here and not in the future: what is inherited is the context of whoever calls.
        let call = Call {
            measured: measured.start(),
            deadline: self.target.deadline_of(method, &policy, request.headers()),
            began: Instant::now(),
            target: Arc::clone(&self.target),
        };
        Box::pin(call.run(request))
    }
}

impl Target {
    /// When the caller of a request stops waiting: what it says itself, and no more than the policy;
    /// where it says nothing that, or the default of a unary method. Never later than the call being
    /// served allows.
    fn deadline_of(
        &self,
        method: Option<&Method>,
        policy: &Policy,
        headers: &HeaderMap,
    ) -> Result<Option<Deadline>, deadline::MalformedTimeout> {
        let said = headers.get(&GRPC_TIMEOUT).map(deadline::parse_timeout);
        let own = match (said.transpose()?, policy.timeout()) {
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
struct Call {
    measured: ClientCall,
    deadline: Result<Option<Deadline>, deadline::MalformedTimeout>,
    began: Instant,
    target: Arc<Target>,
}

impl Call {
    /// The whole stack.
    async fn run(self, request: Request<Body>) -> Result<Response<ResponseBody>, Status> {
        let answered = match self.deadline {
            Ok(deadline) => self.attempts(deadline, request).await,
            Err(malformed) => Err(Refusal::MalformedHeader.status(malformed.to_string())),
        };
        match answered {
            Ok(answered) => body::begin(answered, self.measured),
            Err(status) => {
                self.measured.end(status.code());
                Err(status)
            }
        }
    }

    async fn attempts(
        &self,
        deadline: Option<Deadline>,
        request: Request<Body>,
    ) -> Result<Answered, Status> {
        let mut timer = Timer::new(deadline);
        if deadline.is_some_and(Deadline::has_passed) {
            return Err(self.too_late("before it was sent"));
        }
        let (mut head, body) = request.into_parts();
        let mut outgoing = Outgoing::new(body);
        let mut which = Try::First;
        let mut repeats = Repeats::default();
        loop {
            let place = timer.bound(self.target.balancer.place()).await;
            let (mut picked, slot) = place
                .map_err(|_| self.too_late("waiting for an endpoint"))?
                .map_err(|error| no_endpoint(&error))?;
            let attempt = self.measured.attempt(which);
            attempt.picked(picked.addr());
            if let Some(asked) = head.extensions.get::<PickedEndpoint>() {
                asked.set(picked.addr());
            }
            let request = on_the_wire(&mut head, deadline, &attempt);
            let fair = deadline.is_none_or(|deadline| {
                picked.is_fair(deadline.instant().saturating_duration_since(self.began))
            });
            match timer.bound(exchange(slot, request, &mut outgoing)).await {
                Ok(Ok(response)) => {
                    picked.heard();
                    let readable = body::is_readable(response.headers(), &head.headers);
                    return Ok(Answered {
                        response,
                        timer,
                        picked,
                        attempt,
                        fair,
                        readable,
                    });
                }
                Ok(Err(mut failed)) => {
                    if timer.explains(failed.status.code()) {
                        failed.status = self.too_late(&format!("told by {}", picked.addr()));
                    }
                    picked.judged(classify::judge(failed.end(), fair));
                    attempt.end(failed.status.code());
                    if !repeats.allow(failed.fate) || !outgoing.rewind() {
                        return Err(failed.status);
                    }
                    which = Try::Transparent;
                }
                Err(timer::Passed) => {
                    let status = self.too_late(&format!("waiting for {}", picked.addr()));
                    picked.judged(classify::judge(End::DeadlinePassed, fair));
                    attempt.end(status.code());
                    return Err(status);
                }
            }
        }
    }

    fn too_late(&self, when: &str) -> Status {
        let public = format!("deadline exceeded after {:?}", self.began.elapsed());
        let text = format!("{}: {public}, {when}", self.target.name);
        status::with_public(Refusal::DeadlineExceeded.status(text), public)
    }
}

/// Which requests that reached no handler are sent again (gRFC A6).
#[derive(Debug, Default)]
struct Repeats {
    refused: u32,
    left_behind: u32,
}

impl Repeats {
    /// Whether one with this fate is; counts it.
    fn allow(&mut self, fate: Option<Fate>) -> bool {
        let (count, max) = match fate {
            Some(Fate::NotSent) => return true,
            Some(Fate::Refused) => (&mut self.refused, REFUSED_MAX),
            Some(Fate::LeftBehind) => (&mut self.left_behind, LEFT_BEHIND_MAX),
            Some(Fate::MaybeProcessed) | None => return false,
        };
        *count += 1;
        *count <= max
    }
}

/// An attempt whose answer began.
struct Answered {
    response: Response<crate::transport::subchannel::Incoming>,
    timer: Timer,
    picked: Picked,
    attempt: Attempt,
    fair: bool,
    /// Whether its messages are compressed in a way that its caller accepts, if they are.
    readable: bool,
}

/// The request of one attempt: what the caller wrote, and what the platform owns. The latter is
/// written into `head`, where the next attempt overwrites it: the copy has the right size then.
fn on_the_wire(
    head: &mut http::request::Parts,
    deadline: Option<Deadline>,
    attempt: &Attempt,
) -> Request<()> {
    let headers = &mut head.headers;
    if let Some(deadline) = deadline {
        let mut timeout = deadline::format_timeout(deadline.remaining());
        // Never the same twice: in HPACK's table it would only push out what is.
        timeout.set_sensitive(true);
        headers.insert(&GRPC_TIMEOUT, timeout);
    }
    headers.remove(&PREVIOUS_ATTEMPTS);
    headers.entry(header::USER_AGENT).or_insert(USER_AGENT);
    attempt.inject(headers);
    let mut request = Request::new(());
    *request.headers_mut() = headers.clone();
    *request.uri_mut() = head.uri.clone();
    request
}

fn no_endpoint(error: &NoEndpoint) -> Status {
    let text = status::chain(error);
    let status = Refusal::NoEndpoint.status_with_pause(text, NO_ENDPOINT_PAUSE);
    let public = match error {
        NoEndpoint::NotReady { .. } => "no instance is ready",
        NoEndpoint::Full { .. } => "too many calls wait already",
    };
    status::with_public(status, public)
}

#[cfg(test)]
mod tests;

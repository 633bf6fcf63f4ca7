//! The server's whole stack in one readable function.
//!
//! ```text
//! transport::server ──▶ Stack ── path ──▶ layers of that method ──▶ generated service
//! ```
//!
//! [`layered`] is the order in which a call passes the layers. Each method has its own, so that
//! what is per method (facts, metric handles, limits) is bound once and looked up never.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use ::http::{Request, Response};
use foldhash::fast::RandomState;
use http_body_util::Either;
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::{
    auth::Verifier,
    config::Live,
    contract::Method,
    limit::{
        concurrency::{Held, Place},
        rate::Limiter,
    },
    policy::Policy,
    telemetry::{Sampling, platform::InjectedFaults, rpc::ServerMethod},
    transport::server::{LiveLimits, Protocols},
};

mod bound;
mod deadline;
mod dispatch;
mod fault;
mod holding;
mod http;
mod messages;
mod named;
mod observe;
mod protect;
mod protocol;
mod rate;
pub mod reflection;
mod rescue;
mod router;
mod trailers;
mod verify;
mod wire;

use bound::Bound;
use deadline::{Bounds, Deadline};
use dispatch::Dispatch;
use fault::Faulty;
use http::Http;
use observe::Observe;
use protect::Protect;
use protocol::Protocol;
use rate::Rate;
use rescue::Rescue;
use verify::Verify;
use wire::Wire;

pub use http::{Calls, HttpService};
pub use named::Named;
pub use protect::Protection;
pub use router::{DescriptorError, Generated, Router};
pub use trailers::Trailers;
pub use verify::GATEWAYS;

/// The layers of one method around its handler, outermost first.
type Layered = Observe<Rescue<Protocol<Deadline<Protect<Verify<Rate<Bound<Dispatch>>>>>>>>;

/// The body of an answer that passed all layers.
type Answer = observe::Observed<rescue::Rescued<deadline::Bounded<Kept>>>;

/// The body of an answer that holds its places, in the process and in the method.
type Kept = holding::Holding<holding::Holding<dispatch::Answered, Place>, Held>;

/// A request's body as generated services see it.
pub type Inbound = messages::Measured<deadline::Received<Wire>>;

/// Puts the layers around a handler.
///
/// Read from the last line up, a call passes: what traces and measures it, so that every refusal
/// below is seen; what turns errors and panics into a status, so that it sees one for every call;
/// what turns away all that is not gRPC, before it costs more; the deadline, so that waiting
/// further in is part of it; what the process refuses as it is full or overloaded, before a signature
/// is judged; who calls, before the handler sees anything; what callers have no quota left for; what the
/// method has no room for, which is known only where its calls begin. Next to the handler, messages are measured as they pass, and faults
/// are made that are wanted.
fn layered(known: Known, handler: Arc<dyn dispatch::Handler>, around: &Around) -> Layered {
    let Known {
        method,
        observed,
        policy,
    } = known;
    let bounds = &around.bounds;
    let handler = if method.is_for_operation() {
        handler
    } else {
        Arc::new(Faulty::new(handler, policy.clone(), Arc::clone(bounds)))
    };
    let dispatch = Dispatch::new(handler, Arc::clone(bounds));
    // What somebody else serves is for them to bound, and to know the callers of.
    let is_ours = *method != router::UNKNOWN;
    let limiter = || around.protection.limiter(method, &policy);
    let bound = Bound::new(dispatch, is_ours.then(limiter).flatten());
    let rate = Rate::new(bound, method, around.rates.as_ref().filter(|_| is_ours));
    let verify = Verify::new(rate, method, around.tokens.as_ref().filter(|_| is_ours));
    let protect = Protect::new(
        verify,
        method,
        &policy,
        &around.protection,
        bounds.strangers,
    );
    let deadline = Deadline::new(protect, method, policy, Arc::clone(bounds));
    let protocol = Protocol::new(deadline);
    let rescue = Rescue::new(protocol, method);
    Observe::new(rescue, observed)
}

/// What is known of a method, or of all that nobody serves.
#[derive(Debug, Clone)]
struct Known {
    method: &'static Method,
    observed: ServerMethod,
    policy: Live<Policy>,
}

/// What the layers of all methods share.
#[derive(Debug)]
struct Around {
    bounds: Arc<Bounds>,
    protection: Arc<Protection>,
    tokens: Option<Verifier>,
    rates: Option<Limiter>,
}

/// Who answers for methods that nothing here serves, and what those are called.
#[derive(Debug)]
struct Others {
    layers: Layered,
    named: Named,
}

/// Every service of a process behind all layers; clones share them.
#[derive(Debug, Clone)]
pub struct Stack {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    methods: HashMap<&'static str, Layered, RandomState>,
    services: HashSet<&'static str>,
    /// Who answers for all methods that nobody serves.
    others: Option<Others>,
    /// All methods that nobody serves.
    other: Known,
    /// Who answers what is not gRPC.
    http: Option<Http>,
    /// Chooses which traces are recorded, where callers do not.
    strangers: Option<Sampling>,
    around: Around,
}

impl Stack {
    /// The methods that are served, by their full names, `package.Service/Method`.
    pub fn methods(&self) -> impl Iterator<Item = &'static str> {
        let paths = self.shared.methods.keys();
        paths.map(|path| path.strip_prefix('/').unwrap_or(path))
    }

    /// Puts the layers around every method of `services`. `limits` are read anew for each call.
    #[must_use]
    pub fn new(services: Router, limits: LiveLimits) -> Self {
        let bounds = Arc::new(Bounds {
            limits,
            faults: services.faults,
            injected: InjectedFaults::register(),
            held: Arc::default(),
            strangers: services.strangers.is_some(),
            end: CancellationToken::new(),
        });
        let around = Around {
            bounds,
            protection: Arc::new(services.protection.unwrap_or_default()),
            tokens: services.tokens,
            rates: services.rates,
        };
        let policies = &services.policies;
        let known = |method: &'static Method, observed| Known {
            method,
            observed,
            policy: policies.follow(method.full_name()),
        };
        let routes = services.routes.into_iter();
        let methods = routes
            .map(|(method, handler)| {
                let known = known(method, ServerMethod::new(method));
                (method.path, layered(known, handler, &around))
            })
            .collect();
        let other = known(&router::UNKNOWN, ServerMethod::other());
        let others = services.others.map(|(handler, named)| Others {
            layers: layered(other.clone(), handler, &around),
            named,
        });
        Self {
            shared: Arc::new(Shared {
                methods,
                services: services.services,
                others,
                other,
                http: services.http.map(Http::new),
                strangers: services.strangers,
                around,
            }),
        }
    }

    /// What the listener must speak for everything to be reached.
    #[must_use]
    pub fn protocols(&self) -> Protocols {
        match self.shared.http {
            Some(_) => Protocols::Http1And2,
            None => Protocols::Http2,
        }
    }

    /// Passes a call to the layers of its method.
    fn grpc(&self, request: Request<Wire>) -> <Layered as Service<Request<Wire>>>::Future {
        let path = request.uri().path();
        if let Some(method) = self.shared.methods.get(path) {
            return method.clone().call(request);
        }
        if let Some(others) = &self.shared.others {
            return match others.named.get(path) {
                Some(method) => others.layers.known_as(method).call(request),
                None => others.layers.clone().call(request),
            };
        }
        let unknown = router::unimplemented(path, &self.shared.services);
        let known = self.shared.other.clone();
        layered(known, unknown, &self.shared.around).call(request)
    }

    fn bounds(&self) -> &Arc<Bounds> {
        &self.shared.around.bounds
    }

    /// Ends every call in flight, and those that still arrive, with UNAVAILABLE and a pushback of
    /// zero: come back at once, elsewhere.
    pub fn end_calls(&self) {
        self.bounds().end.cancel();
    }
}

impl Service<Request<Incoming>> for Stack {
    type Response = Response<Either<Answer, http::Answered>>;
    type Error = Infallible;
    type Future = Serving;

    // Always: whatever cannot be taken is answered with a status.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        // Here alone: what is made of a request further in follows what was chosen for it.
        if let Some(sampling) = &self.shared.strangers {
            sampling.decide(request.headers_mut());
        }
        if let Some(http) = &self.shared.http
            && !protocol::is_grpc(request.headers())
        {
            let answer = http.answer(self, request);
            let way = Way::Http { answer };
            return Serving { way };
        }
        let answer = self.grpc(request.map(Wire::from));
        let way = Way::Grpc { answer };
        Serving { way }
    }
}

pin_project! {
    /// A request on its way to the head of its answer.
    pub struct Serving {
        #[pin]
        way: Way,
    }
}

pin_project! {
    #[project = WayProjection]
    enum Way {
        Grpc { #[pin] answer: <Layered as Service<Request<Wire>>>::Future },
        Http { #[pin] answer: http::Serving },
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").finish_non_exhaustive()
    }
}

impl Future for Serving {
    type Output = Result<Response<Either<Answer, http::Answered>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project().way.project() {
            WayProjection::Grpc { answer } => {
                ready!(answer.poll(cx)).map(|response| response.map(Either::Left))
            }
            WayProjection::Http { answer } => {
                ready!(answer.poll(cx)).map(|response| response.map(Either::Right))
            }
        })
    }
}

#[cfg(test)]
mod tests;

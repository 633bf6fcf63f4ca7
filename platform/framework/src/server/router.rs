//! Which handler serves which path.

use std::{collections::HashSet, convert::Infallible, fmt, sync::Arc};

use ::http::{Request, Response};
use prost::Message as _;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};
use tonic::{body::Body, codegen::BoxFuture, server::NamedService};
use tower::Service;

use super::{HttpService, Inbound, Named, Protection, dispatch::Handler, http};
use crate::{
    auth::Verifier,
    contract::{Access, Idempotency, MessageLimits, Method, Server},
    fault::Faults,
    limit::rate::Limiter,
    policy::Policies,
    status::Refusal,
    telemetry::Sampling,
};

/// Stands for every method nobody serves, so that made-up names reach no metric.
pub(super) static UNKNOWN: Method = Method {
    path: "/_OTHER/_OTHER",
    client_streaming: true,
    server_streaming: true,
    idempotency: Idempotency::Unknown,
    access: Access::Token,
    role: None,
};

/// Largest message that a server without our contract takes; tonic's own bound.
const PLAIN_RECEIVE_MAX: usize = 4 * 1_024 * 1_024;

/// Collects the services of a process.
#[derive(Default)]
pub struct Router {
    pub(super) routes: Vec<(&'static Method, Arc<dyn Handler>)>,
    pub(super) services: HashSet<&'static str>,
    descriptors: Vec<&'static [u8]>,
    pub(super) others: Option<(Arc<dyn Handler>, Named)>,
    pub(super) http: Option<http::Handler>,
    pub(super) tokens: Option<Verifier>,
    pub(super) strangers: Option<Sampling>,
    pub(super) policies: Policies,
    pub(super) faults: Faults,
    pub(super) protection: Option<Protection>,
    pub(super) rates: Option<Limiter>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}

/// Serves requests the way generated code does; everything tonic generates is one.
pub trait Generated:
    Service<
        Request<Inbound>,
        Response = Response<Body>,
        Error = Infallible,
        Future = BoxFuture<Response<Body>, Infallible>,
    >
{
}

impl<S> Generated for S where
    S: Service<
            Request<Inbound>,
            Response = Response<Body>,
            Error = Infallible,
            Future = BoxFuture<Response<Body>, Infallible>,
        >
{
}

/// Why a service cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorError {
    /// The bytes are not a descriptor set.
    #[error("read the descriptors of {service}")]
    Malformed {
        /// The service they should describe.
        service: &'static str,
        /// Why not.
        source: prost::DecodeError,
    },
    /// They describe other services.
    #[error("the descriptors do not describe {service}")]
    Missing {
        /// The service they should describe.
        service: &'static str,
    },
}

impl Router {
    /// No services.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a generated server. Its message limits are those in force when a call begins.
    ///
    /// # Panics
    ///
    /// If the service was added before.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "a router is no sum")]
    pub fn add<S>(mut self, server: S) -> Self
    where
        S: Server + Generated,
    {
        self.claim(S::NAME, S::DESCRIPTORS);
        let handler: Arc<dyn Handler> = Arc::new(Contracted(server));
        let routes = S::METHODS.iter();
        self.routes
            .extend(routes.map(|method| (method, Arc::clone(&handler))));
        self
    }

    /// Adds a generated server that knows nothing of our contract, as tonic's reflection does.
    /// The facts of its methods are read from `descriptors`, once, and kept for the life of the
    /// process.
    ///
    /// # Errors
    ///
    /// If `descriptors` do not describe it.
    ///
    /// # Panics
    ///
    /// If the service was added before.
    pub fn add_plain<S>(
        mut self,
        server: S,
        descriptors: &'static [u8],
    ) -> Result<Self, DescriptorError>
    where
        S: NamedService + Clone + Send + Sync + 'static + Generated,
    {
        let methods = describe(S::NAME, descriptors)?;
        self.claim(S::NAME, descriptors);
        let handler: Arc<dyn Handler> = Arc::new(Plain {
            server,
            receive_max: PLAIN_RECEIVE_MAX,
        });
        self.routes
            .extend(methods.iter().map(|method| (method, Arc::clone(&handler))));
        Ok(self)
    }

    /// Answers every call to a method that nothing else serves, in place of UNIMPLEMENTED. Those
    /// that are `named` are measured by their names.
    ///
    /// # Panics
    ///
    /// If there is one already.
    #[must_use]
    pub fn others<S>(mut self, server: S, named: Named) -> Self
    where
        S: Clone + Send + Sync + 'static + Generated,
    {
        assert!(self.others.is_none(), "the others are served already");
        // Messages pass whole, within the bounds of the moment.
        let handler = Arc::new(Plain {
            server,
            receive_max: usize::MAX,
        });
        self.others = Some((handler, named));
        self
    }

    /// Answers every request that is not gRPC; without it, they are refused. Such requests may come
    /// over HTTP/1.1. Each carries [`Calls`](super::Calls) in its extensions.
    ///
    /// # Panics
    ///
    /// If there is one already.
    #[must_use]
    pub fn http(mut self, server: impl HttpService) -> Self {
        assert!(self.http.is_none(), "other requests are served already");
        self.http = Some(http::handler(server));
        self
    }

    /// Lets nobody call a method that wants a token without one that `tokens` accepts: UNAUTHENTICATED
    /// before the handler runs. Handlers find who calls by [`auth::caller`](crate::auth::caller).
    /// Methods that nothing here serves ([`Router::others`]) are left to who answers for them.
    ///
    /// # Panics
    ///
    /// If tokens are verified already.
    #[must_use]
    pub fn verify_tokens(mut self, tokens: Verifier) -> Self {
        assert!(self.tokens.is_none(), "tokens are verified already");
        self.tokens = Some(tokens);
        self
    }

    /// Has calls follow `policies`; without them they follow the defaults.
    #[must_use]
    pub fn follow(mut self, policies: Policies) -> Self {
        self.policies = policies;
        self
    }

    /// Refuses calls as `protection` says, in place of what ships. Health, reflection and the
    /// platform's own services are never refused.
    #[must_use]
    pub fn protect(mut self, protection: Protection) -> Self {
        self.protection = Some(protection);
        self
    }

    /// Counts calls by the quotas of `rates`; without it nothing is counted, as are health, reflection and
    /// the platform's own services always. Methods that nothing here serves ([`Router::others`]) are left
    /// to who answers for them.
    #[must_use]
    pub fn count(mut self, rates: Limiter) -> Self {
        self.rates = Some(rates);
        self
    }

    /// Has `sampling` choose which traces are recorded, whatever callers say. They are strangers
    /// then, and no word of theirs makes a call matter more than others.
    #[must_use]
    pub fn sample_by(mut self, sampling: Sampling) -> Self {
        self.strangers = Some(sampling);
        self
    }

    /// The full names of the methods that are served.
    pub fn methods(&self) -> impl Iterator<Item = &'static str> {
        self.routes.iter().map(|(method, _)| method.full_name())
    }

    /// Has calls meet what `faults` say, as it is switched on and off.
    #[must_use]
    pub fn meet(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Whether calls to what others serve are answered here.
    #[must_use]
    pub fn hands_on(&self) -> bool {
        self.others.is_some()
    }

    /// The same without `service`, where it has that.
    #[must_use]
    pub(crate) fn without(mut self, service: &str) -> Self {
        self.services.remove(service);
        self.routes
            .retain(|(method, _)| method.service() != service);
        self
    }

    /// Full names of the services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &'static str> {
        self.services.iter().copied()
    }

    /// The encoded `FileDescriptorSet` of each service, in the order they were added.
    #[must_use]
    pub fn descriptors(&self) -> &[&'static [u8]] {
        &self.descriptors
    }

    fn claim(&mut self, name: &'static str, descriptors: &'static [u8]) {
        assert!(self.services.insert(name), "{name} is added twice");
        self.descriptors.push(descriptors);
    }
}

/// A server of ours: its limits change while it runs.
struct Contracted<S>(S);

impl<S> Handler for Contracted<S>
where
    S: Server + Generated,
{
    fn call(
        &self,
        request: Request<Inbound>,
        limits: MessageLimits,
    ) -> BoxFuture<Response<Body>, Infallible> {
        self.0.clone().with_limits(limits).call(request)
    }
}

/// A server of someone else's, and the largest message that it takes.
struct Plain<S> {
    server: S,
    receive_max: usize,
}

impl<S> Handler for Plain<S>
where
    S: Clone + Send + Sync + 'static + Generated,
{
    fn call(
        &self,
        request: Request<Inbound>,
        _: MessageLimits,
    ) -> BoxFuture<Response<Body>, Infallible> {
        self.server.clone().call(request)
    }

    fn receive_max(&self) -> usize {
        self.receive_max
    }
}

/// Answers UNIMPLEMENTED, naming what is missing.
struct Unimplemented(String);

impl Handler for Unimplemented {
    fn call(&self, _: Request<Inbound>, _: MessageLimits) -> BoxFuture<Response<Body>, Infallible> {
        let status = Refusal::Unimplemented.status(self.0.as_str());
        Box::pin(std::future::ready(Ok(status.into_http())))
    }
}

/// The handler of a path that is not served.
pub(super) fn unimplemented(path: &str, services: &HashSet<&'static str>) -> Arc<dyn Handler> {
    let name = path.strip_prefix('/').unwrap_or(path);
    let message = match name.rsplit_once('/') {
        Some((service, method)) if services.contains(service) => {
            format!("service {service} has no method {method}")
        }
        Some((service, _)) => format!("unknown service {service}"),
        None => format!("{path} is not the path of a method"),
    };
    Arc::new(Unimplemented(message))
}

/// The facts of the methods of `service`.
fn describe(
    service: &'static str,
    descriptors: &[u8],
) -> Result<&'static [Method], DescriptorError> {
    let set = FileDescriptorSet::decode(descriptors)
        .map_err(|source| DescriptorError::Malformed { service, source })?;
    let found = set.file.iter().find_map(|file| {
        let named = file.service.iter();
        named
            .clone()
            .find(|it| format!("{}.{}", file.package(), it.name()) == service)
    });
    let described = found.ok_or(DescriptorError::Missing { service })?;
    let methods = described.method.iter().map(|it| facts(service, it));
    Ok(Box::leak(methods.collect()))
}

fn facts(service: &str, method: &MethodDescriptorProto) -> Method {
    let path = format!("/{service}/{}", method.name());
    Method {
        path: Box::leak(path.into_boxed_str()),
        client_streaming: method.client_streaming(),
        server_streaming: method.server_streaming(),
        idempotency: Idempotency::of(method.options.as_ref()),
        // What gRPC defines for everybody, health and reflection; of others, plain descriptors keep
        // no option that would say.
        access: if service.starts_with("grpc.") {
            Access::Public
        } else {
            Access::Token
        },
        role: None,
    }
}

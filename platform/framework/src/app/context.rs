//! What a service builds itself from while it starts.

use std::{collections::BTreeSet, fmt, future::Future, mem};

use gantry_api::admin::v1::GetEventsResponse;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic_reflection::pb::v1::server_reflection_server::ServerReflection;

use super::{Identity, drain::Hook, inside::Shown, reflection, registry::Registry};
use crate::{
    auth::{Fetch, Rules, Verifier},
    breaker::{self, Breaker, Register},
    client::{Channel, Clients},
    config::{Live, Section},
    contract,
    discovery::Directory,
    fault::Faults,
    health::{Check, Health},
    journal::Journal,
    limit::{board::Board, rate::Limiter},
    policy::Policies,
    server::{DescriptorError, Generated, HttpService, Named, Router},
    shutdown::Tasks,
    telemetry::metric::Value,
};

/// A process that starts: given to the service's `start`, which adds what it serves, checks and
/// runs. Nothing is served before `start` returns.
///
/// ```no_run
/// use gantry::app::{App, BoxError};
///
/// async fn start(app: &mut App<()>) -> Result<(), BoxError> {
///     let stopping = app.tasks().stopping();
///     app.spawn("sweeper", async move { stopping.cancelled().await });
///     app.on_close("index", async { /* write it down */ });
///     Ok(())
/// }
/// ```
pub struct App<C> {
    pub(super) identity: Identity,
    pub(super) config: Live<C>,
    pub(super) health: Health,
    pub(super) journal: Journal,
    pub(super) tasks: Tasks,
    pub(super) draining: CancellationToken,
    pub(super) clients: Clients,
    pub(super) faults: Faults,
    pub(super) limits: Board,
    pub(super) rates: Limiter,
    pub(super) policies: Policies,
    pub(super) breakers: Register,
    pub(super) events: Shown,
    pub(super) registry: Option<Registry>,
    pub(super) router: Router,
    pub(super) finishing: Vec<Hook>,
    pub(super) hooks: Vec<Hook>,
    /// Names of the targets that are checked already.
    pub(super) called: BTreeSet<String>,
}

impl<C: Section> App<C> {
    /// The service's own configuration. It changes while the service runs: keep the `Live`, or
    /// subscribe to it.
    #[must_use]
    pub fn config(&self) -> Live<C> {
        self.config.clone()
    }

    /// Who this program is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Serves a generated server, with health and reflection for it, once the start-up is done.
    ///
    /// # Panics
    ///
    /// If the service is served already.
    pub fn serve<S>(&mut self, server: S)
    where
        S: contract::Server + Generated,
    {
        self.health.register(S::NAME);
        self.router = mem::take(&mut self.router).add(server);
    }

    /// A client of the target that `[clients.<name>]` configures: any generated client, or a
    /// [`Channel`]. Building it does no I/O; a target that is missing or not configured shows in
    /// calls, and as a health check that reports.
    #[must_use]
    pub fn client<T: contract::Client<Channel>>(&mut self, name: &str) -> T {
        let channel: Channel = self.clients.client(name);
        if self.called.insert(name.to_owned()) {
            self.check(dependency(name, channel));
        }
        self.clients.client(name)
    }

    /// Serves a server that knows nothing of our contract, by the facts in `descriptors`, an encoded
    /// `FileDescriptorSet`. Reflection of its own takes the place of the platform's, where the
    /// configuration allows any.
    ///
    /// Options of a method that say who may call it are not read: what is not gRPC's own (`grpc.`)
    /// wants a token and no role.
    ///
    /// # Errors
    ///
    /// If `descriptors` do not describe it.
    ///
    /// # Panics
    ///
    /// If the service is served already.
    pub fn serve_plain<S>(
        &mut self,
        server: S,
        descriptors: &'static [u8],
    ) -> Result<(), DescriptorError>
    where
        S: NamedService + Clone + Send + Sync + 'static + Generated,
    {
        self.router = mem::take(&mut self.router).add_plain(server, descriptors)?;
        Ok(())
    }

    /// Describes services by `described` in place of the framework's own reflection, as v1 and
    /// v1alpha: for programs that know of more than they serve themselves. It is left out where
    /// `reflection` says so.
    ///
    /// # Errors
    ///
    /// If the descriptors of reflection are broken.
    ///
    /// # Panics
    ///
    /// If there is one already.
    pub fn serve_reflection(
        &mut self,
        described: impl ServerReflection,
    ) -> Result<(), DescriptorError> {
        self.router = reflection::serve(mem::take(&mut self.router), described)?;
        Ok(())
    }

    /// Answers every call to a method that nothing here serves: for programs that hand calls on.
    /// Such a program says by what is returned which of them there are, so that these are measured
    /// and traced by their names.
    ///
    /// # Panics
    ///
    /// If there is one already.
    pub fn serve_others<S>(&mut self, server: S) -> Named
    where
        S: Clone + Send + Sync + 'static + Generated,
    {
        let named = Named::default();
        self.router = mem::take(&mut self.router).others(server, named.clone());
        named
    }

    /// Answers every request that is not gRPC; without it they are refused. They may come over
    /// HTTP/1.1 then, and each carries [`Calls`](crate::server::Calls) in its extensions: a handler
    /// that translates other protocols passes calls through the layers by them.
    ///
    /// A handler that panics answers 500, one that has no head of its answer after
    /// `limits.unary_deadline_max` 504. A [`Route`](crate::telemetry::http::Route) in the
    /// extensions of an answer names its span.
    ///
    /// # Panics
    ///
    /// If there is one already.
    pub fn serve_http(&mut self, server: impl HttpService) {
        self.router = mem::take(&mut self.router).http(server);
    }

    /// Asks for a token wherever the contract of a method served here does not say otherwise
    /// (`gantry.access.v1.access`), streams included: a call without one that `rules` accept is
    /// refused as UNAUTHENTICATED before its handler runs. Handlers find who calls by
    /// [`auth::caller`](crate::auth::caller). The issuer's keys are read by `keys`, now and again.
    ///
    /// # Panics
    ///
    /// If tokens are verified already.
    pub fn verify_tokens(&mut self, keys: impl Fetch, rules: Live<Rules>) {
        let tokens = Verifier::new(keys, rules);
        let (fresh, stopping) = (tokens.clone().keep_fresh(), self.tasks.stopping());
        self.spawn("token keys", async move {
            stopping.run_until_cancelled(fresh).await;
        });
        self.router = mem::take(&mut self.router).verify_tokens(tokens);
    }

    /// Every service that is registered, followed from now on; none where no registry is
    /// configured.
    #[must_use]
    pub fn directory(&self) -> Option<Directory> {
        let registry = self.registry.as_ref()?;
        Some(registry.directory(&self.tasks, self.journal.clone()))
    }

    /// The targets of this process, for programs that learn whom they call while they run. What is
    /// called through these alone is no health check.
    #[must_use]
    pub fn clients(&self) -> Clients {
        self.clients.clone()
    }

    /// A breaker around something that this process calls, closed; operators see it by `name`, and may
    /// decide in its place. `name` stands in metrics and the journal: fixed in the program, like
    /// `bank`.
    ///
    /// # Panics
    ///
    /// If a breaker of this name exists.
    #[must_use]
    pub fn breaker(&self, name: impl Into<Value>, config: Live<breaker::Config>) -> Breaker {
        let breaker = Breaker::new(name, config, self.journal.clone());
        self.breakers.add(&breaker);
        breaker
    }

    /// Where operators see the limits of this process, for programs that have limits of their own.
    #[must_use]
    pub fn limits(&self) -> Board {
        self.limits.clone()
    }

    /// Has operators see how events fare in this process, by whoever carries them; it is asked whenever
    /// somebody looks, and does not wait.
    ///
    /// # Panics
    ///
    /// If somebody tells of that already.
    pub fn show_events(&mut self, shown: impl Fn() -> GetEventsResponse + Send + Sync + 'static) {
        let first = self.events.set(Box::new(shown)).is_ok();
        assert!(first, "events are carried by two");
    }

    /// The quotas of the process, for programs that hand calls on: what nothing here serves is theirs
    /// to count. What is served here is counted already.
    #[must_use]
    pub fn limiter(&self) -> Limiter {
        self.rates.clone()
    }

    /// What holds for the calls of each method, for programs that hand calls on and have layers of their
    /// own.
    #[must_use]
    pub fn policies(&self) -> Policies {
        self.policies.clone()
    }

    /// Runs a background task for as long as the process does. It is told to stop through
    /// [`Tasks::stopping`] once no call is left, and aborted where it does not.
    ///
    /// The process is useless without it: a panic drains the process, which then exits with 1
    /// and is started afresh. A task that may fail alone belongs in [`App::tasks`].
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_essential(name, task);
    }

    /// The process's background tasks; stopped after the last call, before what is closed.
    #[must_use]
    pub fn tasks(&self) -> Tasks {
        self.tasks.clone()
    }

    /// Begins to run a check.
    ///
    /// # Panics
    ///
    /// If a check of this name exists.
    pub fn check(&self, check: Check) {
        self.health.check(check, &self.tasks);
    }

    /// The process's health, for handlers that mark their own service:
    /// `app.health().service(OrdersServiceServer::<Orders>::NAME)`.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// What changed in this process, in order.
    #[must_use]
    pub fn journal(&self) -> Journal {
        self.journal.clone()
    }

    /// Cancelled when the process takes no more calls and those in flight should come to their
    /// end: handlers of endless streams watch it.
    #[must_use]
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Runs `finish` when the process takes no more calls, beside those in flight, and waits for it
    /// within their time: for work that is not a call, and comes to its end like one. It is dropped
    /// where it takes longer.
    pub fn on_finish(
        &mut self,
        name: &'static str,
        finish: impl Future<Output = ()> + Send + 'static,
    ) {
        self.finishing.push(Hook {
            name,
            close: Box::pin(finish),
        });
    }

    /// Runs `close` near the end of the process, when no call and no task is left; what was added
    /// last is closed first. It has a second, together with the others.
    pub fn on_close(
        &mut self,
        name: &'static str,
        close: impl Future<Output = ()> + Send + 'static,
    ) {
        self.hooks.push(Hook {
            name,
            close: Box::pin(close),
        });
    }
}

/// Whether calls to a target would find a ready endpoint.
fn dependency(name: &str, channel: Channel) -> Check {
    Check::dependency(name, move || {
        let ready = channel.is_ready();
        std::future::ready(if ready {
            Ok(())
        } else {
            Err("no endpoint is ready".into())
        })
    })
}

impl<C> fmt::Debug for App<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("identity", &self.identity)
            .field("router", &self.router)
            .finish_non_exhaustive()
    }
}

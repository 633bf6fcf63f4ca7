//! One process from its configuration to its end, whoever started it.
//!
//! Sockets are bound first, so that a taken port is known before anything else begins, and
//! accepted from last, so that nobody is served by half a service. In between the side port
//! already answers, and says what the start-up waits for.

use std::{
    collections::BTreeSet,
    future::Future,
    io, mem,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    App, Identity,
    descriptors::Descriptors,
    drain::{Ending, Serving},
    exports::Exports,
    inside::View,
    protection, reflection,
    registry::{Registering, Registry},
    settings::Settings,
    upkeep,
};
use crate::{
    BoxError,
    admin::{self, Admin, Grpc, Pages, SidePort},
    breaker::Register,
    client::Clients,
    config::{Live, Section},
    discovery::Announcement,
    fault::Faults,
    health::{self, Health, Liveness},
    journal::{self, Journal, Kind},
    limit::board::Board,
    policy::Policies,
    server::{DescriptorError, Router, Stack},
    shutdown::{Request, Stop, Tasks},
    telemetry::{Directives, LogLevel, Sampling, Telemetry},
    transport::server::{BindError, Handle, Listener},
};

/// Why a process does not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Listen(#[from] BindError),
    #[error("take over the socket of LISTEN_FDS")]
    Inherited(#[source] io::Error),
    #[error(transparent)]
    SidePort(#[from] admin::BindError),
    #[error("describe the services")]
    Describe(#[from] reflection::Error),
    #[error("describe the side port")]
    DescribeSidePort(#[from] crate::server::reflection::Malformed),
    #[error("serve the platform's own services")]
    Own(#[from] DescriptorError),
    #[error(transparent)]
    Policies(#[from] crate::config::Faults),
    #[error("start {service}")]
    Service {
        service: &'static str,
        source: BoxError,
    },
}

/// What a process needs before it is a service.
pub(super) struct Process<C> {
    pub(super) identity: Identity,
    /// This process among all of the service.
    pub(super) instance: String,
    pub(super) settings: Settings<C>,
    pub(super) journal: Journal,
    pub(super) stop: Stop,
    /// The platform's own tasks, which end after everything else.
    pub(super) platform: Tasks,
    /// Where to listen, if whoever started the process handed a socket to it.
    pub(super) socket: Option<TcpListener>,
    /// How many files and sockets there may be.
    pub(super) descriptors: Descriptors,
    /// Where the process tells what it does; none where a test does not want to know.
    pub(super) telemetry: Option<Telemetry>,
}

/// A process that serves, or was asked to stop before it did.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) address: SocketAddr,
    pub(super) side_address: SocketAddr,
    pub(super) stop: Stop,
    ending: Ending,
}

/// Sockets that are bound and not accepted from.
struct Bound {
    listener: Listener,
    address: SocketAddr,
    side_port: SidePort,
}

impl Bound {
    async fn bind<C: Section>(
        settings: &Settings<C>,
        socket: Option<TcpListener>,
        descriptors: Descriptors,
    ) -> Result<Self, StartError> {
        let all = settings.live.load();
        let platform = &all.first;
        let limits = descriptors.fit(&platform.limits);
        let listener = match socket {
            Some(socket) => Listener::lent(&platform.listen, socket, limits.live())?,
            None => Listener::bind(&platform.listen, limits.live())?,
        };
        let address = listener.handle().local_addr();
        Ok(Self {
            address: address.expect("a socket of TCP has an address"),
            listener,
            side_port: SidePort::bind(&platform.admin).await?,
        })
    }
}

impl<C: Section> Process<C> {
    /// Starts the service. Once this returns it serves, or has been asked to stop already.
    pub(super) async fn start<S>(mut self, start: S) -> Result<Running, StartError>
    where
        S: AsyncFnOnce(&mut App<C>) -> Result<(), BoxError>,
    {
        let Identity { name, version, .. } = self.identity;
        self.journal.record(Kind::Starting, name, version);
        let bound = Bound::bind(&self.settings, self.socket.take(), self.descriptors).await?;
        let side_address = bound.side_port.local_addr();
        let registry = self
            .settings
            .live
            .read(|settings| Registry::new(&settings.first.etcd, &self.platform, &self.journal));
        let registers = self
            .settings
            .live
            .read(|settings| settings.first.registers());
        let registering = Arc::new(Registering::new(registers));
        let mut app = self.app(registry.as_ref());
        let served = Arc::new(OnceLock::new());
        let mut running = Running {
            address: bound.address,
            side_address,
            stop: self.stop.clone(),
            ending: self.ending(&app, &bound.listener, &served, &registering),
        };
        let view = View {
            settings: self.settings.clone(),
            clients: app.clients.clone(),
            limits: app.limits.clone(),
            breakers: app.breakers.clone(),
            events: Arc::clone(&app.events),
            health: app.health.clone(),
            registry: registry.clone(),
            registering: Arc::clone(&registering),
            served: Arc::clone(&served),
        };
        self.open_side_port(bound.side_port, bound.listener.handle(), &app, view)?;
        upkeep::start(&self, &bound.listener.handle());
        let faults = app.faults.clone();
        let faults = faults.follow(self.journal.clone(), self.platform.stopping());
        self.platform.spawn("faults", faults);

        // Cancel-safe: a start-up that is told to stop is dropped as a whole.
        let started = tokio::select! {
            started = start(&mut app) => Some(started),
            _ = self.stop.requested() => None,
        };
        running.ending.hooks = mem::take(&mut app.hooks);
        running.ending.finishing = mem::take(&mut app.finishing);
        match started {
            Some(Ok(())) => {
                let health = app.health.clone();
                self.serve(bound.listener, app, &served, bound.address)?;
                if let Some(registry) = registry.filter(|_| registers) {
                    self.register(&registry, &registering, health, bound.address);
                }
                Ok(running)
            }
            Some(Err(source)) => {
                running.abandon().await;
                Err(StartError::Service {
                    service: name,
                    source,
                })
            }
            None => Ok(running),
        }
    }

    fn app(&self, registry: Option<&Registry>) -> App<C> {
        let settings = self.settings.live.load();
        let policies = self.policies();
        let mut clients = Clients::new(
            settings.first.clients.clone(),
            self.platform.clone(),
            self.journal.clone(),
        )
        .following(self.settings.live.map(|settings| &settings.first.clients))
        .with_policies(policies.clone())
        .with_zone(settings.first.registration.zone.as_deref());
        if let Some(registry) = registry {
            clients = registry.teach(clients, &self.platform, &self.journal);
        }
        App {
            identity: self.identity,
            config: self.settings.live.map(|settings| &settings.second),
            health: Health::new(self.journal.clone(), settings.first.health),
            journal: self.journal.clone(),
            tasks: Tasks::new(self.journal.clone()),
            draining: CancellationToken::new(),
            clients,
            faults: Faults::default(),
            limits: Board::default(),
            rates: protection::quotas(self),
            policies,
            breakers: Register::default(),
            events: Arc::default(),
            registry: registry.cloned(),
            router: Router::new(),
            finishing: Vec::new(),
            hooks: Vec::new(),
            called: BTreeSet::new(),
        }
    }

    fn policies(&self) -> Policies {
        Policies::new(&self.settings.live.map(|settings| &settings.first.policies))
    }

    fn ending(
        &self,
        app: &App<C>,
        listener: &Listener,
        served: &Arc<OnceLock<Stack>>,
        registering: &Arc<Registering>,
    ) -> Ending {
        let registering = Arc::clone(registering);
        Ending {
            deregister: Box::pin(async move { registering.leave().await }),
            config: self
                .settings
                .live
                .derive(|settings| settings.first.shutdown),
            journal: self.journal.clone(),
            health: app.health.clone(),
            draining: app.draining.clone(),
            serving: Box::new(Served {
                handle: listener.handle(),
                stack: Arc::clone(served),
            }),
            tasks: app.tasks.clone(),
            finishing: Vec::new(),
            hooks: Vec::new(),
            platform: self.platform.clone(),
        }
    }

    fn open_side_port(
        &self,
        side_port: SidePort,
        listener: Handle,
        app: &App<C>,
        view: View<C>,
    ) -> Result<(), StartError> {
        let registering = Arc::clone(&view.registering);
        let exports = Exports::new(listener.clone());
        let admin = Admin {
            name: self.identity.name,
            version: self.identity.version,
            instance: self.instance.clone(),
            started: journal::now(),
            begun: Instant::now(),
            inside: Box::new(view),
            listener,
            health: app.health.clone(),
            journal: self.journal.clone(),
            faults: app.faults.clone(),
            log_level: self.log_level(),
            stop: self.stop.clone(),
            stopping: self.platform.stopping(),
        };
        let telemetry = self.telemetry.clone();
        let metrics = move || {
            exports.refresh();
            telemetry
                .as_ref()
                .map(Telemetry::render_metrics)
                .unwrap_or_default()
        };
        let pages = Pages {
            health: app.health.clone(),
            liveness: Liveness::watch(&self.platform),
            metrics: Arc::new(metrics),
            unregistered: Arc::new(move || registering.missing()),
            grpc: Grpc::new(admin)?,
            hosts: self
                .settings
                .live
                .read(|settings| settings.first.admin.hosts.clone()),
        };
        let serve = side_port.serve(
            Arc::new(pages),
            self.platform.clone(),
            self.descriptors.side_port(),
        );
        self.platform.spawn_essential("side port", serve);
        Ok(())
    }

    /// Begins to register what is served at `address`.
    fn register(
        &self,
        registry: &Registry,
        registering: &Registering,
        health: Health,
        address: SocketAddr,
    ) {
        let settings = self.settings.live.load();
        let platform = &settings.first;
        let config = &platform.registration;
        let started = journal::now().duration_since(SystemTime::UNIX_EPOCH);
        let services = health.statuses().into_keys();
        let announcement = Announcement {
            name: config
                .name
                .clone()
                .unwrap_or_else(|| self.identity.name.to_owned()),
            address: config
                .address
                .clone()
                .unwrap_or_else(|| address.to_string()),
            instance: self.instance.clone(),
            version: self.identity.version.to_owned(),
            zone: config.zone.clone(),
            weight_percent: config.weight_percent,
            start_time: started.map_or(0, |since| since.as_secs()),
            services: services.filter(|service| !service.is_empty()).collect(),
            tls: platform.listen.certificate.is_some(),
        };
        let owner = (&self.platform, &self.journal);
        registering.begin(registry, &announcement, config, health, owner);
    }

    pub(super) fn log_level(&self) -> LogLevel {
        let level = self.telemetry.as_ref().map(Telemetry::log_level);
        level
            .cloned()
            .unwrap_or_else(|| LogLevel::new(Directives::default()))
    }

    fn serve(
        &self,
        listener: Listener,
        app: App<C>,
        served: &OnceLock<Stack>,
        address: SocketAddr,
    ) -> Result<(), StartError> {
        let own = health::service::server(app.health.clone(), app.draining.clone());
        let mut router = app
            .router
            .add_plain(own, gantry_api::health::v1::DESCRIPTORS)?;
        let reflection = self
            .settings
            .live
            .read(|settings| settings.first.reflection);
        let described = router.services().any(|it| it == reflection::SERVICES[0]);
        if !reflection.unwrap_or(address.ip().to_canonical().is_loopback()) {
            let without = reflection::SERVICES.iter();
            router = without.fold(router, |router, it| router.without(it));
        } else if !described {
            router = reflection::add(router)?;
        }
        let trusted = self
            .settings
            .live
            .read(|settings| settings.first.telemetry.trust_remote);
        if !trusted.unwrap_or(!router.hands_on()) {
            let sampling = self.telemetry.as_ref().map(Telemetry::sampling);
            router = router.sample_by(sampling.unwrap_or_else(|| Sampling::new(0.0)));
        }
        // One that hands calls on learns of its methods later.
        if !router.hands_on() {
            let served: Vec<_> = router.methods().collect();
            upkeep::judge_policies(self, &app.clients)?;
            upkeep::tell_of_unmatched_policies(self, &app.clients, served);
        }
        app.rates.show(&app.limits);
        router = router.protect(protection::start(self, app.limits, listener.handle()));
        router = router.count(app.rates);
        let limits = listener.handle().limits().clone();
        let stack = Stack::new(router.follow(self.policies()).meet(app.faults), limits);
        drop(served.set(stack.clone()));
        let protocols = stack.protocols();
        let serve = listener.serve(stack, protocols, self.platform.clone());
        self.platform.spawn_essential("listener", serve);
        app.health.started();
        self.journal
            .record(Kind::Serving, self.identity.name, address.to_string());
        Ok(())
    }
}

impl Running {
    /// Completes once the process should end, and says why.
    pub(super) async fn stopped(&self) -> Request {
        let mut failed = self.ending.tasks.failed();
        let mut platform_failed = self.ending.platform.failed();
        // Cancel-safe: all arms only wait. The senders live in `self`.
        let failed = tokio::select! {
            asked = self.stop.requested() => return asked,
            Ok(failed) = failed.wait_for(Option::is_some) => failed.clone(),
            Ok(failed) = platform_failed.wait_for(Option::is_some) => failed.clone(),
        };
        let task = failed.map_or("", |failed| failed.task);
        self.stop.fail(format!("task {task} panicked")).clone()
    }

    /// Ends everything in order; `flush` comes last.
    pub(super) async fn drain(self, why: &str, flush: impl Future<Output = ()>) {
        self.ending.run(why, flush).await;
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn health(&self) -> Health {
        self.ending.health.clone()
    }

    /// Tells every task to end, and waits for none.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn leave(&self) {
        self.ending.serving.cut();
        self.ending.tasks.stopping().cancel();
        self.ending.platform.stopping().cancel();
    }

    /// Lets go of what a start-up that failed had opened.
    async fn abandon(mut self) {
        let mut config = *self.ending.config.load();
        config.delay = Duration::ZERO;
        self.ending.config = Live::fixed(config);
        let nothing = std::future::ready(());
        self.ending.run("the start-up failed", nothing).await;
    }
}

/// The listener and, once the start-up is done, what it serves.
struct Served {
    handle: Handle,
    stack: Arc<OnceLock<Stack>>,
}

impl Serving for Served {
    fn drain(&self) {
        self.handle.drain();
    }

    fn end_calls(&self) {
        if let Some(stack) = self.stack.get() {
            stack.end_calls();
        }
    }

    fn cut(&self) {
        self.handle.cut();
    }

    fn closed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            // Where nothing was ever served there is nothing to wait for.
            if self.stack.get().is_some() {
                self.handle.closed().await;
            }
        })
    }
}

//! One process from its configuration to its end, whoever started it.
//!
//! Sockets are bound first, so that a taken port is known before anything else begins, and
//! accepted from last, so that nobody is served by half a service. In between the side port
//! already answers, and says what the start-up waits for.

use std::{
    future::Future,
    mem,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, OnceLock},
};

use tokio_util::sync::CancellationToken;

use super::{
    App, Identity, Platform,
    drain::{Ending, Serving},
    reflection,
    stop::Stop,
};
use crate::{
    BoxError,
    config::{Both, Live, Section},
    health::{self, Health},
    journal::{Journal, Kind},
    server::{DescriptorError, Router, Stack},
    shutdown::Tasks,
    transport::server::{BindError, Handle, Limits, Listener},
};

/// The whole configuration of a process.
pub(super) type Settings<C> = Both<Platform, C>;

/// Why a process does not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Listen(#[from] BindError),
    #[error("describe the services")]
    Describe(#[from] reflection::Error),
    #[error("serve the platform's own services")]
    Own(#[from] DescriptorError),
    #[error("start {service}")]
    Service {
        service: &'static str,
        source: BoxError,
    },
}

/// What a process needs before it is a service.
pub(super) struct Process<C> {
    pub(super) identity: Identity,
    pub(super) settings: Live<Settings<C>>,
    pub(super) stop: Stop,
}

/// A process that serves.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    pub(super) health: Health,
    pub(super) journal: Journal,
    stop: Stop,
    tasks: Tasks,
    ending: Ending,
}

impl<C: Section> Process<C> {
    /// Starts the service. Once this returns it serves, or has been asked to stop already.
    pub(super) async fn start<S>(self, start: S) -> Result<Running, StartError>
    where
        S: AsyncFnOnce(&mut App<C>) -> Result<(), BoxError>,
    {
        let settings = self.settings.load();
        let platform = &settings.first;
        let journal = Journal::new();
        journal.record(Kind::Starting, self.identity.name, self.identity.version);
        let limits = Limits::default().live();
        let listener =
            Listener::bind(&crate::transport::server::Config::default(), limits.clone())?;
        let health = Health::new(journal.clone(), platform.health);
        let draining = CancellationToken::new();
        let mut app = App {
            identity: self.identity,
            config: self.settings.map(|settings| &settings.second),
            health: health.clone(),
            journal: journal.clone(),
            tasks: Tasks::new(journal.clone()),
            draining: draining.clone(),
            router: Router::new(),
            hooks: Vec::new(),
        };
        let served = Arc::new(OnceLock::new());
        let mut running = Running {
            address: listener.handle().local_addr().expect("TCP has an address"),
            health: health.clone(),
            journal: journal.clone(),
            stop: self.stop.clone(),
            tasks: app.tasks.clone(),
            ending: Ending {
                config: platform.shutdown,
                journal: journal.clone(),
                health: health.clone(),
                draining: draining.clone(),
                serving: Box::new(Served {
                    handle: listener.handle(),
                    stack: Arc::clone(&served),
                }),
                tasks: app.tasks.clone(),
                hooks: Vec::new(),
                platform: Tasks::new(journal.clone()),
            },
        };

        // Cancel-safe: a start-up that is told to stop is dropped as a whole.
        let started = tokio::select! {
            started = start(&mut app) => Some(started),
            _ = self.stop.requested() => None,
        };
        running.ending.hooks = mem::take(&mut app.hooks);
        match started {
            Some(Ok(())) => {}
            Some(Err(source)) => {
                running.abandon().await;
                return Err(StartError::Service {
                    service: self.identity.name,
                    source,
                });
            }
            None => return Ok(running),
        }

        let describe = platform
            .reflection
            .unwrap_or_else(|| running.address.ip().to_canonical().is_loopback());
        let router = own_services(app.router, &health, &draining, describe)?;
        let stack = Stack::new(router, limits);
        drop(served.set(stack.clone()));
        let tasks = running.ending.platform.clone();
        let serve = listener.serve(stack, tasks.clone());
        tasks.spawn_essential("listener", serve);
        health.started();
        journal.record(
            Kind::Serving,
            self.identity.name,
            running.address.to_string(),
        );
        Ok(running)
    }
}

/// Adds what every service serves beside its own: health, and reflection where it may.
fn own_services(
    router: Router,
    health: &Health,
    draining: &CancellationToken,
    describe: bool,
) -> Result<Router, StartError> {
    let own = health::service::server(health.clone(), draining.clone());
    let router = router.add_plain(own, gantry_api::health::v1::DESCRIPTORS)?;
    if describe {
        return Ok(reflection::add(router)?);
    }
    Ok(router)
}

impl Running {
    /// Completes once the process should end, and says why.
    pub(super) async fn stopped(&self) -> Why {
        let mut failed = self.tasks.failed();
        // Cancel-safe: both arms only wait. The sender lives in `self.tasks`.
        tokio::select! {
            why = self.stop.requested() => Why { reason: why.to_owned(), failed: false },
            failed = failed.wait_for(Option::is_some) => {
                let task = failed.ok().and_then(|failed| failed.clone());
                let task = task.map_or("unknown", |failed| failed.task);
                Why { reason: format!("task {task} panicked"), failed: true }
            }
        }
    }

    /// Ends everything in order; `flush` comes last.
    pub(super) async fn drain(self, why: &str, flush: impl Future<Output = ()>) {
        self.ending.run(why, flush).await;
    }

    /// Lets go of what a start-up that failed had opened.
    async fn abandon(mut self) {
        self.ending.config.delay = std::time::Duration::ZERO;
        self.ending
            .run("start-up failed", std::future::ready(()))
            .await;
    }
}

/// Why a process ends.
pub(super) struct Why {
    pub(super) reason: String,
    /// Whether it ends because something is broken.
    pub(super) failed: bool,
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

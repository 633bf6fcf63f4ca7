//! A whole service inside a test: everything `app::run` gives it except signals and a process.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use super::{App, BoxError, Identity, Platform, prepare, process::Running};
use crate::{
    client::{self, Channel, Clients},
    config::{self, Both, Live, Section, Sources},
    contract,
    health::Health,
    journal::Journal,
    policy::{Policies, Policy},
    shutdown::{Stop, Tasks},
    telemetry::{self, Telemetry},
};

/// What differs from the defaults in a test: nobody waits for a load balancer to notice, and
/// nobody reads what goes well.
const DEFAULTS: &str = "[shutdown]\ndelay = '0s'\n[telemetry]\nlog_level = 'warn'\n";

/// Logs and metrics belong to the process, so all services of a test share them.
static TELEMETRY: Mutex<Option<Telemetry>> = Mutex::new(None);

/// A service that runs on the runtime of the test, on ports of its own.
///
/// Stop it with [`Service::stop`] to see it drain; dropped, its tasks are only told to end.
#[derive(Debug)]
pub struct Service {
    running: Option<Running>,
    health: Health,
    journal: Journal,
    stop: Stop,
    /// What the test itself runs: the clients it was given.
    tasks: Tasks,
    platform: Tasks,
}

impl Service {
    /// Starts a service with `toml` as its configuration. Files and the environment are not read;
    /// ports are free ones unless `toml` names them.
    ///
    /// # Errors
    ///
    /// If the configuration is at fault or the service does not start.
    pub async fn start<C, S>(identity: Identity, toml: &str, start: S) -> Result<Self, BoxError>
    where
        C: Section,
        S: AsyncFnOnce(&mut App<C>) -> Result<(), BoxError>,
    {
        let sources = Sources::new().text("defaults of tests", DEFAULTS);
        let sources = sources.text("test", toml);
        let loaded = config::load::<Both<Platform, C>>(sources)?;
        let process = prepare(identity, loaded, |named, config, _| {
            shared_telemetry(named, config)
        })?;
        let (journal, stop) = (process.journal.clone(), process.stop.clone());
        let platform = process.platform.clone();
        let running = process.start(start).await?;
        Ok(Self {
            health: running.health(),
            running: Some(running),
            stop,
            tasks: Tasks::new(journal.clone()),
            platform,
            journal,
        })
    }

    fn running(&self) -> &Running {
        let running = self.running.as_ref();
        running.expect("a service that was stopped is gone")
    }

    /// Where it takes calls.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.running().address
    }

    /// Where its side port is.
    #[must_use]
    pub fn side_address(&self) -> SocketAddr {
        self.running().side_address
    }

    /// Its health.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Its journal.
    #[must_use]
    pub fn journal(&self) -> Journal {
        self.journal.clone()
    }

    /// A client of the service, as another service would have it.
    #[must_use]
    pub fn client<T: contract::Client<Channel>>(&self) -> T {
        self.client_following(Policies::default())
    }

    /// A client of the service that makes each call once: for what the service says to each.
    #[must_use]
    pub fn client_without_retries<T: contract::Client<Channel>>(&self) -> T {
        let mut once = Policy::default();
        once.retry.attempts_max = 1;
        let policies = BTreeMap::from([("*".to_owned(), once)]);
        self.client_following(Policies::new(&Live::fixed(policies)))
    }

    fn client_following<T: contract::Client<Channel>>(&self, policies: Policies) -> T {
        let target = client::Config::to(self.address().to_string());
        let configs = [("service".to_owned(), target)].into();
        let clients = Clients::new(configs, self.tasks.clone(), Journal::new());
        clients.with_policies(policies).client("service")
    }

    /// Completes once the service was asked to stop, as by `Drain`, and says why.
    pub async fn stopped(&self) -> String {
        self.running().stopped().await.why
    }

    /// Drains the service as a signal would, and returns once it has ended.
    pub async fn stop(mut self) {
        self.stop.request("the test");
        if let Some(running) = self.running.take() {
            running.drain("the test", std::future::ready(())).await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
        self.platform.stopping().cancel();
        if let Some(running) = &self.running {
            running.leave();
        }
    }
}

/// Set up with the first service of the process; those after it share it. Where a test has set
/// up its own, the service tells nothing.
fn shared_telemetry(
    identity: &telemetry::Identity<'_>,
    config: &telemetry::Config,
) -> Result<Option<Telemetry>, BoxError> {
    let mut shared = TELEMETRY.lock().unwrap_or_else(PoisonError::into_inner);
    if shared.is_none() {
        // Its task ends with the runtime of the test that came first; metrics still count then.
        let tasks = Tasks::new(Journal::new());
        // A failed assertion is for the harness to print.
        let hook = std::panic::take_hook();
        let telemetry = telemetry::init(identity, config, &tasks);
        std::panic::set_hook(hook);
        *shared = match telemetry {
            Ok(telemetry) => Some(telemetry),
            Err(telemetry::InitError::Twice) => None,
            Err(error) => return Err(error.into()),
        };
    }
    Ok(shared.clone())
}

/// The level of the log that all services of a test share.
#[cfg(test)]
pub(super) fn log_level() -> telemetry::LogLevel {
    let shared = TELEMETRY.lock().unwrap_or_else(PoisonError::into_inner);
    let telemetry = shared.as_ref().expect("a service runs, or ran");
    telemetry.log_level().clone()
}

//! The registry in etcd.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tower::{ServiceExt as _, util::BoxCloneSyncService};

use super::{Etcd, split};
use crate::{
    balance::NotSet,
    breaker::{Order, Snapshot},
    client::{self, Channel, Clients, TargetState},
    discovery::{
        self, Announcement, Directory, Layout, Registration, Resolve,
        etcd::{Login, Registrar, Resolver},
        registration::{self, State},
    },
    health::Health,
    journal::Journal,
    shutdown::Tasks,
};

/// The name of the connection to etcd among the clients.
const NAME: &str = "etcd";
/// What targets without a scheme of their own are.
const SCHEME: &str = Layout::Etcd.as_str();

/// Everybody shall be registered again soon after etcd came back.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(3);
/// The way to etcd may be as slow as etcd itself: a lease of ten seconds bears answers that take
/// six, so a connection is not given up before, neither while it begins nor when it is silent.
/// Requests do not wait for that: each has a bound of its own, after which another member is
/// cheaper. It is for watches, which have none: from one that died they move on within two
/// intervals and this.
const SLOWEST: Duration = Duration::from_secs(8);
/// etcd bears a ping every five seconds (`--grpc-keepalive-min-time`).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(6);

/// Teaches `clients` the names in the etcd that `config` names: a target that is not configured is
/// a name there. Does no I/O beyond beginning to connect in the background; its tasks belong to
/// `tasks`. For programs that only call; a service has it by its configuration.
#[must_use]
pub fn discovering(config: &Etcd, clients: Clients, tasks: &Tasks, journal: &Journal) -> Clients {
    match Registry::new(config, tasks, journal) {
        Some(registry) => registry.teach(clients, tasks, journal),
        None => clients,
    }
}

/// etcd's API at the endpoints of `config`, reached as services reach it: by the same balancing,
/// TLS, login and deadlines. Does no I/O beyond beginning to connect in the background; its tasks
/// belong to `tasks`. For programs with somebody waiting: where nobody can be reached, that and
/// why is told after half of `config.timeout`.
///
/// # Panics
///
/// If `config` has no endpoints.
#[must_use]
pub fn etcd(config: &Etcd, tasks: &Tasks, journal: &Journal) -> discovery::etcd::Etcd {
    assert!(config.is_configured(), "an etcd has endpoints");
    let calling = client::Config {
        fail_fast: config.timeout / 2,
        ..calling(config)
    };
    reach(config, calling, tasks, journal).0
}

/// The way to the registry; clones share it.
#[derive(Debug, Clone)]
pub(in crate::app) struct Registry {
    etcd: discovery::etcd::Etcd,
    clients: Clients,
    snapshots: Option<PathBuf>,
}

impl Registry {
    /// Does no I/O beyond beginning to connect in the background; none where none is configured.
    pub(in crate::app) fn new(config: &Etcd, tasks: &Tasks, journal: &Journal) -> Option<Self> {
        if !config.is_configured() {
            return None;
        }
        let (etcd, clients) = reach(config, calling(config), tasks, journal);
        Some(Self {
            etcd,
            clients,
            snapshots: config.snapshots.clone(),
        })
    }

    /// Teaches `clients` the names in the registry, in every layout.
    pub(in crate::app) fn teach(
        &self,
        clients: Clients,
        tasks: &Tasks,
        journal: &Journal,
    ) -> Clients {
        let taught = Layout::ALL.into_iter().fold(clients, |clients, layout| {
            let resolver: Arc<dyn Resolve> = Arc::new(Resolver::new(
                self.etcd.clone(),
                layout,
                self.snapshots.clone(),
                tasks.clone(),
                journal.clone(),
            ));
            clients.with_resolver(layout.as_str(), resolver)
        });
        taught.with_default_scheme(SCHEME)
    }

    /// Follows all that is registered.
    pub(in crate::app) fn directory(&self, tasks: &Tasks, journal: Journal) -> Directory {
        discovery::etcd::directory(self.etcd.clone(), self.snapshots.clone(), tasks, journal)
    }

    /// The connections to etcd.
    pub(in crate::app) fn states(&self) -> Vec<TargetState> {
        self.clients.states()
    }

    /// The breakers of those.
    pub(in crate::app) fn breakers(&self) -> Vec<(Arc<str>, SocketAddr, Snapshot)> {
        self.clients.breakers()
    }

    /// Has them do as `order` says, see [`Clients::set_breakers`].
    pub(in crate::app) fn set_breakers(
        &self,
        client: &str,
        addr: Option<SocketAddr>,
        order: Order,
        until: Option<Instant>,
    ) -> Result<(), NotSet> {
        self.clients.set_breakers(client, addr, order, until)
    }
}

/// This process's registration, from before it is begun to after it is taken back.
#[derive(Debug, Default)]
pub(in crate::app) struct Registering {
    expected: bool,
    /// Whether it was paused or resumed before it was begun; held while either is done.
    asked: Mutex<Option<bool>>,
    registrar: OnceLock<Registrar>,
}

impl Registering {
    /// Nothing is begun yet. `expected` says whether it will be.
    pub(in crate::app) fn new(expected: bool) -> Self {
        Self {
            expected,
            asked: Mutex::default(),
            registrar: OnceLock::new(),
        }
    }

    /// Begins, once `health` says SERVING.
    pub(in crate::app) fn begin(
        &self,
        registry: &Registry,
        announcement: &Announcement,
        config: &registration::Config,
        health: Health,
        (tasks, journal): (&Tasks, &Journal),
    ) {
        let serving = async move {
            let mut changes = health.changes();
            while !health.is_ready() {
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let etcd = &registry.etcd;
        let asked = self.asked();
        let config = registration::Config {
            paused: asked.unwrap_or(config.paused),
            ..config.clone()
        };
        let registrar =
            Registrar::start(etcd, announcement, &config, serving, tasks, journal.clone());
        drop(self.registrar.set(registrar));
    }

    /// As it is now; none where it has not begun, or never will.
    pub(in crate::app) fn now(&self) -> Option<Registration> {
        self.registrar
            .get()
            .map(|registrar| registrar.watch().borrow().clone())
    }

    /// What keeps the process from being ready: that it was never registered yet. A later loss
    /// does not: callers that know it still find it there.
    pub(in crate::app) fn missing(&self) -> Option<String> {
        if !self.expected {
            return None;
        }
        match self.now() {
            None => Some("not begun".to_owned()),
            Some(now) if now.ever || now.state == State::Paused => None,
            Some(now) => {
                let error = now.error.as_deref().unwrap_or("under way");
                Some(format!("{}: {error}", now.state.as_str()))
            }
        }
    }

    /// Takes it back, or registers again; false where there is nothing to do that to. What is asked
    /// before it has begun holds from its begin on.
    pub(in crate::app) fn pause(&self, pause: bool) -> bool {
        if !self.expected {
            return false;
        }
        let mut asked = self.asked();
        *asked = Some(pause);
        match self.registrar.get() {
            Some(registrar) if pause => registrar.pause(),
            Some(registrar) => registrar.resume(),
            None => {}
        }
        true
    }

    fn asked(&self) -> MutexGuard<'_, Option<bool>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes it back for good; bounded.
    pub(in crate::app) async fn leave(&self) {
        if let Some(registrar) = self.registrar.get() {
            registrar.leave().await;
        }
    }
}

/// etcd's API over one channel, and what keeps that.
fn reach(
    config: &Etcd,
    calling: client::Config,
    tasks: &Tasks,
    journal: &Journal,
) -> (discovery::etcd::Etcd, Clients) {
    let configs = [(NAME.to_owned(), calling)].into();
    let clients = Clients::new(configs, tasks.clone(), journal.clone());
    let channel: Channel = clients.client(NAME);
    let channel = channel
        .map_response(|answer| answer.map(tonic::body::Body::new))
        .map_err(Into::into);
    let login = config.user.clone().map(|user| Login {
        user,
        password: config.password.clone(),
    });
    let channel = BoxCloneSyncService::new(channel);
    let etcd = discovery::etcd::Etcd::new(channel, login, config.timeout);
    (etcd, clients)
}

/// How etcd is called.
fn calling(config: &Etcd) -> client::Config {
    let hosts: Vec<_> = config.endpoints.iter().map(|it| split(it).1).collect();
    let hosts = hosts.join(",");
    // Addresses are connected to as they are, names are looked up again and again.
    let fixed = hosts.parse::<discovery::Target>().is_ok();
    client::Config {
        connect_timeout: SLOWEST,
        backoff_min: BACKOFF_MIN,
        backoff_max: BACKOFF_MAX,
        keepalive_interval: KEEPALIVE_INTERVAL,
        keepalive_always: true,
        keepalive_timeout: SLOWEST,
        // etcd's own says no more than its connection.
        health: false,
        tls: config.tls.clone(),
        ..client::Config::to(if fixed {
            hosts
        } else {
            format!("dns:///{hosts}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health;

    /// Goal: what is asked before the registration has begun holds from its begin on, over what is
    /// configured; who will not register refuses.
    /// Method: pause or resume, begin, and look at what it comes to once it serves.
    #[tokio::test(start_paused = true)]
    async fn a_pause_may_come_before_the_begin() {
        assert!(!Registering::new(false).pause(true));
        for (configured, asked, wanted) in [
            (false, None, State::Registering),
            (true, None, State::Paused),
            (false, Some(true), State::Paused),
            (true, Some(false), State::Registering),
        ] {
            let (tasks, journal) = (Tasks::new(Journal::new()), Journal::new());
            let nobody = Etcd {
                endpoints: vec!["127.0.0.1:1".to_owned()],
                ..Etcd::default()
            };
            let registry = Registry::new(&nobody, &tasks, &journal).unwrap();
            let registering = Registering::new(true);
            if let Some(pause) = asked {
                assert!(registering.pause(pause));
            }
            let config = registration::Config {
                paused: configured,
                ..registration::Config::default()
            };
            let health = Health::new(journal.clone(), health::Config::default());
            let owner = (&tasks, &journal);
            registering.begin(&registry, &announcement(), &config, health.clone(), owner);
            assert_eq!(Some(State::Waiting), registering.now().map(|it| it.state));
            health.started();
            let mut changes = registering.registrar.get().unwrap().watch();
            let come = changes.wait_for(|it| it.state != State::Waiting).await;
            assert_eq!(wanted, come.unwrap().state, "{configured} {asked:?}");
            tasks.stopping().cancel();
        }
    }

    fn announcement() -> Announcement {
        Announcement {
            name: "orders".to_owned(),
            address: "127.0.0.1:2".to_owned(),
            instance: "00ff".to_owned(),
            version: "1.2.3".to_owned(),
            zone: None,
            weight_percent: 100,
            start_time: 0,
            services: Vec::new(),
            tls: false,
        }
    }
}

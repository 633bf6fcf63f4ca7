//! Where this process registers, and where it finds others: what `[etcd]` and `[registration]`
//! come to.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::uri::Authority;
use tower::{ServiceExt as _, util::BoxCloneSyncService};

use crate::{
    client::{self, Channel, Clients, TargetState, Tls},
    config::{self, Secret},
    discovery::{
        self, Announcement, Layout, Registration, Resolve,
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

/// etcd serves no gRPC health that says more than its connection; it is close by, so a connection
/// that is silent is soon given up, and one that failed soon tried again.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(3);
const KEEPALIVE: Duration = Duration::from_secs(3);

config::section! {
    /// Where services register and find each other. Without endpoints nothing of it is done.
    pub struct Etcd {
        /// Members of the cluster, as in `http://127.0.0.1:2379`; a host without a scheme is
        /// plaintext.
        pub endpoints: Vec<String> = Vec::new(), restart;
        /// Who logs in, where etcd asks.
        pub user: Option<String> = None, restart;
        /// The user's password.
        pub password: Secret = Secret::default(), restart;
        /// Longest wait for one answer.
        pub timeout: Duration = Duration::from_secs(3), in TIMEOUT, restart;
        /// Folder in which the last known endpoints of each name are kept, for a start without
        /// etcd; they are not kept without one.
        pub snapshots: Option<PathBuf> = None, restart;
        /// Encrypts the connections; for `https` endpoints.
        pub tls: optional section Tls, restart;
    }
    validate = Etcd::check;
}

const TIMEOUT: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_mins(1);

impl Etcd {
    /// Whether there is an etcd to use.
    pub(super) fn is_configured(&self) -> bool {
        !self.endpoints.is_empty()
    }

    fn check(&self, check: &mut config::Check<'_, '_>) {
        for endpoint in &self.endpoints {
            let (tls, host) = split(endpoint);
            let has_port = host
                .parse::<Authority>()
                .is_ok_and(|it| it.port_u16().is_some() && !it.host().is_empty());
            if !has_port {
                let wanted = "expected HOST:PORT, as in http://127.0.0.1:2379";
                check.refuse("endpoints", format!("{wanted}; `{endpoint}` is not"));
            } else if tls && self.tls.is_none() {
                let wanted = "expected etcd.tls.ca beside it, the certificates to trust";
                check.refuse("endpoints", format!("{wanted}, as `{endpoint}` is https"));
            } else if !tls && self.tls.is_some() {
                let wanted = "expected https:// as etcd.tls is set";
                check.refuse("endpoints", format!("{wanted}; `{endpoint}` is not"));
            }
        }
        if self.user.is_some() == self.password.is_empty() {
            check.refuse(
                "password",
                "expected user and password together, or neither",
            );
        }
    }

    fn client(&self) -> client::Config {
        let hosts: Vec<_> = self.endpoints.iter().map(|it| split(it).1).collect();
        let hosts = hosts.join(",");
        // Addresses are connected to as they are, names are looked up again and again.
        let fixed = hosts.parse::<discovery::Target>().is_ok();
        client::Config {
            backoff_min: BACKOFF_MIN,
            backoff_max: BACKOFF_MAX,
            keepalive_interval: KEEPALIVE,
            keepalive_timeout: KEEPALIVE,
            health: false,
            tls: self.tls.clone(),
            ..client::Config::to(if fixed {
                hosts
            } else {
                format!("dns:///{hosts}")
            })
        }
    }
}

/// Whether an endpoint wants TLS, and its host and port.
fn split(endpoint: &str) -> (bool, &str) {
    let endpoint = endpoint.trim_end_matches('/');
    match endpoint.split_once("://") {
        Some(("https", host)) => (true, host),
        Some(("http", host)) => (false, host),
        _ => (false, endpoint),
    }
}

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

/// The way to the registry; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Registry {
    etcd: discovery::etcd::Etcd,
    clients: Clients,
    snapshots: Option<PathBuf>,
}

impl Registry {
    /// Does no I/O beyond beginning to connect in the background; none where none is configured.
    pub(super) fn new(config: &Etcd, tasks: &Tasks, journal: &Journal) -> Option<Self> {
        if !config.is_configured() {
            return None;
        }
        let configs = [(NAME.to_owned(), config.client())].into();
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
        Some(Self {
            etcd: discovery::etcd::Etcd::new(channel, login, config.timeout),
            clients,
            snapshots: config.snapshots.clone(),
        })
    }

    /// Teaches `clients` the names in the registry, in every layout.
    pub(super) fn teach(&self, clients: Clients, tasks: &Tasks, journal: &Journal) -> Clients {
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

    /// The connections to etcd.
    pub(super) fn states(&self) -> Vec<TargetState> {
        self.clients.states()
    }
}

/// This process's registration, from before it is begun to after it is taken back.
#[derive(Debug, Default)]
pub(super) struct Registering {
    expected: bool,
    registrar: OnceLock<Registrar>,
}

impl Registering {
    /// Nothing is begun yet. `expected` says whether it will be.
    pub(super) fn new(expected: bool) -> Self {
        Self {
            expected,
            registrar: OnceLock::new(),
        }
    }

    /// Begins, once `health` says SERVING.
    pub(super) fn begin(
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
        let etcd = registry.etcd.clone();
        let registrar =
            Registrar::start(etcd, announcement, config, serving, tasks, journal.clone());
        drop(self.registrar.set(registrar));
    }

    /// As it is now; none where it has not begun, or never will.
    pub(super) fn now(&self) -> Option<Registration> {
        self.registrar
            .get()
            .map(|registrar| registrar.watch().borrow().clone())
    }

    /// What keeps the process from being ready: that it was never registered yet. A later loss
    /// does not: callers that know it still find it there.
    pub(super) fn missing(&self) -> Option<String> {
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

    /// Takes it back, or registers again; false where there is nothing to do that to.
    pub(super) fn pause(&self, pause: bool) -> bool {
        let registrar = self.registrar.get();
        registrar.inspect(|registrar| {
            if pause {
                registrar.pause();
            } else {
                registrar.resume();
            }
        });
        registrar.is_some()
    }

    /// Takes it back for good; bounded.
    pub(super) async fn leave(&self) {
        if let Some(registrar) = self.registrar.get() {
            registrar.leave().await;
        }
    }
}

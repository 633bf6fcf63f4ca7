//! Whom a call goes to: an address, a name in etcd, or a name in the running `up`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use gantry::{
    app,
    client::{Clients, Config, Tls},
    config::Live,
    discovery::{Layout, Memory},
    journal::Journal,
    policy::{Policies, Policy},
    retry,
    shutdown::Tasks,
    transport::subchannel::Connectivity,
};
use tokio::time;

use crate::{
    access::Access,
    args::EtcdOptions,
    failure::{Failure, nearest},
    here, ls, registry,
    state::StateFolder,
    supervisor::{Report, State, control},
};

pub(crate) use gantry::client::Channel;

/// How long a connection may take: whoever types a call waits for it.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// The scheme of names in the running `up`.
const UP: &str = "up";

/// How often the running `up` is asked again.
const ASK: Duration = Duration::from_secs(1);

/// How often it is looked whether endpoints are connected.
const LOOK: Duration = Duration::from_millis(5);

/// How long its tasks may take to end.
const CLOSE_MAX: Duration = Duration::from_millis(500);

/// Connections to whom the calls go. They live until it is closed.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) channel: Channel,
    clients: Clients,
    tasks: Tasks,
}

impl Target {
    /// `name` is an address, `etcd:///NAME` (or of another layout), or a service or instance of the
    /// running `up`. `etcd` is where the former looks; the one of the running `up` without it.
    /// Connects at once, in the background.
    pub(crate) async fn find(
        name: &str,
        tls: Option<Tls>,
        etcd: &EtcdOptions,
    ) -> Result<Self, Failure> {
        if is_registered_name(name) {
            let access = ls::access(etcd).await?;
            // Why it cannot be read is told here; a call would only tell that it knows nobody.
            registry::look(&access, name).await?;
            return Self::registered(name, config(name, tls)?, &access, |it| it);
        }
        if name.contains(':') {
            return Self::at(name, tls);
        }
        let (_, addresses) = in_up(name).await?;
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        Self::at(&addresses.join(","), tls)
    }

    /// `addresses` are `host:port`, or several addresses with commas between them.
    pub(crate) fn at(addresses: &str, tls: Option<Tls>) -> Result<Self, Failure> {
        let tasks = Tasks::new(Journal::new());
        Ok(Self::open(
            addresses,
            config(addresses, tls)?,
            tasks,
            |it| it,
        ))
    }

    /// Whoever `name`, with its scheme, stands for in etcd, as a service would find it.
    fn registered(
        name: &str,
        config: Config,
        access: &Access,
        teach: impl FnOnce(Clients) -> Clients,
    ) -> Result<Self, Failure> {
        let etcd = access.etcd()?;
        let tasks = Tasks::new(Journal::new());
        let owner = tasks.clone();
        Ok(Self::open(name, config, tasks, |clients| {
            app::discovering(&etcd, teach(clients), &owner, &Journal::new())
        }))
    }

    /// As [`Target::find`], for as long as calls go on: of a name, every instance that serves is
    /// called, also those that come later. Health, waiting and connections are as services have
    /// them, but for the calls in line, of which there may be `waiting_max`, and for `retry`.
    pub(crate) async fn follow(
        name: &str,
        tls: Option<Tls>,
        etcd: &EtcdOptions,
        waiting_max: usize,
        retry: retry::Config,
    ) -> Result<Self, Failure> {
        let retried = |clients: Clients| {
            let policy = Policy {
                retry,
                ..Policy::default()
            };
            let all = BTreeMap::from([("*".to_owned(), policy)]);
            clients.with_policies(Policies::new(&Live::fixed(all)))
        };
        if is_registered_name(name) {
            let config = Config {
                tls,
                waiting_max,
                ..Config::to(name)
            };
            return Self::registered(name, config, &ls::access(etcd).await?, retried);
        }
        let tasks = Tasks::new(Journal::new());
        let (target, resolver) = if name.contains(':') {
            (written(name)?, None)
        } else {
            let (state, addresses) = in_up(name).await?;
            let names = Memory::new();
            names.set(name, addresses);
            let watch = watch_up(state, name.to_owned(), names.clone());
            let stopping = tasks.stopping();
            tasks.spawn("instances", async move {
                tokio::select! {
                    () = watch => {}
                    () = stopping.cancelled() => {}
                }
            });
            (format!("{UP}:///{name}"), Some(names))
        };
        let config = Config {
            tls,
            waiting_max,
            ..Config::to(target)
        };
        Ok(Self::open(name, config, tasks, |clients| match resolver {
            Some(up) => retried(clients).with_resolver(UP, Arc::new(up)),
            None => retried(clients),
        }))
    }

    fn open(
        name: &str,
        config: Config,
        tasks: Tasks,
        teach: impl FnOnce(Clients) -> Clients,
    ) -> Self {
        let configs = BTreeMap::from([(name.to_owned(), config)]);
        let clients = teach(Clients::new(configs, tasks.clone(), Journal::new()));
        Self {
            channel: clients.channel(name, &[]),
            clients,
            tasks,
        }
    }

    /// Waits until every endpoint is connected or has failed, within a bound.
    pub(crate) async fn settled(&self) {
        let connecting = || {
            let states = self.clients.states();
            let mut endpoints = states.iter().flat_map(|state| &state.endpoints);
            endpoints.any(|endpoint| {
                matches!(
                    endpoint.connectivity,
                    Connectivity::Idle | Connectivity::Connecting
                )
            })
        };
        let waiting = async {
            while connecting() {
                time::sleep(LOOK).await;
            }
        };
        drop(time::timeout(CONNECT_MAX, waiting).await);
    }

    /// What belongs to the target, for further tasks that end with it.
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Closes the connections.
    pub(crate) async fn close(self) {
        drop(self.tasks.stop_within(CLOSE_MAX).await);
    }
}

/// TLS by the certificates in `ca`, where there are some.
pub(crate) fn tls(ca: Option<PathBuf>, server_name: Option<String>) -> Option<Tls> {
    ca.map(|ca| Tls {
        ca: Some(ca),
        server_name,
        ..Tls::default()
    })
}

/// How an address is called that somebody typed.
fn config(addresses: &str, tls: Option<Tls>) -> Result<Config, Failure> {
    Ok(Config {
        fail_fast: CONNECT_MAX,
        connect_timeout: CONNECT_MAX,
        // A service that says it does not serve may be called all the same, to see why.
        health: false,
        tls,
        ..Config::to(written(addresses)?)
    })
}

/// Whether it is a name that etcd knows, in any layout.
fn is_registered_name(name: &str) -> bool {
    let scheme = name.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| Layout::ALL.iter().any(|layout| layout.as_str() == scheme))
}

/// An address as people write it, as the chassis reads it.
fn written(addresses: &str) -> Result<String, Failure> {
    let mut parts = addresses.split(',');
    let fixed = parts.all(|part| part.trim().parse::<SocketAddr>().is_ok());
    let target = if fixed || addresses.contains("://") {
        addresses.to_owned()
    } else {
        format!("dns:///{addresses}")
    };
    match target.parse::<gantry::discovery::Target>() {
        Ok(_) => Ok(target),
        Err(error) => Err(Failure::usage(format!("address {addresses}: {error}"))),
    }
}

/// Where the instances of `name` are that serve now, and the state folder of their `up`.
async fn in_up(name: &str) -> Result<(StateFolder, Vec<SocketAddr>), Failure> {
    let (_, state) = here()?;
    let Some(reports) = control::instances(&state).await? else {
        return Err(Failure::failed(format!(
            "\"{name}\" is no address, and no `gantry up` runs here to know it"
        )));
    };
    let addresses = serving(name, &reports)?;
    Ok((state, addresses))
}

/// Tells `names` where the instances of `name` are, over and over.
async fn watch_up(state: StateFolder, name: String, names: Memory) {
    loop {
        time::sleep(ASK).await;
        match control::instances(&state).await {
            Ok(Some(reports)) => match serving(&name, &reports) {
                Ok(addresses) => names.set(&name, addresses),
                Err(failure) => {
                    names.set(&name, Vec::<SocketAddr>::new());
                    names.fail(&name, &failure.to_string());
                }
            },
            // The last list may still be right.
            Ok(None) => names.fail(&name, "`gantry up` has ended"),
            Err(failure) => names.fail(&name, &failure.to_string()),
        }
    }
}

/// The addresses of the instances of `name` that serve.
fn serving(name: &str, reports: &[Report]) -> Result<Vec<SocketAddr>, Failure> {
    let chosen = reports
        .iter()
        .map(|report| &report.row)
        .filter(|row| row.name == name || row.instance == name);
    let chosen: Vec<_> = chosen.collect();
    let serving = chosen
        .iter()
        .filter(|row| row.state == State::Serving)
        .filter_map(|row| row.address.parse().ok());
    let addresses: Vec<SocketAddr> = serving.collect();
    if !addresses.is_empty() {
        return Ok(addresses);
    }
    if let Some(row) = chosen.first() {
        let text = format!("{} is {}; see `gantry ps`", row.instance, row.state);
        return Err(Failure::failed(text));
    }
    let known: BTreeSet<_> = reports.iter().map(|report| &*report.row.name).collect();
    let near = nearest(name, known);
    Err(Failure::usage(format!(
        "no service or instance \"{name}\"{near}"
    )))
}

//! Whom a call goes to: an address, or a name in the running `up`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use gantry::{
    client::{Clients, Config, Tls},
    journal::Journal,
    shutdown::Tasks,
};

use crate::{
    failure::{Failure, nearest},
    here,
    supervisor::{Report, State, control},
};

pub(crate) use gantry::client::Channel;

/// How long a connection may take: whoever types a call waits for it.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// How long its tasks may take to end.
const CLOSE_MAX: Duration = Duration::from_millis(500);

/// Connections to whom the calls go. They live until it is closed.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) channel: Channel,
    tasks: Tasks,
}

impl Target {
    /// `name` is an address, or a service or instance of the running `up`. Connects at once, in
    /// the background.
    pub(crate) async fn find(name: &str, tls: Option<Tls>) -> Result<Self, Failure> {
        if name.contains(':') {
            return Self::at(name, tls);
        }
        let (_, state) = here()?;
        let Some(reports) = control::instances(&state).await? else {
            return Err(Failure::failed(format!(
                "\"{name}\" is no address, and no `gantry up` runs here to know it"
            )));
        };
        Self::at(&serving(name, &reports)?, tls)
    }

    /// `addresses` are `host:port`, or several addresses with commas between them.
    pub(crate) fn at(addresses: &str, tls: Option<Tls>) -> Result<Self, Failure> {
        let fault = |why: String| Failure::usage(format!("address {addresses}: {why}"));
        let mut parts = addresses.split(',');
        let fixed = parts.all(|part| part.parse::<SocketAddr>().is_ok());
        let target = if fixed || addresses.contains("://") {
            addresses.to_owned()
        } else {
            format!("dns:///{addresses}")
        };
        let parsed = target.parse::<gantry::discovery::Target>();
        parsed.map_err(|error| fault(error.to_string()))?;
        let config = Config {
            fail_fast: CONNECT_MAX,
            connect_timeout: CONNECT_MAX,
            // A service that says it does not serve may be called all the same, to see why.
            health: false,
            tls,
            ..Config::to(target)
        };
        let tasks = Tasks::new(Journal::new());
        let configs = BTreeMap::from([(addresses.to_owned(), config)]);
        let clients = Clients::new(configs, tasks.clone(), Journal::new());
        Ok(Self {
            channel: clients.channel(addresses, &[]),
            tasks,
        })
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

/// The addresses of the instances of `name` that serve.
fn serving(name: &str, reports: &[Report]) -> Result<String, Failure> {
    let chosen = reports
        .iter()
        .map(|report| &report.row)
        .filter(|row| row.name == name || row.instance == name);
    let chosen: Vec<_> = chosen.collect();
    let serving = chosen
        .iter()
        .filter(|row| row.state == State::Serving)
        .map(|row| row.address.as_str());
    let addresses: Vec<_> = serving.collect();
    if !addresses.is_empty() {
        return Ok(addresses.join(","));
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

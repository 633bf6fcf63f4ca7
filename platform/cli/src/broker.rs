//! The broker that events go through: the local one of a running `up`, or another in its place.

use std::{sync::Arc, time::Duration};

use gantry::{config::Live, journal::Journal, shutdown::Tasks, status::chain};
use gantry_events::broker::{self, Broker, BrokerError};
use gantry_local::broker::{Broker as Local, Config, Data, Listen, OpenError};

use crate::{
    access::{Access, Server},
    args::BrokerOptions,
    failure::Failure,
    here,
    standin::Kind,
    state::StateFolder,
    supervisor::control,
};

pub(crate) const KIND: Kind = Kind {
    name: "broker",
    port: 5_670,
    offset: 2,
    option: "--broker",
};

/// How long the connections may take to end.
const CLOSE_MAX: Duration = Duration::from_millis(500);

/// The local broker where it usually is.
pub(crate) fn usual() -> Access {
    Access::local(
        Server::Broker,
        format!("grpc://{}", Kind::address(KIND.port)),
    )
}

/// Opens the local broker on `port`, with the data of earlier runs.
pub(crate) fn open(state: &StateFolder, port: u16) -> Result<Local, Failure> {
    let config = Config {
        data: Data::Folder(state.data().join("broker")),
        listen: Listen::Address(Kind::address(port)),
        ..Config::default()
    };
    Local::open(config).map_err(|error| match error {
        OpenError::Listen(error) => KIND.taken(error),
        error => Failure::failed(chain(&error)),
    })
}

/// A broker that is asked for something, until it is closed.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) broker: Arc<dyn Broker>,
    url: String,
    tasks: Tasks,
}

impl Reached {
    /// The broker that the options or the environment name, or else that of the running `up`.
    pub(crate) async fn find(options: &BrokerOptions) -> Result<Self, Failure> {
        let access = access(options).await?;
        let tasks = Tasks::new(Journal::new());
        let config = access.broker()?;
        Ok(Self {
            url: config.url.to_string(),
            broker: broker::connect(&Live::fixed(config), &tasks, &Journal::new()),
            tasks,
        })
    }

    /// Why it did not do what was asked.
    pub(crate) fn failure(&self, error: &BrokerError) -> Failure {
        let text = format!("ask the broker at {}: {}", self.url, chain(error));
        match error {
            // Nothing mends a name by itself.
            BrokerError::Missing(_) => Failure::usage(text),
            _ => Failure::failed(text),
        }
    }

    /// Ends the connections.
    pub(crate) async fn close(self) {
        drop(self.broker);
        drop(self.tasks.stop_within(CLOSE_MAX).await);
    }
}

async fn access(options: &BrokerOptions) -> Result<Access, Failure> {
    if let Some(given) = Access::given(options)? {
        return Ok(given);
    }
    let (_, state) = here()?;
    let servers = control::servers(&state).await?.ok_or_else(|| {
        Failure::failed("no `gantry up` runs here to know its broker; name one with --broker URL")
    })?;
    servers.broker.ok_or_else(|| {
        Failure::failed(
            "no service of the running `gantry up` has a broker: `broker = true` in gantry.toml",
        )
    })
}

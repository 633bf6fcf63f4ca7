//! The servers that a run needs: a broker and a database, as they are killed, stopped and started.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::ValueEnum;
use gantry::config::Secret;
use gantry_events::broker;
use gantry_harness::{broker::Broker, postgres::Postgres, rabbitmq};

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum BrokerKind {
    /// The one of `gantry up`.
    Local,
    /// A real RabbitMQ.
    Rabbitmq,
}

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum DatabaseKind {
    /// A file.
    Sqlite,
    /// A real server.
    Postgres,
}

impl fmt::Display for BrokerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Rabbitmq => "rabbitmq",
        })
    }
}

impl fmt::Display for DatabaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        })
    }
}

/// A broker and a database: `local+sqlite`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Combination {
    /// The broker.
    pub broker: BrokerKind,
    /// The database.
    pub database: DatabaseKind,
}

impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.broker, self.database)
    }
}

impl FromStr for Combination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = |(broker, database)| {
            let broker = BrokerKind::from_str(broker, false).ok()?;
            let database = DatabaseKind::from_str(database, false).ok()?;
            Some(Self { broker, database })
        };
        let known = text.split_once('+').and_then(named);
        known.ok_or_else(|| "expected local or rabbitmq, +, and sqlite or postgres".to_owned())
    }
}

/// The servers of a round, which may be those of the next.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) broker: Broker,
    pub(super) place: Place,
}

impl Stage {
    /// Starts them, with what they keep in `folder`; none where one cannot be had on this machine.
    pub(super) async fn start(on: Combination, folder: &Path) -> io::Result<Option<Self>> {
        let Some(place) = Place::start(on.database, folder).await? else {
            return Ok(None);
        };
        let broker = start(on.broker, folder).await;
        Ok(broker.map(|broker| Self { broker, place }))
    }
}

/// Starts a broker; none where it cannot be had on this machine.
async fn start(kind: BrokerKind, folder: &Path) -> Option<Broker> {
    match kind {
        BrokerKind::Local => Some(Broker::local(folder)),
        BrokerKind::Rabbitmq => {
            // It tells what was not settled as it was a moment ago, not as five seconds ago.
            let tick = ("{quorum_tick_interval", "500");
            Broker::rabbit(&[tick]).await
        }
    }
}

/// How clients reach a broker.
pub(super) fn config(broker: &Broker) -> broker::Config {
    let config = broker::Config::to(broker.url().parse().expect("the URL of a broker"));
    match broker {
        Broker::Local(_) => config,
        Broker::Rabbit(_) => broker::Config {
            user: Some(rabbitmq::USER.to_owned()),
            password: Secret::new(rabbitmq::PASSWORD),
            ..config
        },
    }
}

/// Where the service keeps its rows.
#[derive(Debug)]
pub(super) enum Place {
    File(PathBuf),
    Server(Box<Postgres>),
}

impl Place {
    /// One that is empty; none where it cannot be had on this machine.
    pub(super) async fn start(kind: DatabaseKind, folder: &Path) -> io::Result<Option<Self>> {
        match kind {
            DatabaseKind::Sqlite => {
                let folder = folder.join("data");
                std::fs::create_dir_all(&folder)?;
                Ok(Some(Self::File(folder)))
            }
            DatabaseKind::Postgres => {
                let server = Postgres::start().await;
                Ok(server.map(|server| Self::Server(Box::new(server))))
            }
        }
    }

    /// The database `name`, which is empty at first.
    pub(super) fn url(&self, name: &str) -> String {
        match self {
            Self::File(folder) => format!("sqlite:{}", folder.join(format!("{name}.db")).display()),
            Self::Server(server) => format!("{}?schema={name}", server.url()),
        }
    }
}

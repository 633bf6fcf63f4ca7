//! The servers that a run needs: a broker and a database, as they are killed, stopped and started.

use std::{
    fmt, io,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use clap::ValueEnum;
use gantry_harness::{
    postgres::Postgres,
    process::{built, free_address, pid},
    rabbitmq::RabbitMq,
};
use rustix::process::Signal;

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BrokerKind {
    /// The one of `gantry up`.
    Local,
    /// A real RabbitMQ.
    Rabbitmq,
}

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
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

/// A broker that runs.
#[derive(Debug)]
pub(super) enum Broker {
    Local(Local),
    Rabbit(RabbitMq),
}

impl Broker {
    /// Starts one; none where it cannot be had on this machine.
    pub(super) async fn start(kind: BrokerKind, folder: &Path) -> Option<Self> {
        match kind {
            BrokerKind::Local => Some(Self::Local(Local::start(folder))),
            BrokerKind::Rabbitmq => RabbitMq::start().await.map(Self::Rabbit),
        }
    }

    pub(super) fn url(&self) -> String {
        match self {
            Self::Local(local) => format!("grpc://{}", local.address),
            Self::Rabbit(rabbit) => rabbit.url(),
        }
    }

    pub(super) async fn kill(&mut self) {
        match self {
            Self::Local(local) => local.kill(),
            Self::Rabbit(rabbit) => rabbit.kill().await,
        }
    }

    pub(super) async fn restart(&mut self) {
        match self {
            Self::Local(local) => local.restart(),
            Self::Rabbit(rabbit) => rabbit.restart().await,
        }
    }

    pub(super) fn freeze(&self) {
        match self {
            Self::Local(local) => local.signal(Signal::STOP),
            Self::Rabbit(rabbit) => rabbit.freeze(),
        }
    }

    pub(super) fn thaw(&self) {
        match self {
            Self::Local(local) => local.signal(Signal::CONT),
            Self::Rabbit(rabbit) => rabbit.thaw(),
        }
    }

    /// Messages of a group that were handed out and not settled, to whomever, where the broker's
    /// clients are not told of others.
    pub(super) fn unsettled(&self, group: &str) -> Option<u64> {
        let Self::Rabbit(rabbit) = self else {
            return None;
        };
        let listed = rabbit.must(&["list_queues", "name", "messages_unacknowledged"]);
        let counts = listed.lines().filter_map(|line| {
            let (name, count) = line.split_once('\t')?;
            let of = name.strip_prefix(group)?;
            of.starts_with('.')
                .then(|| count.trim().parse::<u64>().ok())?
        });
        Some(counts.sum())
    }
}

/// The local broker as a process of its own.
#[derive(Debug)]
pub(super) struct Local {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
}

impl Local {
    fn start(folder: &Path) -> Self {
        let (address, folder) = (free_address(), folder.join("broker"));
        let child = Self::spawn(address, &folder);
        Self {
            child,
            address,
            folder,
        }
    }

    /// Ends once it listens.
    fn spawn(address: SocketAddr, folder: &Path) -> Child {
        let mut child = Command::new(built("delivery-broker"))
            .arg(address.to_string())
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a broker");
        let output = child.stdout.take().expect("standard output is piped");
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        assert!(
            read.is_ok_and(|bytes| bytes > 0),
            "the broker does not listen"
        );
        child
    }

    fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    fn restart(&mut self) {
        self.kill();
        self.child = Self::spawn(self.address, &self.folder);
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(pid(self.child.id()), signal).expect("signal a broker");
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.kill();
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

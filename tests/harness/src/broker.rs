//! Brokers that run, as they are killed, stopped and started: RabbitMQ, or the local one.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::Signal;

use crate::{
    leash::Leash,
    process::{built, free_address, pid},
    rabbitmq::RabbitMq,
};

/// A broker that runs.
#[derive(Debug)]
pub enum Broker {
    /// The one of `gantry up`.
    Local(Local),
    /// A real RabbitMQ.
    Rabbit(RabbitMq),
}

impl Broker {
    /// Starts the local one as a process of its own, which keeps what it has in `folder`.
    ///
    /// # Panics
    ///
    /// If `delivery-broker` was not built.
    #[must_use]
    pub fn local(folder: &Path) -> Self {
        Self::Local(Local::start(folder))
    }

    /// Starts a RabbitMQ, with settings as [`RabbitMq::configured`] takes them; none where it cannot be had on this machine.
    ///
    /// # Panics
    ///
    /// If it does not come to answer.
    pub async fn rabbit(settings: &[(&str, &str)]) -> Option<Self> {
        RabbitMq::configured(settings).await.map(Self::Rabbit)
    }

    /// Where clients reach it, without who logs in.
    #[must_use]
    pub fn url(&self) -> String {
        match self {
            Self::Local(local) => format!("grpc://{}", local.address),
            Self::Rabbit(rabbit) => rabbit.url(),
        }
    }

    /// Kills it with no chance to tell anybody.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub async fn kill(&mut self) {
        match self {
            Self::Local(local) => local.kill(),
            Self::Rabbit(rabbit) => rabbit.kill().await,
        }
    }

    /// Starts it again under the same address, with what it has kept.
    ///
    /// # Panics
    ///
    /// If it does not come to answer.
    pub async fn restart(&mut self) {
        match self {
            Self::Local(local) => local.restart(),
            Self::Rabbit(rabbit) => rabbit.restart().await,
        }
    }

    /// Stops it from running until [`Broker::thaw`].
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn freeze(&self) {
        match self {
            Self::Local(local) => local.signal(Signal::STOP),
            Self::Rabbit(rabbit) => rabbit.freeze(),
        }
    }

    /// Lets it run again.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn thaw(&self) {
        match self {
            Self::Local(local) => local.signal(Signal::CONT),
            Self::Rabbit(rabbit) => rabbit.thaw(),
        }
    }

    /// What it says of its queues and of who consumes them, for people.
    ///
    /// # Panics
    ///
    /// If `rabbitmqctl` cannot be started.
    #[must_use]
    pub fn told(&self) -> String {
        let Self::Rabbit(rabbit) = self else {
            return String::new();
        };
        let queues = [
            "name",
            "messages_ready",
            "messages_unacknowledged",
            "consumers",
        ];
        let consumers = [
            "queue_name",
            "channel_pid",
            "ack_required",
            "prefetch_count",
            "active",
            "activity_status",
        ];
        let channels = [
            "pid",
            "connection",
            "number",
            "consumer_count",
            "messages_unacknowledged",
            "state",
        ];
        let asked = [
            [&["list_queues"][..], &queues].concat(),
            [&["list_consumers"][..], &consumers].concat(),
            [&["list_channels"][..], &channels].concat(),
        ];
        let told = asked.iter().map(|asked| {
            let told = rabbit.ctl(asked);
            format!(
                "{}\n{}\n",
                asked.join(" "),
                String::from_utf8_lossy(&told.stdout)
            )
        });
        told.collect()
    }

    /// Messages of a group that were handed out and not settled, to whomever, where the broker's
    /// clients are not told of others.
    ///
    /// # Panics
    ///
    /// If it does not answer.
    #[must_use]
    pub fn unsettled(&self, group: &str) -> Option<u64> {
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
pub struct Local {
    child: Child,
    leash: Leash,
    address: SocketAddr,
    folder: PathBuf,
}

impl Local {
    fn start(folder: &Path) -> Self {
        let (address, folder) = (free_address(), folder.join("broker"));
        let child = Self::spawn(address, &folder);
        Self {
            leash: Leash::of(&child),
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
        self.leash.let_go();
    }

    fn restart(&mut self) {
        self.kill();
        self.child = Self::spawn(self.address, &self.folder);
        self.leash = Leash::of(&self.child);
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

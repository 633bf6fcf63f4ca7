//! Real etcd servers, one or several of one cluster, each in a folder of its own.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    process::{free_address, pid},
    tools,
    wait::{self, SOON},
};

/// Longest an etcd may take for one question.
const ANSWER: Duration = Duration::from_secs(5);

/// Which etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Debian's.
    V34,
    /// The current one.
    V36,
}

impl Version {
    fn binary(self) -> Option<PathBuf> {
        tools::find(match self {
            Self::V34 => "etcd-3.4",
            Self::V36 => "etcd-3.6",
        })
    }
}

/// One running etcd; killed when dropped.
#[derive(Debug)]
pub struct Etcd {
    binary: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
    folder: TempDir,
    /// Where clients reach it.
    pub address: SocketAddr,
}

impl Etcd {
    /// Starts one etcd, a cluster of its own, and waits until it answers; none where it cannot be
    /// had on this machine.
    ///
    /// # Panics
    ///
    /// If it does not come to answer.
    pub async fn start(version: Version) -> Option<Self> {
        let mut members = Self::cluster(version, 1).await?;
        members.pop()
    }

    /// Starts `count` members of one cluster, and waits until each answers.
    ///
    /// # Panics
    ///
    /// If they do not come to answer.
    pub async fn cluster(version: Version, count: usize) -> Option<Vec<Self>> {
        let binary = version.binary()?;
        let peers: Vec<_> = (0..count).map(|_| free_address()).collect();
        let initial: Vec<_> = peers
            .iter()
            .enumerate()
            .map(|(number, peer)| format!("m{number}=http://{peer}"))
            .collect();
        let mut members: Vec<_> = peers
            .iter()
            .enumerate()
            .map(|(number, peer)| Self::member(&binary, number, *peer, &initial.join(",")))
            .collect();
        for member in &mut members {
            member.spawn();
        }
        for member in &members {
            member.answers().await;
        }
        Some(members)
    }

    fn member(binary: &Path, number: usize, peer: SocketAddr, initial: &str) -> Self {
        let address = free_address();
        let pairs = [
            ("--name", format!("m{number}")),
            ("--listen-client-urls", format!("http://{address}")),
            ("--advertise-client-urls", format!("http://{address}")),
            ("--listen-peer-urls", format!("http://{peer}")),
            ("--initial-advertise-peer-urls", format!("http://{peer}")),
            ("--initial-cluster", initial.to_owned()),
            ("--heartbeat-interval", "50".to_owned()),
            ("--election-timeout", "500".to_owned()),
            ("--logger", "zap".to_owned()),
        ];
        let arguments = pairs
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value]);
        Self {
            binary: binary.to_owned(),
            arguments: arguments.collect(),
            child: None,
            folder: tempfile::tempdir().expect("a temporary folder"),
            address,
        }
    }

    fn spawn(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .expect("a log file");
        let child = Command::new(&self.binary)
            .args(&self.arguments)
            .arg("--data-dir")
            .arg(self.data())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("start etcd"));
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What a client is given to connect.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until it answers.
    ///
    /// # Panics
    ///
    /// If it does not soon; what it said is shown.
    pub async fn answers(&self) {
        let log = self.folder.path().join("log");
        let what = format!("etcd to answer; its words are in {}", log.display());
        wait::until(&what, SOON, async || {
            let output = self.ctl(&["endpoint", "health"]);
            output.status.success().then_some(())
        })
        .await;
    }

    /// Runs `etcdctl` against it.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        ctl(&self.url(), arguments)
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Starts it again where it was, with its data or without, and waits until it answers.
    ///
    /// # Panics
    ///
    /// If it does not come to answer.
    pub async fn restart(&mut self, data: Data) {
        self.kill();
        if data == Data::Lost {
            // There may be none yet.
            drop(std::fs::remove_dir_all(self.data()));
        }
        self.spawn();
        self.answers().await;
    }

    /// Stops it from running until [`Etcd::thaw`].
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it run again.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        rustix::process::kill_process(pid(child.id()), signal).expect("signal a child");
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether a restart finds what was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// It does.
    Kept,
    /// It begins with nothing.
    Lost,
}

/// Runs `etcdctl` against the etcd at `url`.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn ctl(url: &str, arguments: &[&str]) -> Output {
    let binary = tools::find("etcdctl").expect("tests/run installs etcdctl beside etcd");
    let timeout = format!("{}s", ANSWER.as_secs());
    let mut command = Command::new(binary);
    command
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", url, "--command-timeout", &timeout])
        .args(arguments);
    tools::output(&mut command)
}

/// The keys there are under `prefix`, by `etcdctl`; none where etcd does not answer.
#[must_use]
pub fn keys(url: &str, prefix: &str) -> Option<Vec<String>> {
    let output = ctl(url, &["get", "--prefix", prefix, "--keys-only"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let keys = text.lines().filter(|line| !line.is_empty());
    output
        .status
        .success()
        .then(|| keys.map(str::to_owned).collect())
}

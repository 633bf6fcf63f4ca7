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
    authority::Authority,
    process::{free_address, pid},
    tools, wait,
};

/// How long a secured etcd remembers a login; its shortest.
pub const LOGIN: Duration = Duration::from_secs(1);

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
    /// What `etcdctl` is told beside, where it has to prove itself.
    proof: Vec<String>,
}

/// What an etcd asks of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// TLS, and who logs in.
    Password,
    /// A certificate beside that; its name is a user.
    Certificate,
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
        let initial = initial.join(",");
        let mut members: Vec<_> = peers
            .iter()
            .enumerate()
            .map(|(number, peer)| Self::member(&binary, ("http", number), *peer, &initial))
            .collect();
        for member in &mut members {
            member.spawn();
        }
        for member in &members {
            member.answers().await;
        }
        Some(members)
    }

    /// Starts an etcd 3.6 that serves TLS with a certificate of `authority`, lets no one do
    /// anything who does not prove who it is, and forgets who logged in after [`LOGIN`]. It knows
    /// `root` with the password `root`, who may do everything; none where etcd cannot be had.
    ///
    /// # Panics
    ///
    /// If it does not come to answer.
    pub async fn secured(authority: &Authority, asks: Asks) -> Option<Self> {
        let binary = Version::V36.binary()?;
        let peer = free_address();
        let mut etcd = Self::member(&binary, ("https", 0), peer, &format!("m0=http://{peer}"));
        let file = |path: PathBuf| path.display().to_string();
        let issued = authority.issue("etcd");
        let ours = authority.issue("root");
        let mut pairs = vec![
            ("--cert-file", file(issued.certificate)),
            ("--key-file", file(issued.key)),
            ("--auth-token-ttl", LOGIN.as_secs().to_string()),
        ];
        let mut proof = vec![("--cacert", file(authority.ca()))];
        if asks == Asks::Certificate {
            pairs.push(("--trusted-ca-file", file(authority.ca())));
            etcd.arguments.push("--client-cert-auth=true".to_owned());
            proof.push(("--cert", file(ours.certificate)));
            proof.push(("--key", file(ours.key)));
        }
        etcd.arguments.extend(flags(pairs));
        etcd.proof = flags(proof).collect();
        etcd.spawn();
        etcd.answers().await;
        etcd.must(&["user", "add", "root:root"]);
        etcd.must(&["user", "grant-role", "root", "root"]);
        etcd.must(&["auth", "enable"]);
        etcd.proof
            .extend(["--user".to_owned(), "root:root".to_owned()]);
        Some(etcd)
    }

    fn member(
        binary: &Path,
        (scheme, number): (&str, usize),
        peer: SocketAddr,
        initial: &str,
    ) -> Self {
        let address = free_address();
        let pairs = [
            ("--name", format!("m{number}")),
            ("--listen-client-urls", format!("{scheme}://{address}")),
            ("--advertise-client-urls", format!("{scheme}://{address}")),
            ("--listen-peer-urls", format!("http://{peer}")),
            ("--initial-advertise-peer-urls", format!("http://{peer}")),
            ("--initial-cluster", initial.to_owned()),
            ("--heartbeat-interval", "50".to_owned()),
            ("--election-timeout", "500".to_owned()),
            ("--logger", "zap".to_owned()),
        ];
        Self {
            binary: binary.to_owned(),
            arguments: flags(pairs).collect(),
            child: None,
            folder: tempfile::tempdir().expect("a temporary folder"),
            address,
            proof: Vec::new(),
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
        let scheme = if self.proof.is_empty() {
            "http"
        } else {
            "https"
        };
        format!("{scheme}://{}", self.address)
    }

    /// Waits until it answers.
    ///
    /// # Panics
    ///
    /// If it does not soon; what it said is shown.
    pub async fn answers(&self) {
        wait::answers("etcd", &self.folder.path().join("log"), async || {
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
        let proof = self.proof.iter().map(String::as_str);
        let all: Vec<_> = proof.chain(arguments.iter().copied()).collect();
        ctl(&self.url(), &all)
    }

    /// Runs `etcdctl` against it, to success.
    ///
    /// # Panics
    ///
    /// If there is none, or it fails; what it said is shown.
    pub fn must(&self, arguments: &[&str]) {
        let output = self.ctl(arguments);
        assert!(output.status.success(), "etcdctl {arguments:?}: {output:?}");
    }

    /// The keys there are under `prefix`; none where it does not answer.
    #[must_use]
    pub fn keys(&self, prefix: &str) -> Option<Vec<String>> {
        lines(&self.ctl(&["get", "--prefix", prefix, "--keys-only"]))
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
    lines(&ctl(url, &["get", "--prefix", prefix, "--keys-only"]))
}

/// The lines a command printed that are not empty; none where it failed.
fn lines(output: &Output) -> Option<Vec<String>> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter(|line| !line.is_empty());
    output
        .status
        .success()
        .then(|| lines.map(str::to_owned).collect())
}

/// Arguments as a command takes them.
fn flags<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> impl Iterator<Item = String> {
    pairs
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
}

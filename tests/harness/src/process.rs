//! One binary of this workspace, running.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time,
};

use crate::{
    leash::Leash,
    wait::{self, SOON},
};

/// A running service of this workspace, ended by kill when dropped, or with this program.
#[derive(Debug)]
pub struct Service {
    child: Child,
    leash: Leash,
    /// Where it serves gRPC.
    pub address: SocketAddr,
    /// Where it serves probes, metrics and the admin service.
    pub side_address: SocketAddr,
    folder: TempDir,
}

/// What to start.
#[derive(Debug)]
pub struct Builder {
    command: Command,
    folder: TempDir,
    address: SocketAddr,
    side_address: SocketAddr,
}

/// Prepares `binary` with ports of its own and a folder of its own as working directory.
///
/// # Panics
///
/// If the binary was not built, or there is no free port.
#[must_use]
pub fn service(binary: &str) -> Builder {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (address, side_address) = (free_address(), free_address());
    let mut command = Command::new(built(binary));
    command
        .current_dir(folder.path())
        .env("GANTRY_LISTEN__ADDRESS", address.to_string())
        .env("GANTRY_ADMIN__ADDRESS", side_address.to_string())
        .env("GANTRY_SHUTDOWN__DELAY", "100ms")
        .stdin(Stdio::null());
    Builder {
        command,
        folder,
        address,
        side_address,
    }
}

impl Builder {
    /// Has it listen at `address`, as one before it did, in place of a free one.
    #[must_use]
    pub fn at(self, address: SocketAddr) -> Self {
        let mut moved = self.set("LISTEN__ADDRESS", address);
        moved.address = address;
        moved
    }

    /// Sets a variable of the configuration: `LISTEN__ADDRESS` without `GANTRY_`.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "numbers and addresses read better without &"
    )]
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.command.env(format!("GANTRY_{key}"), value.to_string());
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Writes a file into the folder before the start.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    #[must_use]
    pub fn file(self, name: &str, text: &str) -> Self {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a file has a folder"))
            .expect("make a folder");
        std::fs::write(path, text).expect("write a file");
        self
    }

    /// The folder it will run in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The address it will listen on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts it without waiting.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn spawn(mut self) -> Service {
        let log = std::fs::File::create(self.folder.path().join("output")).expect("a log file");
        let errors = log.try_clone().expect("a second handle");
        let child = self.command.stdout(log).stderr(errors).spawn();
        let child = child.expect("start a built binary");
        Service {
            leash: Leash::of(&child),
            child,
            address: self.address,
            side_address: self.side_address,
            folder: self.folder,
        }
    }

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> Service {
        let mut service = self.spawn();
        service.ready().await;
        service
    }
}

impl Service {
    /// Waits until `/readyz` says yes.
    ///
    /// # Panics
    ///
    /// If it ends first, or does not become ready soon; what it printed is shown.
    pub async fn ready(&mut self) {
        wait::until("a service to be ready", SOON, async || {
            if let Some(status) = self.child.try_wait().expect("ask for a child") {
                panic!(
                    "ended with {status} before it was ready:\n{}",
                    self.output()
                );
            }
            let answer = self.get("/readyz").await?;
            answer.starts_with("HTTP/1.1 200").then_some(())
        })
        .await;
    }

    /// Gets a path of the side port: head and body as they came; none without an answer.
    pub async fn get(&self, path: &str) -> Option<String> {
        get(self.side_address, path).await
    }

    /// Everything it printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("output")).unwrap_or_default()
    }

    /// Its working directory.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Panics
    ///
    /// If it has ended and been waited for.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(pid(self.child.id()), signal).expect("signal a child");
    }

    /// Waits for its end, within `bound`.
    ///
    /// # Panics
    ///
    /// If it has not ended by then.
    pub async fn ended(&mut self, bound: Duration) -> ExitStatus {
        let status = wait::until("a service to end", bound, async || {
            self.child.try_wait().expect("ask for a child")
        })
        .await;
        self.leash.let_go();
        status
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A process id as the kernel's calls take it.
///
/// # Panics
///
/// For zero, which is no process.
#[must_use]
pub fn pid(id: u32) -> Pid {
    i32::try_from(id)
        .ok()
        .and_then(Pid::from_raw)
        .expect("a process id")
}

/// A binary of this workspace, built together with the running test or program.
///
/// # Panics
///
/// If it was not built.
#[must_use]
pub fn built(binary: &str) -> PathBuf {
    let running = std::env::current_exe().expect("a running program has a path");
    // target/PROFILE/deps/test-hash, or target/PROFILE/program
    let folders = running.ancestors().skip(1).take(2);
    let mut paths = folders.map(|folder| folder.join(binary));
    paths.find(|path| path.is_file()).unwrap_or_else(|| {
        let running = running.display();
        panic!("{binary} is missing beside {running}: run cargo build --workspace --all-targets --all-features")
    })
}

/// Ports for those who have to be told theirs: systems take none of these by themselves, so nobody who
/// asked for port 0 and no outgoing connection has one before it is bound.
const TOLD: Range<u16> = 12_000..32_000;

/// A loopback address nobody listens on at this moment; the same process gets each once.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn free_address() -> SocketAddr {
    // Processes begin at different places.
    static NEXT: LazyLock<AtomicUsize> = LazyLock::new(|| {
        let drawn = RandomState::new().hash_one(std::process::id());
        AtomicUsize::new(usize::try_from(drawn % 65_536).expect("small"))
    });
    let mut free = TOLD.clone().filter_map(|_| {
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % TOLD.len();
        let port = TOLD.start + u16::try_from(number).expect("less than all");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        listener.local_addr().ok()
    });
    free.next().expect("a free port")
}

/// What `GET path` at `address` answers, head and body; none where nothing answers.
pub async fn get(address: SocketAddr, path: &str) -> Option<String> {
    ask(address, "GET", path, "", "").await
}

/// What `PUT path` with JSON at `address` answers, head and body; none where nothing answers.
pub async fn put(address: SocketAddr, path: &str, json: &str) -> Option<String> {
    ask(address, "PUT", path, "", json).await
}

/// What `POST path` with JSON under an idempotency key answers, head and body; none where nothing
/// answers.
pub async fn post(address: SocketAddr, path: &str, key: &str, json: &str) -> Option<String> {
    let header = format!("Idempotency-Key: {key}\r\n");
    ask(address, "POST", path, &header, json).await
}

async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    header: &str,
    json: &str,
) -> Option<String> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{header}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}",
        json.len()
    );
    let answer = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    };
    // A process that stands still answers nothing, and keeps nobody.
    time::timeout(SOON, answer).await.ok()?
}

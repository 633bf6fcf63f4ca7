//! Real PostgreSQL servers, each in a folder of its own.
//!
//! A server runs as a child of a shell that waits for the end of its own input and then ends the
//! server and removes its folder: so none outlives the test program, however that ends.

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    os::unix::{fs as unix, fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::process::Signal;
use tokio::sync::OnceCell;

use crate::{
    authority::Authority,
    process::{free_address, pid},
    system::is_alive,
    tools,
    wait::{self, SOON},
};

/// Who the server runs as where the tests run as root, whom it refuses: nobody.
const NOBODY: u32 = 65_534;

/// Its owner, and the password.
const USER: &str = "gantry";
/// The password of its user.
pub const PASSWORD: &str = "correct-horse";

/// Runs a server until nobody holds the other end of its input, or a word comes from there.
const KEEPER: &str = r#"
folder=$1 port=$2
shift 2
"$0/postgres" -D "$folder/data" -k "$folder" -p "$port" -h 127.0.0.1 -F -c max_connections=400 "$@" \
  >>"$folder/log" 2>&1 &
server=$!
read -r word
kill -QUIT "$server" 2>/dev/null
wait "$server"
[ "$word" = keep ] || rm -rf "$folder"
"#;

/// A running PostgreSQL server.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    folder: PathBuf,
    address: SocketAddr,
    keeper: Child,
    options: Vec<String>,
    schemas: AtomicU32,
}

/// The server that all tests of a program share, each in a schema of its own; none where PostgreSQL
/// cannot be had on this machine.
///
/// # Panics
///
/// If it does not come to answer.
pub async fn shared() -> Option<&'static Postgres> {
    static SHARED: OnceCell<Option<Postgres>> = OnceCell::const_new();
    SHARED.get_or_init(Postgres::start).await.as_ref()
}

impl Postgres {
    /// Starts a server of its own; none where PostgreSQL cannot be had on this machine.
    ///
    /// # Panics
    ///
    /// If it does not come to answer.
    pub async fn start() -> Option<Self> {
        Self::start_with(None, &[]).await
    }

    /// The same, which waits for its disk as it does in production: what is committed is there after a
    /// loss of power, too. To measure, not to test.
    ///
    /// # Panics
    ///
    /// If it does not come to answer.
    pub async fn durable() -> Option<Self> {
        Self::start_with(None, &["-c", "fsync=on"]).await
    }

    /// The same, with TLS by a certificate of `authority`; without it, it takes nobody's word.
    ///
    /// # Panics
    ///
    /// If it does not come to answer.
    pub async fn secured(authority: &Authority) -> Option<Self> {
        Self::start_with(Some(authority), &[]).await
    }

    async fn start_with(authority: Option<&Authority>, options: &[&str]) -> Option<Self> {
        // A link to where the programs are: they look for the rest beside themselves.
        let programs = fs::canonicalize(tools::find("postgresql")?).expect("follow a link");
        let folder = tempfile::tempdir().expect("a temporary folder").keep();
        let mut make = command(&programs.join("initdb"), &programs);
        // Sorts as people do, not as bytes do: what relies on either is found out.
        let arguments = ["--locale=C", "--encoding=UTF8", "--locale-provider=icu"];
        make.args(arguments).args(["--icu-locale=en", "--no-sync"]);
        make.args(["--auth=scram-sha-256", "--username", USER, "--pwfile"]);
        let password = folder.join("password");
        fs::write(&password, PASSWORD).expect("write a file");
        for path in [&folder, &password] {
            give(path);
        }
        make.arg(&password).arg("-D").arg(folder.join("data"));
        tools::run(&mut make);
        let mut options: Vec<_> = options.iter().map(|it| (*it).to_owned()).collect();
        options.extend(authority.into_iter().flat_map(|it| tls(it, &folder)));
        let address = free_address();
        let keeper = keep(&programs, &folder, address, &options);
        let server = Self {
            programs,
            folder,
            address,
            keeper,
            options,
            schemas: AtomicU32::new(0),
        };
        server.answers().await;
        Some(server)
    }

    /// Where its database is, with the password; a schema is yet to be named.
    #[must_use]
    pub fn url(&self) -> String {
        let address = self.address;
        format!("postgres://{USER}:{PASSWORD}@{address}/postgres")
    }

    /// The same without the password.
    #[must_use]
    pub fn url_without_password(&self) -> String {
        format!("postgres://{USER}@{}/postgres", self.address)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A schema of it that nobody else has.
    #[must_use]
    pub fn schema(&self) -> String {
        let number = self.schemas.fetch_add(1, Ordering::Relaxed);
        format!("{}?schema=test_{number}", self.url())
    }

    /// Kills it and every process of it with no chance to tell anybody.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub async fn kill(&self) {
        let id = self.id().expect("a running server");
        let all = [vec![id], children(id)].concat();
        for process in &all {
            // Some end by themselves.
            let _ = rustix::process::kill_process(pid(*process), Signal::KILL);
        }
        wait::until("a server to be gone", SOON, async || {
            (!all.iter().any(|process| is_alive(*process))).then_some(())
        })
        .await;
    }

    /// Starts it again, once it was killed, under the same address and with what it has kept.
    ///
    /// # Panics
    ///
    /// If it does not come to answer.
    pub async fn restart(&mut self) {
        if let Some(mut input) = self.keeper.stdin.take() {
            input.write_all(b"keep\n").expect("tell a shell");
        }
        self.keeper.wait().expect("wait for a shell");
        self.keeper = keep(&self.programs, &self.folder, self.address, &self.options);
        self.answers().await;
    }

    fn id(&self) -> Option<u32> {
        self.told()?.lines().next()?.parse().ok()
    }

    /// What it writes down of itself: its process first, in the end how it stands.
    fn told(&self) -> Option<String> {
        fs::read_to_string(self.folder.join("data/postmaster.pid")).ok()
    }

    async fn answers(&self) {
        wait::answers("postgres", &self.folder.join("log"), async || {
            let id = self.id()?;
            let ready = self.told()?.lines().nth(7)?.trim() == "ready";
            (ready && is_alive(id)).then_some(())
        })
        .await;
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        drop(self.keeper.wait());
    }
}

/// What a server is told to have TLS, with files of its own.
fn tls(authority: &Authority, folder: &Path) -> Vec<String> {
    let issued = authority.issue("postgres");
    let mut options = Vec::new();
    for (name, from) in [("cert", issued.certificate), ("key", issued.key)] {
        let file = folder.join(name);
        fs::copy(from, &file).expect("copy a file");
        give(&file);
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&file, private).expect("make a file private");
        options.extend([
            "-c".to_owned(),
            format!("ssl_{name}_file={}", file.display()),
        ]);
    }
    options.extend(["-c".to_owned(), "ssl=on".to_owned()]);
    // Whoever comes without TLS is not let in.
    let rules = folder.join("data/pg_hba.conf");
    fs::write(rules, "hostssl all all 127.0.0.1/32 scram-sha-256\n").expect("write a file");
    options
}

fn keep(programs: &Path, folder: &Path, address: SocketAddr, options: &[String]) -> Child {
    let mut keeper = command(Path::new("/bin/sh"), programs);
    keeper
        .args(["-c", KEEPER])
        .arg(programs)
        .arg(folder)
        .arg(address.port().to_string())
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C is for the tests; the server goes with them.
        .process_group(0);
    keeper.spawn().expect("start a shell")
}

/// A command as whoever may run the server.
fn command(program: &Path, programs: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    // Where the programs were unpacked beside the system, so were the libraries they want.
    let root = programs.to_str().and_then(|it| it.split_once("/usr/lib/"));
    if let Some((root, _)) = root.filter(|(root, _)| !root.is_empty()) {
        let libraries = format!("{root}/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        command.env("LD_LIBRARY_PATH", libraries);
    }
    if rustix::process::getuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Gives a file to whoever runs the server.
fn give(path: &Path) {
    if rustix::process::getuid().is_root() {
        unix::chown(path, Some(NOBODY), Some(NOBODY)).expect("give a file away");
    }
}

fn children(id: u32) -> Vec<u32> {
    let path = format!("/proc/{id}/task/{id}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().flat_map(str::parse).collect()
}

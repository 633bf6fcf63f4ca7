//! Real RabbitMQ servers, each in a folder of its own, with a node name, ports and an epmd of its own.
//!
//! A server runs as a child of a shell that waits for the end of its own input and then kills the
//! server and removes its folder: so none outlives the test program, however that ends.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
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

/// Who logs in.
pub const USER: &str = "gantry";
/// The password of its user.
pub const PASSWORD: &str = "correct-horse-battery";

/// Runs a server until nobody holds the other end of its input, or a word comes from there. Both the
/// server and the epmd that it is found by are gone after it.
const KEEPER: &str = r#"
folder=$1
"$0/epmd" -relaxed_command_check >>"$folder/log" 2>&1 &
epmd=$!
"$0/rabbitmq-server" >>"$folder/log" 2>&1 &
server=$!
read -r word
beam=$(cat "$folder/pid" 2>/dev/null)
kill -KILL $beam "$server" "$epmd" 2>/dev/null
wait
[ "$word" = keep ] || rm -rf "$folder"
"#;

/// A running RabbitMQ server; killed with all that belongs to it when dropped.
#[derive(Debug)]
pub struct RabbitMq {
    programs: PathBuf,
    folder: PathBuf,
    address: SocketAddr,
    secured: bool,
    epmd: SocketAddr,
    distribution: SocketAddr,
    keeper: Child,
    /// How many bytes its log had when it was last started.
    said: usize,
}

/// The server that all tests of a program share, each with groups and topics of its own; none where
/// RabbitMQ cannot be had on this machine. Nobody stops it or changes what holds for all.
///
/// # Panics
///
/// If it does not come to answer.
pub async fn shared() -> Option<&'static RabbitMq> {
    static SHARED: OnceCell<Option<RabbitMq>> = OnceCell::const_new();
    SHARED.get_or_init(RabbitMq::start).await.as_ref()
}

impl RabbitMq {
    /// Starts a server of its own; none where RabbitMQ cannot be had on this machine.
    ///
    /// # Panics
    ///
    /// If it does not come to answer.
    pub async fn start() -> Option<Self> {
        Self::start_with(None, &[]).await
    }

    /// The same, with more settings: names and values as in `rabbitmq.conf`, or, in braces, terms of
    /// its application in Erlang, for what has no such name.
    ///
    /// # Panics
    ///
    /// If it does not come to answer.
    pub async fn configured(settings: &[(&str, &str)]) -> Option<Self> {
        Self::start_with(None, settings).await
    }

    /// The same, with TLS by a certificate of `authority`; without it, it does not listen.
    ///
    /// # Panics
    ///
    /// If it does not come to answer.
    pub async fn secured(authority: &Authority) -> Option<Self> {
        Self::start_with(Some(authority), &[]).await
    }

    async fn start_with(authority: Option<&Authority>, settings: &[(&str, &str)]) -> Option<Self> {
        let programs = fs::canonicalize(tools::find("rabbitmq")?).expect("follow a link");
        let folder = tempfile::tempdir().expect("a temporary folder").keep();
        let address = free_address();
        let files = configuration(address, authority, settings);
        for (name, text) in files {
            fs::write(folder.join(name), text).expect("write a file");
        }
        let (epmd, distribution) = (free_address(), free_address());
        let keeper = Self::keep(&programs, &folder, [address, epmd, distribution]);
        let server = Self {
            programs,
            folder,
            address,
            secured: authority.is_some(),
            epmd,
            distribution,
            keeper,
            said: 0,
        };
        server.answers().await;
        Some(server)
    }

    fn keep(programs: &Path, folder: &Path, addresses: [SocketAddr; 3]) -> Child {
        let mut keeper = command(Path::new("/bin/sh"), folder, addresses);
        keeper.args(["-c", KEEPER]).arg(programs).arg(folder);
        keeper
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is for the tests; the server goes with them.
            .process_group(0);
        keeper.spawn().expect("start a shell")
    }

    fn addresses(&self) -> [SocketAddr; 3] {
        [self.address, self.epmd, self.distribution]
    }

    /// Where clients reach it; [`USER`] logs in with [`PASSWORD`].
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.secured { "amqps" } else { "amqp" };
        format!("{scheme}://{}", self.address)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs `rabbitmqctl` against it.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        let program = self.programs.join("rabbitmqctl");
        let mut ctl = command(&program, &self.folder, self.addresses());
        ctl.arg("--quiet").args(arguments);
        tools::output(&mut ctl)
    }

    /// The same to success; what it printed.
    ///
    /// # Panics
    ///
    /// If it fails; what it said is shown.
    #[expect(
        clippy::must_use_candidate,
        reason = "most of what is said is of no interest"
    )]
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.ctl(arguments);
        assert!(
            output.status.success(),
            "rabbitmqctl {arguments:?}: {output:?}"
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Deletes a queue with all that is in it.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn delete_queue(&self, name: &str) {
        self.must(&["delete_queue", name]);
    }

    /// Deletes an exchange with all its bindings.
    ///
    /// # Panics
    ///
    /// If it cannot.
    pub fn delete_exchange(&self, name: &str) {
        let delete = format!(
            "rabbit_exchange:delete(rabbit_misc:r(<<\"/\">>, exchange, <<\"{name}\">>), false, <<\"test\">>)."
        );
        self.must(&["eval", &delete]);
    }

    /// Has it take nothing any more, as where its memory is used up; or take messages again.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn block(&self, blocked: bool) {
        let share = if blocked { "0.00001" } else { "0.6" };
        self.must(&["set_vm_memory_high_watermark", share]);
    }

    /// Adds a user with a password who may do what matches those patterns: configure, write, read.
    ///
    /// # Panics
    ///
    /// If it cannot.
    pub fn add_user(&self, name: &str, password: &str, may: [&str; 3]) {
        self.must(&["add_user", name, password]);
        let [configure, write, read] = may;
        self.must(&["set_permissions", name, configure, write, read]);
    }

    /// Kills it with no chance to tell anybody.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub async fn kill(&self) {
        let id = self.id().expect("a running server");
        self.signal(Signal::KILL);
        wait::until("a server to be gone", SOON, async || {
            (!is_alive(id)).then_some(())
        })
        .await;
    }

    /// Starts it again, killed before or not, under the same addresses and with what it has kept.
    ///
    /// # Panics
    ///
    /// If it does not come to answer.
    pub async fn restart(&mut self) {
        self.end();
        self.begin().await;
    }

    /// The same without anything of what it has kept, as one that is put in its place.
    ///
    /// # Panics
    ///
    /// If it does not come to answer.
    pub async fn replace(&mut self) {
        self.end();
        fs::remove_dir_all(self.folder.join("data")).expect("what it has kept");
        self.begin().await;
    }

    fn end(&mut self) {
        if let Some(mut input) = self.keeper.stdin.take() {
            input.write_all(b"keep\n").expect("tell a shell");
        }
        self.keeper.wait().expect("wait for a shell");
    }

    async fn begin(&mut self) {
        fs::remove_file(self.folder.join("pid")).expect("a file of its last run");
        self.said = self.log().len();
        self.keeper = Self::keep(&self.programs, &self.folder, self.addresses());
        self.answers().await;
    }

    /// Stops it from running until [`RabbitMq::thaw`].
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it run again.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = self.id().expect("a running server");
        rustix::process::kill_process(pid(id), signal).expect("signal a server");
    }

    /// The process that it says it is.
    fn id(&self) -> Option<u32> {
        let text = fs::read_to_string(self.folder.join("pid")).ok()?;
        text.trim().parse().ok()
    }

    async fn answers(&self) {
        let log = self.folder.join("log");
        wait::answers("rabbitmq", &log, async || {
            let id = self.id()?;
            let log = self.log();
            let started = log.get(self.said..)?.contains("completed with");
            (is_alive(id) && started).then_some(())
        })
        .await;
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        drop(self.keeper.wait());
    }
}

/// The files of a server's configuration, by name.
fn configuration(
    address: SocketAddr,
    authority: Option<&Authority>,
    settings: &[(&str, &str)],
) -> [(&'static str, String); 3] {
    let mut text = format!(
        "default_user = {USER}\ndefault_pass = {PASSWORD}\ndisk_free_limit.absolute = 1MB\n"
    );
    let listener = match authority {
        None => format!("listeners.tcp.1 = {address}\n"),
        Some(authority) => {
            let issued = authority.issue("rabbitmq");
            let (ca, certificate, key) = (authority.ca(), issued.certificate, issued.key);
            format!(
                "listeners.tcp = none\nlisteners.ssl.1 = {address}\nssl_options.cacertfile = {}\n\
                 ssl_options.certfile = {}\nssl_options.keyfile = {}\n",
                ca.display(),
                certificate.display(),
                key.display(),
            )
        }
    };
    text.push_str(&listener);
    let (terms, named): (Vec<_>, Vec<_>) =
        settings.iter().partition(|(name, _)| name.starts_with('{'));
    for (name, value) in named {
        writeln!(text, "{name} = {value}").expect("to write into a string");
    }
    let terms: Vec<_> = terms
        .iter()
        .map(|(name, value)| format!("{name}, {value}}}"))
        .collect();
    let advanced = format!("[{{rabbit, [{}]}}].\n", terms.join(", "));
    [
        ("rabbitmq.conf", text),
        ("advanced.config", advanced),
        ("plugins", "[].\n".to_owned()),
    ]
}

/// A command with all that a server and its tools need to know of where they are.
fn command(program: &Path, folder: &Path, addresses: [SocketAddr; 3]) -> Command {
    let [address, epmd, distribution] = addresses;
    let within = |name: &str| folder.join(name).into_os_string();
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .env("HOME", folder)
        .env("LANG", "C.UTF-8")
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("ERL_EPMD_PORT", epmd.port().to_string())
        // Nothing is dumped when it is killed, and idle threads do not spin.
        .env("ERL_CRASH_DUMP_SECONDS", "0")
        .env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "+sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}",
        )
        .env(
            "RABBITMQ_NODENAME",
            format!("gantry-{}@localhost", address.port()),
        )
        .env("RABBITMQ_DIST_PORT", distribution.port().to_string())
        .env("RABBITMQ_CONF_ENV_FILE", within("none"))
        .env("RABBITMQ_CONFIG_FILE", within("rabbitmq"))
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", within("advanced.config"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", within("plugins"))
        .env("RABBITMQ_GENERATED_CONFIG_DIR", within("generated"))
        .env("RABBITMQ_MNESIA_BASE", within("data"))
        .env("RABBITMQ_LOG_BASE", within("logs"))
        .env("RABBITMQ_LOGS", "-")
        .env("RABBITMQ_PID_FILE", within("pid"));
    command
}

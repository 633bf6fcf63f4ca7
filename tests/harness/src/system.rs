//! The whole shop under `gantry up`, in a folder of its own.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::Signal;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    process::{built, pid},
    tools, wait,
};

/// Longest time from the start to SERVING on a busy machine.
const START: Duration = Duration::from_mins(2);

/// A running `gantry up`.
#[derive(Debug)]
pub struct System {
    up: Child,
    folder: TempDir,
    etcd: String,
    /// How long it took until everything served, as it says itself.
    pub seconds_to_serving: f64,
}

/// A row of `gantry ps --output json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// The service.
    pub name: String,
    /// The process of it.
    pub instance: String,
    /// `STARTING`, `SERVING`, `NOT_SERVING`, `DRAINING` or `EXITED`.
    pub state: String,
    /// `WAITING`, `REGISTERING`, `REGISTERED`, `PAUSED` or `LEFT`, where it says.
    pub registration: Option<String>,
    /// What stands in the way of that.
    pub registration_error: Option<String>,
    /// Where it serves.
    pub address: String,
    /// Where its side port is.
    pub side_address: String,
    /// Its process id, while it runs.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u64,
    /// How long it has run.
    pub uptime_seconds: Option<f64>,
    /// Its resident memory.
    pub rss_bytes: Option<u64>,
}

impl System {
    /// Starts the shop of this repository with further arguments, and waits until it serves.
    ///
    /// # Panics
    ///
    /// If it does not serve in time; what it said is shown.
    #[must_use]
    pub fn up(arguments: &[&str]) -> Self {
        Self::up_with(&[], arguments)
    }

    /// As [`System::up`], with settings in the environment of `gantry` and of all it starts.
    ///
    /// # Panics
    ///
    /// As [`System::up`].
    #[must_use]
    pub fn up_with(environment: &[(&str, &str)], arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::copy(
            tools::root().join("gantry.toml"),
            folder.path().join("gantry.toml"),
        )
        .expect("copy gantry.toml");
        copy(&tools::root().join("config"), &folder.path().join("config"));
        Self::within(folder, environment, arguments)
    }

    /// Starts it again where it was, once it has ended.
    ///
    /// # Panics
    ///
    /// As [`System::up`].
    #[must_use]
    pub fn again(mut self, arguments: &[&str]) -> Self {
        let empty = tempfile::tempdir().expect("a temporary folder");
        let folder = std::mem::replace(&mut self.folder, empty);
        drop(self);
        Self::within(folder, &[], arguments)
    }

    fn within(folder: TempDir, environment: &[(&str, &str)], arguments: &[&str]) -> Self {
        let mut up = Command::new(built("gantry"))
            .args(["up", "--output", "json", "--port-base", "0"])
            .args(arguments)
            .envs(environment.iter().copied())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("start gantry up");
        let (sender, lines) = mpsc::channel();
        let output = BufReader::new(up.stdout.take().expect("standard output is piped"));
        // Ends with the process; kept reading so that it never waits for us.
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                drop(sender.send(line));
            }
        });
        let mut said = Vec::new();
        let ready = loop {
            let Ok(line) = lines.recv_timeout(START) else {
                drop(up.kill());
                panic!("gantry up did not come to serve:\n{}", said.join("\n"));
            };
            let value: Value = serde_json::from_str(&line).unwrap_or_default();
            if value["type"] == "ready" {
                break value;
            }
            said.push(line);
        };
        Self {
            up,
            folder,
            etcd: ready["etcd"].as_str().expect("a URL").to_owned(),
            seconds_to_serving: ready["seconds"].as_f64().expect("seconds"),
        }
    }

    /// The etcd its services register in.
    #[must_use]
    pub fn etcd(&self) -> String {
        self.etcd.clone()
    }

    /// Runs `gantry` with `arguments` in the system's folder.
    #[must_use]
    pub fn gantry(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(built("gantry"));
        tools::output(command.args(arguments).current_dir(self.folder.path()))
    }

    /// Gives an account of the shop these roles, as whoever runs it does.
    ///
    /// # Panics
    ///
    /// If accounts does not take it.
    pub fn set_roles(&self, account_id: &str, roles: &[&str]) {
        let request = serde_json::json!({ "accountId": account_id, "roles": roles });
        let method = "shop.accounts.v1.AccountsService/SetRoles";
        let called = self.gantry(&["call", "accounts", method, &request.to_string()]);
        assert!(called.status.success(), "{called:?}");
    }

    /// The instances there are.
    ///
    /// # Panics
    ///
    /// If `gantry ps` fails, or says anything but the rows it promises.
    #[must_use]
    pub fn instances(&self) -> Vec<Instance> {
        let output = self.gantry(&["ps", "--output", "json"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("the promised fields and no others")
    }

    /// Where the first instance of `service` serves.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn address(&self, service: &str) -> String {
        let instances = self.instances();
        let found = instances
            .into_iter()
            .find(|instance| instance.name == service);
        found.unwrap_or_else(|| panic!("no {service}")).address
    }

    /// The folder it runs in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process id of `gantry up`.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.up.id()
    }

    /// Sends `gantry up` a signal.
    ///
    /// # Panics
    ///
    /// If it has ended and been waited for.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(pid(self.up.id()), signal).expect("signal a child");
    }

    /// Waits for the end of `gantry up`.
    ///
    /// # Panics
    ///
    /// If it has not ended within `bound`.
    pub async fn ended(&mut self, bound: Duration) -> ExitStatus {
        wait::until("gantry up to end", bound, async || {
            self.up.try_wait().expect("ask for a child")
        })
        .await
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // Its children go with it; that they do is a test of its own.
        drop(self.up.kill());
        drop(self.up.wait());
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("make a folder");
    for entry in fs::read_dir(from).expect("read a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_name() != "local.toml" {
            fs::copy(entry.path(), target).expect("copy a file");
        }
    }
}

/// Whether a process is there.
#[must_use]
pub fn is_alive(id: u32) -> bool {
    // A process that ended and was not waited for is no longer alive.
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

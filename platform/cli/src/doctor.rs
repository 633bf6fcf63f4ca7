//! `gantry doctor`: whether this machine and this project can run, and what to do where not.

use std::{fs, net::TcpListener, path::Path, process::Stdio, time::Duration};

use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use tokio::{process::Command, time};

use crate::{
    Outcome,
    access::Access,
    args::{BrokerOptions, Doctor, EtcdOptions},
    block_on, broker, current_folder,
    failure::Exit,
    output::{self, Format},
    project::{FILE, Project},
    registry,
    state::StateFolder,
    supervisor::{Spec, control},
    up,
};

/// Files and sockets a process should be able to have open; the usual limit of a login.
const OPEN_FILES_MIN: u64 = 1_024;

/// How long a service may take to print its configuration.
const PRINT_MAX: Duration = Duration::from_secs(10);

/// One thing looked at.
#[derive(Debug, Serialize)]
struct Finding {
    check: String,
    ok: bool,
    detail: String,
    /// What to do, where it is not as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Finding {
    fn good(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            ok: true,
            detail: detail.into(),
            fix: None,
        }
    }

    fn bad(check: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            ok: false,
            detail: detail.into(),
            fix: Some(fix.into()),
        }
    }
}

pub(crate) fn run(args: &Doctor) -> Outcome {
    let folder = current_folder()?;
    block_on(async {
        let findings = examine(&folder).await;
        let sound = findings.iter().all(|finding| finding.ok);
        match args.output {
            Format::Json => output::json(&findings),
            Format::Human => {
                for finding in &findings {
                    show(finding);
                }
                output::line(if sound {
                    "\nEverything is in order."
                } else {
                    "\nNot everything is in order; see the lines with a fix."
                });
            }
        }
        Ok(if sound { Exit::Fine } else { Exit::Failed })
    })
}

fn show(finding: &Finding) {
    let mark = match (finding.ok, output::colour()) {
        (true, true) => "\x1b[32mok\x1b[0m   ",
        (true, false) => "ok   ",
        (false, true) => "\x1b[31mfail\x1b[0m ",
        (false, false) => "fail ",
    };
    output::line(&format!("{mark}{}: {}", finding.check, finding.detail));
    if let Some(fix) = &finding.fix {
        output::line(&format!("     fix: {fix}"));
    }
}

async fn examine(folder: &Path) -> Vec<Finding> {
    let mut findings = vec![toolchain(folder).await, open_files(), ports(), processes()];
    let mut project = match Project::find(folder) {
        Ok(project) => project,
        Err(failure) => {
            findings.push(Finding::bad(
                FILE,
                failure.to_string(),
                "correct that file, or go to a project's folder",
            ));
            return findings;
        }
    };
    let root = project.root.clone();
    // Who never asked for a demo never built it, and does not miss it.
    project.services.retain(|name, service| {
        !service.demo
            || service
                .program(name, &root)
                .is_ok_and(|program| program.is_file())
    });
    let count = project.services.len();
    let root = root.display();
    findings.push(Finding::good(FILE, format!("{count} services in {root}")));
    let state = StateFolder::of(&project.root);
    findings.push(state_folder(&state).await);
    findings.extend(
        project
            .seeds
            .iter()
            .map(|seed| seed_file(&project, &seed.file)),
    );
    let etcd = match Access::given(&EtcdOptions::default()) {
        Ok(given) => given.unwrap_or_else(registry::usual),
        Err(failure) => {
            let fix = "correct that variable of the environment";
            findings.push(Finding::bad("etcd", failure.to_string(), fix));
            return findings;
        }
    };
    let broker = match Access::given(&BrokerOptions::default()) {
        Ok(given) => given.unwrap_or_else(broker::usual),
        Err(failure) => {
            let fix = "correct that variable of the environment";
            findings.push(Finding::bad("broker", failure.to_string(), fix));
            return findings;
        }
    };
    let settings = up::Settings {
        etcd: Some(&etcd),
        broker: Some(&broker),
        ..up::Settings::default()
    };
    match up::specs(&project, &state, settings) {
        Ok(specs) => {
            for spec in &specs {
                findings.push(configuration(spec).await);
            }
        }
        Err(failure) => {
            findings.push(Finding::bad(
                "programs",
                failure.to_string(),
                "gantry up --build",
            ));
        }
    }
    findings
}

async fn toolchain(folder: &Path) -> Finding {
    let mut cargo = Command::new("cargo");
    cargo.arg("--version").current_dir(folder);
    match printed(cargo).await {
        Ok(version) => Finding::good("cargo", version),
        Err(error) => Finding::bad("cargo", error, "install Rust from https://rustup.rs"),
    }
}

fn open_files() -> Finding {
    let limit = getrlimit(Resource::Nofile).current;
    match limit {
        Some(limit) if limit < OPEN_FILES_MIN => Finding::bad(
            "open files",
            format!("{limit} per process"),
            format!("ulimit -n {OPEN_FILES_MIN}, or more for many connections"),
        ),
        Some(limit) => Finding::good("open files", format!("{limit} per process")),
        None => Finding::good("open files", "no limit"),
    }
}

fn ports() -> Finding {
    match TcpListener::bind("127.0.0.1:0") {
        Ok(_) => Finding::good("ports", "free ones on 127.0.0.1"),
        Err(error) => Finding::bad(
            "ports",
            format!("none free on 127.0.0.1: {error}"),
            "bring the loopback interface up: ip link set lo up",
        ),
    }
}

fn processes() -> Finding {
    if fs::metadata("/proc/self/exe").is_ok() {
        Finding::good("processes", "/proc is there")
    } else {
        Finding::bad("processes", "no /proc", "mount -t proc proc /proc")
    }
}

async fn state_folder(state: &StateFolder) -> Finding {
    let path = state.path().display().to_string();
    let fix = format!("make {path} writable for you, or remove it (that clears all data)");
    if let Err(failure) = state.create() {
        return Finding::bad("state folder", failure.to_string(), fix);
    }
    let probe = state.path().join(".doctor");
    let written = fs::write(&probe, "").and_then(|()| fs::remove_file(&probe));
    if let Err(error) = written {
        return Finding::bad("state folder", format!("write to {path}: {error}"), fix);
    }
    match control::instances(state).await {
        Ok(None) => Finding::good("state folder", path),
        Ok(Some(_)) => Finding::good("state folder", format!("{path}, a `gantry up` runs on it")),
        Err(failure) => Finding::bad(
            "state folder",
            failure.to_string(),
            "end that `gantry up` with Ctrl-C, twice if need be",
        ),
    }
}

fn seed_file(project: &Project, file: &Path) -> Finding {
    let check = format!("seed {}", file.display());
    let read = fs::read_to_string(project.root.join(file));
    let fault = match read {
        Err(error) => error.to_string(),
        Ok(text) => match serde_json::from_str::<serde_json::Value>(&text) {
            Err(error) => error.to_string(),
            Ok(_) => return Finding::good(check, "JSON"),
        },
    };
    Finding::bad(
        check,
        fault,
        format!("correct that file, or its entry in {FILE}"),
    )
}

/// Lets the service itself check its configuration, files and environment as `up` has them.
async fn configuration(spec: &Spec) -> Finding {
    let check = format!("configuration of {}", spec.service);
    let mut program = Command::new(&spec.program);
    for name in &spec.hidden {
        program.env_remove(name);
    }
    program
        .args(&spec.arguments)
        .arg("--print-config")
        .envs(spec.environment.iter().map(|(key, value)| (key, value)))
        .current_dir(&spec.folder);
    match printed(program).await {
        Ok(_) => Finding::good(check, "valid"),
        Err(error) => Finding::bad(check, error, "correct what it names"),
    }
}

/// What a program prints, or why it fails.
async fn printed(mut program: Command) -> Result<String, String> {
    program.stdin(Stdio::null()).kill_on_drop(true);
    let output = time::timeout(PRINT_MAX, program.output());
    let output = output
        .await
        .map_err(|_| "does not answer".to_owned())?
        .map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

//! `gantry load` on the shop: its scenarios, and the faults of one.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use gantry_harness::{
    process::{built, pid},
    system::System,
};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

/// That calls are not refused before others.
const MATTERS: &str = "gantry-criticality: CRITICAL_PLUS";

/// The plans of the shop.
fn scenarios(folder: &Path) -> Vec<String> {
    let plans = fs::read_dir(folder.join("config/load")).expect("a folder of plans");
    let names = plans.map(|plan| {
        let name = plan.expect("a plan").file_name().into_string();
        let name = name.expect("names are text");
        name.strip_suffix(".toml").expect("plans alone").to_owned()
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Goal: every scenario of the shop runs on it, whatever becomes of the contracts: its methods exist,
/// its calls end well, and its orders are confirmed.
/// Method: each at a low rate, for fewer seconds than the first fault is away, as calls that a busy
/// machine refuses last; the help lists it.
#[tokio::test]
async fn the_scenarios_run() {
    let system = System::up(&[]);
    let help = system.gantry(&["load", "--help"]).stdout;
    let help = String::from_utf8(help).expect("help is text");
    let names = scenarios(system.folder());
    assert_eq!(["bad-day", "browse", "checkout", "mixed"], names[..]);
    for name in names {
        assert!(help.contains(&format!("\n  {name}")), "{name} in {help}");
        let arguments = [
            "--rate=10",
            "--duration=3s",
            "--output=json",
            "--header",
            MATTERS,
        ];
        let run = system.gantry(&[&["load", "--scenario", &name][..], &arguments].concat());
        let notes = String::from_utf8_lossy(&run.stderr).into_owned();
        let report: Value = serde_json::from_slice(&run.stdout)
            .unwrap_or_else(|error| panic!("{name}: {error}: {notes}"));
        // On a busy machine a run may be void; what became of its calls counts all the same.
        assert_eq!(30, report["status"]["OK"], "{name}: {report:#}");
        let methods = report["methods"].as_array().expect("methods");
        let checkout = methods.iter().find(|it| it["name"] == "checkout");
        assert_eq!(name != "browse", checkout.is_some(), "{name}");
        if let Some(checkout) = checkout {
            let watched = &checkout["steps"][1];
            assert_eq!(checkout["ended"], watched["status"]["OK"], "{name}");
        }
    }
}

/// What is on in the instances of payments.
fn faults(system: &System) -> Vec<Value> {
    let shown = system.gantry(&["fault", "payments", "--output", "json"]);
    assert!(shown.status.success(), "{shown:?}");
    serde_json::from_slice(&shown.stdout).expect("an array")
}

/// Goal: a fault of a plan is on in its time, ends by itself were the run killed, and is off once the
/// run is cut short.
/// Method: Ctrl-C while the first fault of a scenario is on.
#[tokio::test]
async fn an_interrupted_scenario_leaves_no_fault() {
    let system = System::up(&[]);
    let mut child = Command::new(built("gantry"))
        .args(["load", "--scenario", "bad-day", "--output", "json"])
        .current_dir(system.folder())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start gantry load");
    let notes = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut notes = notes.lines().map_while(Result::ok);
    let told = "payments: 50 % UNAVAILABLE";
    assert!(notes.any(|line| line == told), "it is told");
    let on = faults(&system);
    assert_eq!(1, on.len(), "{on:?}");
    assert_eq!(Value::from(50.0), on[0]["fail_percent"]);
    let left = on[0]["seconds_left"].as_u64().expect("a number");
    assert!((1..=17).contains(&left), "{left}");

    kill_process(pid(child.id()), Signal::INT).expect("it runs");
    notes.for_each(drop);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(Some(130), output.status.code());
    assert!(faults(&system).is_empty());
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    let fault = &report["faults"][0];
    assert!(fault["from_seconds"].as_f64() >= Some(5.0), "{fault}");
    assert!(
        fault["until_seconds"].is_number() && fault["error"].is_null(),
        "{fault}"
    );
    assert!(report["faults"][1]["from_seconds"].is_null(), "{report}");
}

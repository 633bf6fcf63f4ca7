//! Runs of `gantry load` that a plan describes: stages, steps, faults, and the page about them.

#![allow(clippy::unwrap_used, reason = "a helper that fails, fails its test")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

#[path = "support/load.rs"]
mod load;
#[path = "support/peer.rs"]
mod peer;
#[path = "support/project.rs"]
mod project;

use load::{ECHO, GATHER, REPEAT, counted, ended, load, number};
use peer::{Peer, Version};
use project::{GANTRY, PATIENCE, Project, eventually, pid};

fn peer() -> Peer {
    Peer::start(Version::V1)
}

/// Goal: a rate follows its stages, and the report has the calls of each second and interval.
/// Method: a ramp up, a hold and a ramp down on the command line; each second's calls are those under
/// the curve, whatever the machine was busy with.
#[test]
fn stages_are_followed() {
    let peer = peer();
    let arguments = [
        ECHO,
        "--stage=0..100:1s",
        "--stage=100:1s",
        "--stage=100..0:1s",
    ];
    let mut command = load(&peer.address.to_string(), &arguments);
    let (_, text, _) = ended(&command.args(["--output", "json"]).output().unwrap());
    let report: Value = serde_json::from_str(&text).unwrap();
    let due = |list: &str| {
        let list = report[list].as_array().unwrap().iter();
        list.map(|it| number(it, "/due")).collect::<Vec<_>>()
    };
    assert_eq!(vec![50, 100, 50], due("seconds"));
    assert_eq!(vec![50, 100, 50], due("intervals"));
    assert_eq!(
        ("open", Value::Null),
        (report["mode"].as_str().unwrap(), report["rate"].clone())
    );
    assert_eq!(3, report["stages"].as_array().unwrap().len());
}

/// Calls of several steps, one of which never goes well.
const JOURNEYS: &str = r#"[values]
said = "it's {{uuid}}"
[[before]]
method = "echo.v1.EchoService/Echo"
request = '{"text": "{{said}} \"once\""}'
keep = { once = "text" }
[[calls]]
name = "journey"
criticality = "SHEDDABLE"
[[calls.steps]]
method = "echo.v1.EchoService/Echo"
request = '{"text": "{{once}} and {{n}}"}'
keep = { again = "request.text" }
[[calls.steps]]
method = "echo.v1.EchoService/Repeat"
request = '{"text": "{{again}}"}'
expect = { instance = "peer" }
[[calls]]
name = "never"
[[calls.steps]]
method = "echo.v1.EchoService/Echo"
[[calls.steps]]
method = "echo.v1.EchoService/Repeat"
request = '{"count": 2}'
expect = { text = "x" }
[[calls.steps]]
method = "echo.v1.EchoService/Hang"
"#;

/// Goal: calls may follow from each other, and from what was asked once before the run.
/// Method: a plan that keeps a text of an answer before the run, sends it as metadata, keeps what
/// comes back, and reads a stream until it has it; the last call expects what never comes.
#[test]
fn calls_follow_from_each_other() {
    let peer = peer();
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("plan.toml");
    let text = format!("target = '{}'\n{JOURNEYS}", peer.address);
    fs::write(&plan, text).unwrap();
    let mut command = Command::new(GANTRY);
    command
        .args(["load", "--plan", "plan.toml"])
        .current_dir(&folder);
    command.args(["--concurrency", "2", "--count", "20", "--output", "json"]);
    let (_, text, notes) = ended(&command.output().unwrap());
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{notes}"));
    let [journey, never] = &report["methods"].as_array().unwrap()[..] else {
        panic!("{report:#}");
    };
    // A stream without end ended well, with the first message that was as expected.
    assert_eq!(10, number(journey, "/status/OK"), "{report:#}");
    assert_eq!("SHEDDABLE", journey["criticality"]);
    let steps = journey["steps"].as_array().unwrap();
    assert_eq!((2, 10), (steps.len(), number(&steps[1], "/status/OK")));
    assert!(number(&steps[1], "/messages/received") < 10 * 100);
    let sum: u64 = steps.iter().map(|it| number(it, "/messages/sent")).sum();
    assert_eq!(sum, number(journey, "/messages/sent"));
    // The step after the one that failed was never made.
    assert_eq!(10, number(never, "/status/INTERNAL"), "{report:#}");
    let steps = never["steps"].as_array().unwrap();
    assert_eq!((2, 10), (steps.len(), number(&steps[0], "/status/OK")));
    let said = format!("{REPEAT}: text is \"\", expected \"x\"");
    assert_eq!(said, report["errors"][0]["message"]);
    // Two kinds, told apart in each interval.
    assert_eq!(2, report["intervals"][0]["parts"].as_array().unwrap().len());
    let target = peer.address.to_string();
    assert_eq!(
        (&*target, &*target),
        (
            report["target"].as_str().unwrap(),
            journey["target"].as_str().unwrap()
        )
    );
}

/// Goal: a report is a page for people where its name says so, and both kinds at once are had.
/// Method: one run with both; the page's end, and nothing else in the folder.
#[test]
fn a_report_may_be_a_page() {
    let peer = peer();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (page, json) = (path("load.html"), path("load.json"));
    let arguments = [ECHO, "--count=20", "--report", &page, "--report", &json];
    let (_, report) = counted(&peer.address.to_string(), &arguments);
    let page = fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    assert!(page.contains(ECHO) && page.contains("<polyline"), "{page}");
    let written: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(report, written);
    assert_eq!(2, fs::read_dir(folder.path()).unwrap().count());
}

/// The faults of a plan in a project of small services, over which `more` says how long it runs.
fn faulty(project: &Project, faults: &str, more: &[&str]) -> Child {
    let text = format!("target = 'front'\n[[calls]]\nmethod = '{GATHER}'\n{faults}");
    let folder = project.path().join("config/load");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("faulty.toml"), text).unwrap();
    let mut command = project.command(&["load", "--scenario", "faulty", "--output", "json"]);
    command.args(["--rate", "100"]).args(more);
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    piped.spawn().unwrap()
}

/// Goal: scenarios are known by name and listed, and a fault is refused before anything is called
/// where nobody is there for it.
/// Method: a slip in a name; the help; a fault without a running `up`, and of an instance it has not.
#[test]
fn scenarios_and_faults_are_looked_up_first() {
    let project = Project::new("", "");
    let fault = |whom: &str| {
        let fault = format!("[[faults]]\nat = '0s'\nfor = '1s'\nwhom = '{whom}'\ndo = 'stop'\n");
        let child = faulty(&project, &fault, &["--count", "1"]);
        ended(&child.wait_with_output().unwrap())
    };
    let (code, _, notes) = fault("front");
    assert!(code == 1 && notes.contains("nothing runs here"), "{notes}");
    let (code, _, notes) = project.run(&["load", "--scenario", "fautly", "--rate", "1"]);
    let told = notes.contains("(did you mean \"faulty\"?); there are faulty");
    assert!(code == 2 && told, "{notes}");
    let (code, help, _) = project.run(&["load", "--help"]);
    assert!(
        code == 0 && help.contains("\nScenarios of this project:\n  faulty\n"),
        "{help}"
    );

    let up = project.up(&[]);
    up.ready();
    let (code, text, notes) = fault("frnt");
    let told = notes.contains("faulty.toml:4: no service or instance \"frnt\" (did you mean");
    assert!(code == 2 && text.is_empty() && told, "{notes}");
}

/// Whether a process stands still.
fn stands_still(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
    stat.rsplit(')').next().unwrap().starts_with(" T")
}

/// Goal: a process is stopped and killed when the plan says so, goes on after it, and the report says
/// when that was.
/// Method: a scenario of a project that stops one service for a second and kills another; each call
/// ends well, those of the stop after it.
#[test]
fn faults_are_done_in_their_time() {
    let project = Project::new("", "");
    let up = project.up(&[]);
    up.ready();
    let faults = "[[faults]]\nat = '1s'\nfor = '1s'\nwhom = 'front'\ndo = 'stop'\n\
                  [[faults]]\nat = '1500ms'\nwhom = 'back-1'\ndo = 'kill'\n";
    let child = faulty(&project, faults, &["--duration", "3s"]);
    let (_, text, notes) = ended(&child.wait_with_output().unwrap());
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{notes}"));
    assert_eq!(300, number(&report, "/status/OK"), "{report}");
    assert!(
        report["latency_seconds"]["max"].as_f64().unwrap() > 0.8,
        "{report}"
    );
    let time = |pointer: &str| report.pointer(pointer).unwrap().as_f64().unwrap();
    let (from, until) = (
        time("/faults/0/from_seconds"),
        time("/faults/0/until_seconds"),
    );
    assert!(
        from >= 1.0 && until >= 2.0 && until - from < 5.0,
        "{report}"
    );
    assert_eq!(Value::Null, report["faults"][1]["error"]);
    assert!(
        notes.contains("front: stopped") && notes.contains("back-1: killed"),
        "{notes}"
    );
    up.until_state("back-1", "SERVING");
    assert_eq!(1, project.ps("back-1")["restarts"]);
    let server = pid(project.ps("front-1")["pid"].as_u64().unwrap());
    assert!(!stands_still(server));
}

/// Goal: whatever is done on purpose is undone when a run is cut short.
/// Method: Ctrl-C while a process stands still for an hour; it goes on, and calls end well.
#[test]
fn an_interrupted_run_undoes_its_faults() {
    let project = Project::new("", "");
    let up = project.up(&[]);
    up.ready();
    let server = pid(project.ps("front-1")["pid"].as_u64().unwrap());
    let faults = "[[faults]]\nat = '0s'\nfor = '1h'\nwhom = 'front-1'\ndo = 'stop'\n";
    let mut child = faulty(&project, faults, &["--duration", "1h"]);
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    assert!(lines.any(|line| line == "front-1: stopped"));
    // A busy machine stops it a little later.
    eventually(PATIENCE, "a stop", || stands_still(server));
    kill_process(pid(u64::from(child.id())), Signal::INT).unwrap();
    lines.for_each(drop);
    let (code, text, _) = ended(&child.wait_with_output().unwrap());
    assert!(!stands_still(server));
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(130, code, "{report}");
    assert_eq!(
        number(&report, "/sent"),
        number(&report, "/status/OK"),
        "{report}"
    );
}

//! `gantry load` as people and scripts run it.

#![allow(clippy::unwrap_used, reason = "a helper that fails, fails its test")]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

#[path = "support/load.rs"]
mod load;
#[path = "support/peer.rs"]
mod peer;
#[path = "support/project.rs"]
mod project;

use load::{CHAT, ECHO, FAIL, GATHER, HANG, REPEAT, counted, counted_at, ended, load, number};
use peer::{Peer, Version};
use project::{Project, pid};

fn peer() -> Peer {
    Peer::start(Version::V1)
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

/// Two seconds of an open loop: exit code, report, and what was told meanwhile.
fn open_loop(target: &str) -> (i32, Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    let mut command = load(target, &[ECHO, r#"{"text": "{{n}} {{uuid}}"}"#]);
    command.args(["--rate", "200", "--duration", "2s", "--output", "json"]);
    let output = command.arg("--report").arg(&file).output().unwrap();
    let (code, text, notes) = ended(&output);
    assert_eq!(text, fs::read_to_string(&file).unwrap());
    (code, serde_json::from_str(&text).unwrap(), notes)
}

/// The fields of a report in docs/operating.md.
fn documented(page: &str) -> BTreeSet<&str> {
    let section = page.split("\n## gantry load\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let fields = section.split("| field | |").nth(1).unwrap();
    let cells = fields
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    cells
        .flat_map(|cell| cell.split(['`', ',', ' ']))
        .filter(|word| !word.is_empty() && *word != "---")
        .collect()
}

/// Goal: the report has exactly the documented fields.
/// Method: those of an open loop against the table of docs/operating.md, and of each part.
#[test]
fn the_report_is_what_is_documented() {
    let peer = peer();
    let (_, report, _) = open_loop(&peer.address.to_string());
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operating.md");
    let page = fs::read_to_string(page).unwrap();
    assert_eq!(documented(&page), keys(&report));
    let spread = "count, min, mean, p50, p90, p95, p99, p99_9, max";
    let method = "name, method, weight, target, criticality, ended, status, latency_seconds, \
                  messages, bytes, steps";
    let interval = "from_seconds, seconds, due, dropped, sent, ok, status, latency_p50_seconds, \
                    latency_p99_seconds, latency_max_seconds, parts";
    let part = "target, criticality, sent, ok, status, latency_p50_seconds, latency_p99_seconds, \
                latency_max_seconds";
    let endpoint = "address, ended, status, latency_seconds, messages, bytes";
    let second = "second, due, sent, dropped, status, endpoints, latency_mean_seconds, \
                  latency_max_seconds";
    for (pointer, fields) in [
        ("/latency_seconds", spread),
        ("/endpoints/0/latency_seconds", spread),
        ("/methods/0", method),
        ("/endpoints/0", endpoint),
        ("/seconds/0", second),
        ("/intervals/0", interval),
        ("/intervals/0/parts/0", part),
    ] {
        assert!(page.contains(&format!("{{{fields}}}")), "{fields}");
        let expected: BTreeSet<_> = fields.split(", ").collect();
        assert_eq!(
            expected,
            keys(report.pointer(pointer).unwrap()),
            "{pointer}"
        );
    }
}

/// Goal: the numbers of a report agree with each other, and with the exit code.
/// Method: the sums of an open loop, and the order of its percentiles.
#[test]
fn the_numbers_of_a_report_agree() {
    let peer = peer();
    let target = peer.address.to_string();
    let (code, report, notes) = open_loop(&target);
    assert_eq!("open", report["mode"]);
    assert!((report["rate"].as_f64().unwrap() - 200.0).abs() < 1e-9);
    assert_eq!(400, number(&report, "/due"));
    let lost = number(&report, "/dropped") + number(&report, "/cut");
    assert_eq!(400, number(&report, "/ended") + lost);
    assert_eq!(400, number(&report, "/status/OK") + lost);
    let due = |second: usize| number(&report, &format!("/seconds/{second}/due"));
    assert_eq!((200, 200), (due(0), due(1)));
    assert_eq!(target, report["endpoints"][0]["address"]);
    let spread = &report["latency_seconds"];
    let value = |name: &str| spread[name].as_f64().unwrap();
    let names = ["min", "p50", "p90", "p95", "p99", "p99_9", "max"];
    assert!(names.map(value).is_sorted(), "{spread}");
    assert!(value("min") > 0.0 && value("max") < 5.0, "{spread}");
    // On a busy machine the run may rightly be void.
    let on_schedule = report["sent_on_schedule_ratio"].as_f64().unwrap();
    let void = on_schedule < 0.99 || lost > 4;
    assert_eq!(
        (i32::from(void), void),
        (code, report["void"].as_bool().unwrap()),
        "{report}"
    );
    assert!(
        notes.contains("/s sent") && notes.contains("OK "),
        "{notes}"
    );
}

/// Goal: every kind of stream is called, and its messages are counted.
/// Method: each kind, with several messages each way; one without end, cut by its deadline.
#[test]
fn streams_of_every_kind_are_called() {
    let peer = peer();
    let target = peer.address.to_string();
    let cases = [
        (REPEAT, r#"{"text": "{{n}}", "count": 3}"#, 1, 3),
        (GATHER, r#"{"text": "a"} {"text": "b"}"#, 2, 1),
        (GATHER, "", 0, 1),
        (CHAT, r#"{"text": "a"} {"text": "{{uuid}}"} {}"#, 3, 3),
        (CHAT, r#"[{"text": "a"}, {}]"#, 2, 2),
    ];
    for (method, request, sent, received) in cases {
        let (code, report) = counted(&target, &[method, request, "--count", "20"]);
        assert_eq!((0, 20), (code, number(&report, "/status/OK")), "{report}");
        let messages = &report["messages"];
        let expected = (20 * sent, 20 * received);
        let counted = (number(messages, "/sent"), number(messages, "/received"));
        assert_eq!(expected, counted, "{method} {request}");
        assert!(number(&report, "/bytes/received") >= 20 * (received - 1));
        assert_eq!(20, number(&report, "/first_message_seconds/count"));
    }
    let endless = [REPEAT, "{}", "--count", "4", "--deadline", "200ms"];
    let (code, report) = counted(&target, &endless);
    assert_eq!((0, 4), (code, number(&report, "/status/DEADLINE_EXCEEDED")));
    assert!(number(&report, "/messages/received") > 40, "{report}");
    assert_eq!(target, report["errors"][0]["endpoint"]);
}

/// Goal: requests on lines are taken in turn.
/// Method: lines of different lengths, in a file; the bytes of ten rounds.
#[test]
fn requests_are_taken_in_turn() {
    let peer = peer();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("requests.jsonl");
    fs::write(&file, "{\"text\": \"a\"}\n\n{\"text\": \"bb\"}\n").unwrap();
    let argument = format!("@{}", file.display());
    let (code, report) = counted(
        &peer.address.to_string(),
        &[ECHO, &argument, "--count", "20"],
    );
    assert_eq!(0, code);
    assert_eq!(10 * (3 + 4), number(&report, "/bytes/sent"));
}

/// Goal: a scenario's methods get their shares, and what each says about itself.
/// Method: weights of three to one to one, a deadline and metadata of their own.
#[test]
fn a_scenario_mixes_methods_by_weight() {
    let peer = peer();
    let folder = tempfile::tempdir().unwrap();
    let scenario = folder.path().join("load.toml");
    fs::write(folder.path().join("chat.jsonl"), "[{}, {}]\n").unwrap();
    let text = format!(
        "deadline = '5s'\n\
         [[calls]]\nname = 'often'\nmethod = '{ECHO}'\nweight = 3\nmetadata = {{ x-a = 'b' }}\n\
         request = '{{\"text\": \"{{{{uuid}}}}\"}}'\n\
         [[calls]]\nmethod = '{CHAT}'\nrequest = '@chat.jsonl'\n\
         [[calls]]\nmethod = '{HANG}'\ndeadline = '50ms'\n"
    );
    fs::write(&scenario, text).unwrap();
    let arguments = ["--scenario", scenario.to_str().unwrap(), "--count", "50"];
    let (code, report) = counted(&peer.address.to_string(), &arguments);
    assert_eq!(0, code, "{report}");
    let methods: Vec<_> = report["methods"].as_array().unwrap().iter().collect();
    let ended = |index: usize| number(methods[index], "/ended");
    assert_eq!((30, 10, 10), (ended(0), ended(1), ended(2)));
    assert_eq!(
        ("often", ECHO),
        (
            methods[0]["name"].as_str().unwrap(),
            methods[0]["method"].as_str().unwrap()
        )
    );
    assert_eq!(20, number(methods[1], "/messages/received"));
    assert_eq!(10, number(methods[2], "/status/DEADLINE_EXCEEDED"));
    assert_eq!(HANG, report["errors"][0]["method"]);
}

/// Goal: it is known which endpoint answered.
/// Method: two endpoints and more calls at a time than one would be left alone with; the counts of
/// each, in total and by second.
#[test]
fn calls_are_counted_by_endpoint() {
    let peers = [peer(), peer()];
    let addresses = peers.each_ref().map(|peer| peer.address.to_string());
    let arguments = [REPEAT, r#"{"count": 20}"#, "--count=400"];
    let (code, report) = counted_at(64, &addresses.join(","), &arguments);
    assert_eq!(0, code, "{report}");
    let endpoints = report["endpoints"].as_array().unwrap();
    let found: BTreeSet<_> = endpoints
        .iter()
        .map(|it| it["address"].as_str().unwrap())
        .collect();
    assert_eq!(
        addresses
            .iter()
            .map(String::as_str)
            .collect::<BTreeSet<_>>(),
        found
    );
    let counts: Vec<_> = endpoints.iter().map(|it| number(it, "/ended")).collect();
    assert_eq!(400, counts.iter().sum::<u64>());
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    let seconds = report["seconds"].as_array().unwrap();
    let of_first = seconds
        .iter()
        .filter_map(|it| it["endpoints"][&addresses[0]].as_u64());
    let first = endpoints
        .iter()
        .find(|it| it["address"] == addresses[0])
        .unwrap();
    assert_eq!(number(first, "/ended"), of_first.sum::<u64>());
}

/// Goal: failures are counted by status with what was said, and fail a script only on request.
/// Method: a method that fails; for programs and for people.
#[test]
fn failures_are_counted_and_quoted() {
    let peer = peer();
    let target = peer.address.to_string();
    let arguments = [FAIL, r#"{"text": "too long by {{n}}"}"#, "--count", "20"];
    let (code, report) = counted(&target, &arguments);
    assert_eq!(
        (0, 20),
        (code, number(&report, "/status/FAILED_PRECONDITION"))
    );
    let errors = report["errors"].as_array().unwrap();
    assert_eq!((1, 20), (errors.len(), number(&errors[0], "/count")));
    // Whichever of the first four ended first.
    let message = errors[0]["message"].as_str().unwrap();
    assert!(message.starts_with("too long by "), "{message}");
    assert_eq!(0, number(&report, "/latency_ok_seconds/count"));

    let mut command = load(&target, &arguments);
    command.args(["--concurrency", "1", "--fail-on-error"]);
    let (code, text, notes) = ended(&command.output().unwrap());
    assert_eq!(1, code);
    assert!(notes.contains("20 of 20 calls failed"), "{notes}");
    for words in [
        "1 at a time",
        "FAILED_PRECONDITION  20",
        "too long by 0",
        "ENDPOINT",
        &target,
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
}

/// Goal: a run that says nothing about the server is void, and says why.
/// Method: a method that hangs and one place for its calls.
#[test]
fn a_run_that_drops_calls_is_void() {
    let peer = peer();
    let target = peer.address.to_string();
    let mut command = load(&target, &[HANG, "--deadline", "300ms", "--count", "20"]);
    command.args(["--rate", "100", "--in-flight-max", "1", "--output", "json"]);
    let (code, text, notes) = ended(&command.output().unwrap());
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((1, true), (code, report["void"].as_bool().unwrap()));
    assert_eq!(20, number(&report, "/due"));
    assert!(number(&report, "/dropped") >= 18, "{report}");
    assert!(notes.contains("got a final status, under 99 %"), "{notes}");
}

/// Goal: Ctrl-C ends a run early, and the report is there all the same.
/// Method: interrupt an endless run after its first line of progress.
#[test]
fn an_interrupted_run_reports() {
    let peer = peer();
    let mut command = load(&peer.address.to_string(), &[ECHO, "--rate", "50"]);
    command.args(["--duration", "1h", "--output", "json"]);
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let mut line = String::new();
    let mut notes = BufReader::new(child.stderr.take().unwrap());
    notes.read_line(&mut line).unwrap();
    assert!(line.contains("/s sent"), "{line}");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let (code, text, _) = ended(&child.wait_with_output().unwrap());
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (130, true),
        (code, report["interrupted"].as_bool().unwrap())
    );
    assert!(number(&report, "/due") >= 50 && number(&report, "/due") < 3_000);
    assert_eq!(0, number(&report, "/cut"));
}

/// Goal: a server that stands still shows in the latency of every call that was due meanwhile.
/// Method: stop the process for a second of four, at 200 calls a second; all end well.
#[test]
fn a_stall_shows_in_the_percentiles() {
    let project = Project::new("", "");
    let up = project.up(&[]);
    up.ready();
    let row = project.ps("front-1");
    let server = pid(row["pid"].as_u64().unwrap());
    let mut command = load(row["address"].as_str().unwrap(), &[GATHER, "{}"]);
    command.args(["--rate", "200", "--duration", "4s", "--output", "json"]);
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    told.next().unwrap().unwrap();
    kill_process(server, Signal::STOP).unwrap();
    told.next().unwrap().unwrap();
    kill_process(server, Signal::CONT).unwrap();
    told.map_while(Result::ok).for_each(drop);
    let (_, text, _) = ended(&child.wait_with_output().unwrap());

    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(800, number(&report, "/status/OK"), "{report}");
    let spread = &report["latency_seconds"];
    // A quarter of the calls waited, evenly from nothing to a second.
    for (name, least) in [("p90", 0.4), ("p95", 0.6), ("max", 0.8)] {
        let value = spread[name].as_f64().unwrap();
        assert!(value > least, "{name}: {spread}");
    }
}

/// Goal: of a name, all instances are called that serve, also those that come later, and none that
/// has gone; no call fails by it.
/// Method: a service in a running `up`, scaled from one to two and back under load.
#[test]
fn the_instances_of_a_name_are_followed() {
    let project = Project::new("", "");
    let up = project.up(&[]);
    up.ready();
    let mut command = project.command(&["load", "front", ECHO, "--output", "json"]);
    command.args(["--rate", "200", "--duration", "1h"]);
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let notes = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut told = notes.map_while(Result::ok);
    let mut addresses = Vec::new();
    for instances in ["front=2", "front=1"] {
        assert!(told.next().is_some());
        assert_eq!(0, project.run(&["scale", instances]).0);
        if instances == "front=2" {
            addresses = ["front-1", "front-2"]
                .map(|name| project.ps(name)["address"].clone())
                .to_vec();
        }
        assert_eq!(3, told.by_ref().take(3).count());
    }
    kill_process(pid(u64::from(child.id())), Signal::INT).unwrap();
    // What is in the pipe has to be read, or the child waits for us.
    told.for_each(drop);
    let (code, text, _) = ended(&child.wait_with_output().unwrap());
    assert_eq!(130, code);

    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!("front", report["target"]);
    assert_eq!(
        number(&report, "/ended"),
        number(&report, "/status/OK"),
        "{report}"
    );
    let endpoints = report["endpoints"].as_array().unwrap();
    let called = |address: &Value| endpoints.iter().any(|it| it["address"] == *address);
    // The share of each is the balancer's affair.
    assert!(
        addresses.iter().all(called),
        "{addresses:?}: {endpoints:#?}"
    );
    let seconds = report["seconds"].as_array().unwrap();
    let gone = addresses[1].as_str().unwrap();
    let last = seconds.last().unwrap();
    assert_eq!(None, last["endpoints"].get(gone), "{last:#}");
}

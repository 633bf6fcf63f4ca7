//! The commands that talk to a running `gantry up`, by name and exit code.

#![allow(clippy::unwrap_used, reason = "a helper that fails, fails its test")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use rustix::process::{Signal, kill_process};
use serde_json::Value;

#[path = "support/project.rs"]
mod project;

use project::{GANTRY, Project, pid};

/// Goal: `wait` tells serving, timed out, failed and unknown apart.
/// Method: each once, by exit code; one waits for an `up` that comes later.
#[test]
fn wait_has_an_exit_code_for_each_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let sick = folder.path().join("sick");
    let project = Project::new(
        "",
        &format!("env = {{ ECHO_SICK_FILE = '{}' }}", sick.display()),
    );
    let wait = |name: &str, timeout: &str| project.run(&["wait", name, "--timeout", timeout]).0;
    assert_eq!(17, wait("back", "50ms"), "nothing runs");
    assert_eq!(2, wait("bakc", "50ms"));

    fs::write(&sick, "").unwrap();
    let mut early = project.command(&["wait", "back-1"]).spawn().unwrap();
    let up = project.up(&[]);
    assert_eq!(0, wait("front", "60s"));
    assert_eq!(17, wait("back", "50ms"), "it is sick");
    assert_eq!("STARTING", project.ps("back-1")["state"]);
    fs::remove_file(&sick).unwrap();
    assert!(early.wait().unwrap().success());

    fs::write(&sick, "").unwrap();
    up.until_state("back-1", "NOT_SERVING");
    fs::remove_file(&sick).unwrap();
    up.until_state("back-1", "SERVING");
    let mut last = project.command(&["wait", "front-9"]);
    assert_eq!(Some(2), last.status().unwrap().code());

    fs::write(&sick, "").unwrap();
    up.until_state("back-1", "NOT_SERVING");
    let mut hopeful = project
        .command(&["wait", "back"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It has seen the running `up` once `ps` has been answered after it connected; either way the
    // end of `up` is its answer, at the latest by its own timeout.
    up.signal(Signal::TERM);
    let code = hopeful.wait().unwrap().code().unwrap();
    assert!([17, 18].contains(&code), "{code}");
}

/// Goal: `wait` gives up on a service that cannot serve without help.
/// Method: a program that ends at once, five times.
#[test]
fn wait_fails_for_a_service_that_cannot_serve() {
    let project = Project::new("", "");
    let broken = format!("{}[services.broken]\nbinary = '/bin/false'\n", {
        fs::read_to_string(project.path().join("gantry.toml")).unwrap()
    });
    fs::write(project.path().join("gantry.toml"), broken).unwrap();
    let mut up = project.up(&[]);
    up.until_state("broken-1", "EXITED");
    let (code, _, text) = project.run(&["wait", "broken", "--timeout", "60s"]);
    assert_eq!(18, code, "{text}");
    assert_eq!(Some(1), up.code(), "`up` gives up as well, and says so");
}

/// Goal: a call by name reaches an instance of the running `up`; names are checked.
/// Method: by service, by instance, a slip, and without an `up`.
#[test]
fn calls_go_by_name() {
    let project = Project::new("env = { ECHO_NAME = 'me' }", "");
    let echo = "echo.v1.EchoService/Echo";
    let (code, _, text) = project.run(&["call", "front", echo]);
    assert_eq!(1, code);
    assert!(text.contains("no `gantry up` runs here"), "{text}");

    let up = project.up(&[]);
    up.ready();
    for name in ["front", "front-1"] {
        let (code, answer, text) = project.run(&["call", name, echo, r#"{"text": "hi"}"#]);
        assert_eq!(0, code, "{text}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(
            ("hi", "me"),
            (
                answer["text"].as_str().unwrap(),
                answer["instance"].as_str().unwrap()
            )
        );
    }
    let (code, _, text) = project.run(&["call", "frnt", echo]);
    assert_eq!(2, code);
    assert!(text.contains("did you mean \"front\""), "{text}");
}

/// Goal: `logs` shows the past of one instance or all, follows, and knows names.
/// Method: tail by service; follow while a service says something new.
#[test]
fn logs_are_shown_and_followed() {
    let project = Project::new("", "");
    let (code, _, text) = project.run(&["logs"]);
    assert_eq!(1, code);
    assert!(text.contains("nothing has run here"), "{text}");

    let up = project.up(&[]);
    up.ready();
    let (_, all, _) = project.run(&["logs"]);
    assert!(
        all.contains("back-1  | echo listens") && all.contains("front-1 | echo listens"),
        "{all}"
    );
    let (_, one, _) = project.run(&["logs", "back", "--tail", "1"]);
    assert_eq!(1, one.lines().count());
    assert_eq!(2, project.run(&["logs", "bakc"]).0);

    let mut following = project.command(&["logs", "back", "-f", "--tail", "1"]);
    let mut following = following.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("echo listens"));
    let back = project.ps("back-1")["pid"].as_u64().unwrap();
    kill_process(pid(back), Signal::TERM).unwrap();
    assert!(lines.next().unwrap().unwrap().contains("was told to end"));
    assert!(
        lines.next().unwrap().unwrap().contains("echo listens"),
        "the next process"
    );
    kill_process(pid(u64::from(following.id())), Signal::INT).unwrap();
    assert!(following.wait().unwrap().success());
}

/// Goal: what is wrong with gantry.toml or the command line is refused with 2 before anything
/// starts.
/// Method: each mistake once.
#[test]
fn mistakes_are_refused_before_anything_starts() {
    let project = Project::new("", "");
    let cases: [(&[&str], &str); 4] = [
        (&["up", "--replicas", "frnt=2"], "did you mean \"front\""),
        (&["up", "--replicas", "front=0"], "from 1 to 32"),
        (&["up", "--port-base", "65535"], "--port-base 65535"),
        (&["wiat", "front"], "wait"),
    ];
    for (arguments, words) in cases {
        let (code, _, text) = project.run(arguments);
        assert_eq!(2, code, "{text}");
        assert!(text.contains(words), "{words} in {text}");
    }
    fs::write(
        project.path().join("gantry.toml"),
        "[services.a]\nreplicsa = 2\n",
    )
    .unwrap();
    let (code, _, text) = project.run(&["up"]);
    assert_eq!(2, code);
    assert!(
        text.contains("line 2") && text.contains("replicsa"),
        "{text}"
    );
    fs::write(project.path().join("gantry.toml"), "[services.a]\n").unwrap();
    let (code, _, text) = project.run(&["up"]);
    assert_eq!(2, code);
    assert!(text.contains("not built"), "{text}");

    let nowhere = tempfile::tempdir().unwrap();
    let output = Command::new(GANTRY)
        .arg("ps")
        .current_dir(nowhere.path())
        .output()
        .unwrap();
    assert_eq!(Some(2), output.status.code());
}

/// Goal: of several instances each is asked, also after one that cannot be, and is named; and what is
/// meant has to be said before anything is set.
/// Method: two instances whose side ports know no admin service; the verbs that ask them, by exit code
/// and words.
#[test]
fn each_instance_is_asked_for_itself() {
    let project = Project::new("replicas = 2", "");
    let up = project.up(&[]);
    up.ready();
    let asked: [&[&str]; 4] = [
        &["fault", "front"],
        &["breaker", "front"],
        &["breaker", "front", "back", "--open", "--for", "1m"],
        &["limits", "front", "--all"],
    ];
    for arguments in asked {
        let (code, _, text) = project.run(arguments);
        assert_eq!(1, code, "{arguments:?}: {text}");
        for instance in ["front-1: ", "front-2: "] {
            assert!(text.contains(instance), "{arguments:?}: {text}");
        }
        assert!(!text.contains("back-1"), "{arguments:?}: {text}");
    }
    let (code, out, _) = project.run(&["breaker", "front-2", "--output", "json"]);
    assert_eq!((1, "[]"), (code, out.trim()));

    let refused: [(&[&str], &str); 5] = [
        (&["breaker", "front", "--open"], "WHOSE"),
        (&["breaker", "front", "back", "--for", "1m"], "--open"),
        (
            &["breaker", "front", "back", "--close", "--for", "1m"],
            "--for",
        ),
        (
            &["breaker", "front", "back", "--open", "--close"],
            "--close",
        ),
        (&["breaker", "front", "back/one"], "payments/127.0.0.1:7001"),
    ];
    for (arguments, words) in refused {
        let (code, _, text) = project.run(arguments);
        assert_eq!(2, code, "{arguments:?}: {text}");
        assert!(text.contains(words), "{arguments:?}: {text}");
    }
}

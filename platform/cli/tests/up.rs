//! `gantry up` as people run it, on a system of small services that misbehave on demand
//! (`tests/support/service.rs`).

#![allow(clippy::unwrap_used, reason = "a helper that fails, fails its test")]

use std::{fs, path::PathBuf, time::Duration};

use rustix::process::{Signal, getpgid, kill_process};
use serde_json::Value;

#[path = "support/project.rs"]
mod project;

use project::{Project, alive, eventually, is_state, pid, pids};

/// Goal: `up` serves, `ps` shows it with exactly the documented fields, `stop` drains it.
/// Method: three instances; every field of every row; callers got the addresses they call.
#[test]
fn up_serves_ps_shows_and_stop_drains() {
    let project = Project::new("", "replicas = 2");
    let mut up = project.up(&[]);
    let ready = up.ready();
    assert_eq!(3, ready["instances"].as_array().unwrap().len());

    let (code, text, _) = project.run(&["ps", "--output", "json"]);
    assert_eq!(0, code);
    let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut expected = vec![
        "address",
        "instance",
        "name",
        "pid",
        "registration",
        "registration_error",
        "restarts",
        "rss_bytes",
        "side_address",
        "state",
        "uptime_seconds",
    ];
    for row in &rows {
        let mut fields: Vec<_> = row
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        fields.sort_unstable();
        expected.sort_unstable();
        assert_eq!(expected, fields);
        assert_eq!("SERVING", row["state"]);
        assert_eq!(
            Value::Null,
            row["registration"],
            "they have no admin service"
        );
        assert!(alive(pid(row["pid"].as_u64().unwrap())));
        assert!(row["rss_bytes"].as_u64().unwrap() > 500_000, "{row}");
        assert_eq!(0, row["restarts"]);
    }
    let names: Vec<_> = rows
        .iter()
        .map(|row| row["instance"].as_str().unwrap())
        .collect();
    assert_eq!(vec!["back-1", "back-2", "front-1"], names);

    let (_, table, _) = project.run(&["ps"]);
    assert!(
        table.starts_with("NAME ") && table.contains("front-1"),
        "{table}"
    );

    let (code, _, _) = project.run(&["stop"]);
    assert_eq!((0, Some(0)), (code, up.code()));
    assert!(pids(&ready).into_iter().all(|pid| !alive(pid)));
    assert_eq!((0, "[]\n".to_owned()), {
        let (code, text, _) = project.run(&["ps", "--output", "json"]);
        (code, text)
    });
}

/// Goal: Ctrl-C drains callers before what they call, and ends with 0.
/// Method: interrupt; the order of state changes and of the services' own words.
#[test]
fn an_interrupt_drains_callers_first() {
    let project = Project::new("replicas = 2", "");
    let mut up = project.up(&[]);
    let ready = up.ready();
    up.signal(Signal::INT);
    let events = up.rest();

    let at = |instance: &str, state: &str| {
        let position = events
            .iter()
            .position(|event| is_state(event, instance, state));
        position.unwrap_or_else(|| panic!("{instance} {state} in {events:#?}"))
    };
    for caller in ["front-1", "front-2"] {
        assert!(at(caller, "DRAINING") < at(caller, "EXITED"));
        assert!(at(caller, "EXITED") < at("back-1", "DRAINING"));
    }
    let told = events
        .iter()
        .filter(|event| event["line"] == "echo was told to end");
    assert_eq!(3, told.count(), "all were asked, none was killed");
    assert_eq!(Some(0), up.code());
    assert!(pids(&ready).into_iter().all(|pid| !alive(pid)));
}

/// Goal: a second Ctrl-C ends at once with 130, and leaves nobody.
/// Method: a service that ignores SIGTERM; interrupt twice.
#[test]
fn a_second_interrupt_ends_everything_at_once() {
    let project = Project::new("env = { ECHO_STUBBORN = '1' }", "");
    let mut up = project.up(&[]);
    let ready = up.ready();
    up.signal(Signal::INT);
    up.until_state("front-1", "DRAINING");
    assert!(
        pids(&ready).into_iter().all(alive),
        "front does not end, back is not told yet"
    );

    up.signal(Signal::INT);
    assert_eq!(Some(130), up.code());
    assert!(pids(&ready).into_iter().all(|pid| !alive(pid)));
}

/// Goal: no child outlives `gantry`, however it ends.
/// Method: kill -9, with a child that ignores SIGTERM; and `up` can run again at once.
#[test]
fn killing_gantry_leaves_no_child() {
    let project = Project::new("env = { ECHO_STUBBORN = '1' }", "replicas = 2");
    let mut up = project.up(&[]);
    let pids = pids(&up.ready());
    up.signal(Signal::KILL);
    up.child.wait().unwrap();
    eventually(Duration::from_secs(5), "no child is left", || {
        !pids.iter().any(|pid| alive(*pid))
    });

    let again = project.up(&[]);
    again.ready();
}

/// Goal: Ctrl-C in a terminal is for `gantry` alone, which drains in order; and nothing a service
/// starts is missed when it is killed.
/// Method: a terminal signals a process group; each child leads one of its own.
#[test]
fn each_child_leads_a_group_of_its_own() {
    let project = Project::new("", "replicas = 2");
    let up = project.up(&[]);
    for pid in pids(&up.ready()) {
        assert_eq!(pid, getpgid(Some(pid)).unwrap());
    }
}

/// Goal: a crashed instance is started again at its address, and is counted.
/// Method: kill one; the others are left alone.
#[test]
fn a_crashed_instance_is_started_again() {
    let project = Project::new("", "");
    let up = project.up(&[]);
    up.ready();
    let (before, other) = (project.ps("back-1"), project.ps("front-1"));
    kill_process(pid(before["pid"].as_u64().unwrap()), Signal::KILL).unwrap();
    let ended = up.until_state("back-1", "EXITED");
    assert!(
        ended["ended"].as_str().unwrap().contains("signal 9"),
        "{ended}"
    );
    up.until_state("back-1", "SERVING");

    let after = project.ps("back-1");
    assert_eq!(1, after["restarts"]);
    assert_ne!(before["pid"], after["pid"]);
    assert_eq!(before["address"], after["address"]);
    assert_eq!(before["side_address"], after["side_address"]);
    assert_eq!(other["pid"], project.ps("front-1")["pid"]);
}

/// Goal: one state folder has one `up`; the second is refused by name, and harms nothing.
/// Method: a second one; the first still serves.
#[test]
fn a_second_up_is_refused_by_name() {
    let project = Project::new("", "");
    let up = project.up(&[]);
    up.ready();
    let (code, _, text) = project.run(&["up"]);
    assert_eq!(1, code);
    let holder = format!("process {}", up.child.id());
    assert!(
        text.contains(&holder) && text.contains("gantry stop"),
        "{text}"
    );
    assert_eq!("SERVING", project.ps("front-1")["state"]);
}

/// Goal: a service that refuses its configuration ends `up` with 2 and the service's own words.
/// Method: refuse at start; for people, as they read it.
#[test]
fn a_refused_configuration_is_told_in_its_own_words() {
    let project = Project::new("", "env = { ECHO_REFUSE = '1' }");
    let (code, out, error) = project.run(&["up", "--port-base", "0"]);
    assert_eq!(2, code, "{out}{error}");
    assert!(out.contains("echo.refuse: nobody may be echoed"), "{out}");
    assert!(
        error.contains("back-1 refused its configuration"),
        "{error}"
    );

    let (code, out, _) = project.run(&["doctor"]);
    assert_eq!(1, code);
    assert!(
        out.contains("fail configuration of back: echo.refuse"),
        "{out}"
    );
    assert!(out.contains("ok   configuration of front"), "{out}");
}

/// Goal: seeds reach their service at every start, and a bad one is told without harm.
/// Method: one good seed, one with an unknown field.
#[test]
fn seeds_are_planted_once_everything_serves() {
    let project = Project::new("", "");
    let seeds = "[[seeds]]\nservice = 'back'\nmethod = 'echo.v1.EchoService/Gather'\nfile = 'good.json'\n\
                 [[seeds]]\nservice = 'back'\nmethod = 'echo.v1.EchoService/Gather'\nfile = 'bad.json'\n";
    let file = project.path().join("gantry.toml");
    let text = fs::read_to_string(&file).unwrap() + seeds;
    fs::write(&file, text).unwrap();
    fs::write(
        project.path().join("good.json"),
        r#"[{"text": "a"}, {"text": "b"}]"#,
    )
    .unwrap();
    fs::write(
        project.path().join("bad.json"),
        r#"[{"text": "a"}, {"txt": "b"}]"#,
    )
    .unwrap();

    let up = project.up(&[]);
    let mut notes = Vec::new();
    up.until(|event| {
        if event["type"] == "note" {
            notes.push(event["text"].as_str().unwrap().to_owned());
        }
        event["type"] == "ready"
    });
    assert_eq!("seeded back with 2 from good.json", notes[0]);
    assert!(
        notes[1].contains("bad.json") && notes[1].contains("txt"),
        "{notes:?}"
    );
}

/// Goal: data survives a restart of everything, and `--reset` clears it.
/// Method: a file in the data folder over three runs.
#[test]
fn data_survives_until_reset() {
    let project = Project::new("", "");
    let data: PathBuf = project.path().join(".gantry/data/kept");
    for (arguments, survives) in [(&[][..], true), (&["--reset"], false)] {
        fs::create_dir_all(data.parent().unwrap()).unwrap();
        fs::write(&data, "").unwrap();
        let mut up = project.up(arguments);
        up.ready();
        project.run(&["stop"]);
        assert_eq!(Some(0), up.code());
        assert_eq!(survives, data.exists());
    }
}

//! `gantry scale` and `gantry restart` on a running `gantry up`, as people and scripts use them.

#![allow(clippy::unwrap_used, reason = "a helper that fails, fails its test")]

use std::{fs, path::PathBuf, process::Stdio, time::Duration};

use rustix::process::{Signal, kill_process};
use serde_json::Value;

#[path = "support/project.rs"]
mod project;

use project::{Project, Up, alive, eventually, is_state, pid};

/// What `gantry ps` says of all instances.
fn rows(project: &Project) -> Vec<Value> {
    let (code, text, _) = project.run(&["ps", "--output", "json"]);
    assert_eq!(0, code);
    serde_json::from_str(&text).unwrap()
}

fn names(rows: &[Value]) -> Vec<&str> {
    let names = rows.iter().map(|row| row["instance"].as_str().unwrap());
    names.collect()
}

/// A running `up` whose `back` is sick while a file exists, and refuses to start while another does.
struct Fragile {
    project: Project,
    up: Up,
    sick: PathBuf,
    refuse: PathBuf,
    _folder: tempfile::TempDir,
}

impl Fragile {
    fn ready() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [sick, refuse] = ["sick", "refuse"].map(|name| folder.path().join(name));
        let env = format!(
            "env = {{ ECHO_SICK_FILE = '{}', ECHO_REFUSE_FILE = '{}' }}",
            sick.display(),
            refuse.display()
        );
        let project = Project::new("", &env);
        let up = project.up(&[]);
        up.ready();
        Self {
            project,
            up,
            sick,
            refuse,
            _folder: folder,
        }
    }
}

/// Goal: `scale` waits until new ones serve, drains the youngest, and shows what runs after it.
/// Method: one to three and back to two; its output, its steps, `ps`, and the drained one's words.
#[test]
fn scale_starts_more_and_drains_the_youngest() {
    let project = Project::new("", "");
    let mut up = project.up(&[]);
    up.ready();
    let (code, out, steps) = project.run(&["scale", "front=3", "--output", "json"]);
    assert_eq!(0, code, "{steps}");
    let after: Vec<Value> = serde_json::from_str(&out).unwrap();
    assert_eq!(
        vec!["back-1", "front-1", "front-2", "front-3"],
        names(&after)
    );
    assert!(after.iter().all(|row| row["state"] == "SERVING"), "{out}");
    let own = |rows: &[Value], key: &str| -> Vec<Value> {
        rows.iter().map(|row| row[key].clone()).collect()
    };
    assert_eq!(own(&after, "pid"), own(&rows(&project), "pid"));
    for step in ["front-2 starts", "front-3 serves"] {
        assert!(steps.lines().any(|line| line == step), "{steps}");
    }
    let echo = ["call", "front-3", "echo.v1.EchoService/Echo"];
    assert_eq!(0, project.run(&echo).0, "it can be called by name");

    let (code, table, steps) = project.run(&["scale", "front=2"]);
    assert_eq!(0, code, "{steps}");
    assert!(
        table.contains("front-2") && !table.contains("front-3"),
        "{table}"
    );
    assert!(
        steps.contains("front-3 drains\nfront-3 is gone\n"),
        "{steps}"
    );
    let (_, log, _) = project.run(&["logs", "front-3"]);
    assert!(log.contains("was told to end"), "{log}");
    assert_eq!(0, project.run(&["wait", "front"]).0);

    assert_eq!(0, project.run(&["stop"]).0);
    let gone = up.rest();
    for instance in ["front-1", "front-2"] {
        let exited = |event: &Value| is_state(event, instance, "EXITED");
        assert!(gone.iter().any(exited), "{instance} drains with the others");
    }
    assert_eq!(Some(0), up.code());
}

/// Goal: `restart` has a successor serve before the old one drains; nothing else is touched.
/// Method: two instances; addresses, processes, and the order of what `up` tells.
#[test]
fn restart_has_the_successor_serve_first() {
    let project = Project::new("replicas = 2", "");
    let mut up = project.up(&[]);
    up.ready();
    let before = rows(&project);
    let (code, out, steps) = project.run(&["restart", "front", "--output", "json"]);
    assert_eq!(0, code, "{steps}");
    let after: Vec<Value> = serde_json::from_str(&out).unwrap();
    assert_eq!(vec!["back-1", "front-1", "front-3"], names(&after));
    assert_eq!(before[0]["pid"], after[0]["pid"], "back is left alone");
    for key in ["pid", "address", "side_address"] {
        let old: Vec<_> = before[1..].iter().map(|row| &row[key]).collect();
        assert!(
            after[1..].iter().all(|row| !old.contains(&&row[key])),
            "{key}"
        );
    }

    up.signal(Signal::INT);
    let events = up.rest();
    let at = |instance: &str, state: &str| {
        let position = events
            .iter()
            .position(|event| is_state(event, instance, state));
        position.unwrap_or_else(|| panic!("{instance} {state} in {events:#?}"))
    };
    assert!(at("front-3", "SERVING") < at("front-1", "DRAINING"));
    assert!(at("front-1", "EXITED") < at("front-2", "DRAINING"));
    assert_eq!(Some(0), up.code());
}

/// Goal: everything can be replaced at once, and named instances alone.
/// Method: `--all`, then one instance.
#[test]
fn restart_takes_all_or_one() {
    let project = Project::new("", "");
    let up = project.up(&[]);
    up.ready();
    let (code, _, steps) = project.run(&["restart", "--all"]);
    assert_eq!(0, code, "{steps}");
    let at = |step: &str| {
        steps
            .find(step)
            .unwrap_or_else(|| panic!("{step}: {steps}"))
    };
    assert!(at("back-1 is gone") < at("front-2 starts"), "callees first");
    assert_eq!(vec!["back-2", "front-2"], names(&rows(&project)));
    assert_eq!(0, project.run(&["restart", "front-2"]).0);
    assert_eq!(vec!["back-2", "front-1"], names(&rows(&project)));
}

/// Goal: a successor that refuses to start changes nothing, and its own words are shown.
/// Method: let new ones refuse; restart, and scale.
#[test]
fn a_successor_that_refuses_changes_nothing() {
    let fragile = Fragile::ready();
    let project = &fragile.project;
    let before = project.ps("back-1");
    fs::write(&fragile.refuse, "").unwrap();
    for arguments in [["restart", "back"], ["scale", "back=2"]] {
        let (code, out, text) = project.run(&arguments);
        assert_eq!(1, code, "{text}");
        assert_eq!("", out);
        assert!(text.contains("echo.refuse: nobody may be echoed"), "{text}");
        assert!(text.contains("back-2 exited with code 2"), "{text}");
        assert_eq!(vec!["back-1", "front-1"], names(&rows(project)));
        assert_eq!(before["pid"], project.ps("back-1")["pid"]);
    }
    fs::remove_file(&fragile.refuse).unwrap();
    assert_eq!(0, project.run(&["restart", "back"]).0);
}

/// Goal: an instance that does not serve is waited for as long as said, and removed.
/// Method: a sick service and little patience.
#[test]
fn patience_has_an_end() {
    let fragile = Fragile::ready();
    fs::write(&fragile.sick, "").unwrap();
    let (code, _, text) = fragile
        .project
        .run(&["restart", "back", "--timeout", "300ms"]);
    assert_eq!(1, code);
    assert!(
        text.contains("back-2 does not serve after 300ms; removed again, back-1 stays"),
        "{text}"
    );
    assert_eq!(vec!["back-1", "front-1"], names(&rows(&fragile.project)));
}

/// Goal: Ctrl-C ends the asking with 130 and leaves nothing half done: what was begun is finished.
/// Meanwhile nobody else changes the same service.
/// Method: hold a restart open with a sick successor; ask again, interrupt, and heal.
#[test]
fn an_interrupted_restart_is_finished() {
    let fragile = Fragile::ready();
    let project = &fragile.project;
    fs::write(&fragile.sick, "").unwrap();
    let mut asker = project.command(&["restart", "back"]);
    let asker = asker.stdout(Stdio::piped()).stderr(Stdio::piped());
    let asker = asker.spawn().unwrap();
    fragile.up.until_state("back-2", "STARTING");
    let (code, _, text) = project.run(&["scale", "back=3"]);
    assert_eq!(1, code);
    assert!(text.contains("back is being changed"), "{text}");

    kill_process(pid(u64::from(asker.id())), Signal::INT).unwrap();
    let output = asker.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(Some(130), output.status.code(), "{text}");
    assert!(text.contains("replacement at hand is finished"), "{text}");
    assert_eq!(
        2,
        rows(project)
            .iter()
            .filter(|row| row["name"] == "back")
            .count()
    );

    fs::remove_file(&fragile.sick).unwrap();
    eventually(project::PATIENCE, "back-2 alone", || {
        names(&rows(project)) == ["back-2", "front-1"]
    });
    assert_eq!(0, project.run(&["wait", "back"]).0);
}

/// Goal: the end of `up` ends an operation and its new instances with everything else.
/// Method: hold a scale open; stop `up`; the same with kill -9.
#[test]
fn the_end_of_up_ends_an_operation() {
    for kill in [false, true] {
        let mut fragile = Fragile::ready();
        fs::write(&fragile.sick, "").unwrap();
        let mut asker = fragile.project.command(&["scale", "back=3"]);
        let asker = asker.stderr(Stdio::piped()).spawn().unwrap();
        for instance in ["back-2", "back-3"] {
            fragile.up.until_state(instance, "STARTING");
        }
        let pids = rows(&fragile.project);
        let pids: Vec<_> = pids
            .iter()
            .map(|row| pid(row["pid"].as_u64().unwrap()))
            .collect();
        assert_eq!(4, pids.len());
        if kill {
            fragile.up.signal(Signal::KILL);
        } else {
            assert_eq!(0, fragile.project.run(&["stop"]).0);
            assert_eq!(Some(0), fragile.up.code());
        }
        let output = asker.wait_with_output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(Some(1), output.status.code(), "{text}");
        let words = if kill { "has ended" } else { "is ending" };
        assert!(text.contains(words), "{text}");
        eventually(Duration::from_secs(5), "no child is left", || {
            !pids.iter().any(|pid| alive(*pid))
        });
    }
}

/// Goal: what is wrong is refused with 2, and nothing to change is 1.
/// Method: each mistake once.
#[test]
fn mistakes_are_refused() {
    let project = Project::new("", "");
    let (code, _, text) = project.run(&["scale", "back=2"]);
    assert_eq!(1, code);
    assert!(text.contains("nothing runs here"), "{text}");
    let up = project.up(&[]);
    up.ready();
    let cases: [(&[&str], &str); 8] = [
        (&["scale"], "NAME=COUNT"),
        (&["scale", "back"], "name=count"),
        (&["scale", "back=0"], "from 1 to 32"),
        (&["scale", "back=x"], "from 1 to 32"),
        (&["scale", "bakc=2"], "did you mean \"back\""),
        (&["restart"], "NAME|INSTANCE"),
        (&["restart", "--all", "back"], "cannot be used with"),
        (&["restart", "back-7"], "no service or instance"),
    ];
    for (arguments, words) in cases {
        let (code, _, text) = project.run(arguments);
        assert_eq!(2, code, "{text}");
        assert!(text.contains(words), "{words} in {text}");
    }
    assert_eq!(vec!["back-1", "front-1"], names(&rows(&project)));
}

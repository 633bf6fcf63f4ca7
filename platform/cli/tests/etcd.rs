//! Which etcd commands and services use, as the environment says.

#![allow(clippy::unwrap_used, reason = "a helper that fails, fails its test")]

use std::{fs, net::TcpListener};

use serde_json::Value;

#[path = "support/project.rs"]
mod project;

use project::{Project, Up};

/// An etcd that is not there, so that whoever asks says where.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// What `up` said before it was ready, and what it said then.
fn come_up(up: &Up) -> (Vec<String>, Value) {
    let mut notes = Vec::new();
    let ready = up.until(|event| {
        if event["type"] == "note" {
            notes.push(event["text"].as_str().unwrap().to_owned());
        }
        event["type"] == "ready"
    });
    (notes, ready)
}

/// What the first instance was told of etcd by its environment.
fn told(ready: &Value) -> Vec<String> {
    let id = &ready["instances"][0]["pid"];
    let environment = fs::read_to_string(format!("/proc/{id}/environ")).unwrap();
    let variables = environment
        .split('\0')
        .filter(|it| it.starts_with("GANTRY_ETCD__"));
    let mut variables: Vec<_> = variables.map(str::to_owned).collect();
    variables.sort();
    variables
}

/// Goal: commands that look into an etcd take it from the environment, where no option names one.
/// Method: where each looks in vain, without an `up`; then by an option beside the variable.
#[test]
fn commands_take_their_etcd_from_the_environment() {
    let project = Project::new("", "");
    let (variable, option) = (nobody(), nobody());
    let method = "echo.v1.EchoService/Echo";
    for arguments in [
        &["ls"][..],
        &["call", "etcd:///back", method],
        &[
            "load",
            "etcd:///back",
            method,
            "{}",
            "--count",
            "1",
            "--concurrency",
            "1",
        ],
    ] {
        for (further, asked) in [(&[][..], &variable), (&["--etcd", &option], &option)] {
            let mut command = project.command(arguments);
            command
                .args(further)
                .env("GANTRY_ETCD__ENDPOINTS", &variable);
            let said = command.output().unwrap();
            let said = String::from_utf8_lossy(&said.stderr).into_owned();
            assert!(
                said.contains(asked.as_str()),
                "{arguments:?} {further:?}: {said}"
            );
        }
    }
}

/// Goal: the services of `up` use the etcd that the environment names, reached as it says, with
/// paths that hold in their folder; a password's file goes above a password.
/// Method: the environment of a service.
#[test]
fn up_takes_its_etcd_from_the_environment() {
    let project = Project::new("", "");
    let (url, folder) = (nobody(), project.path().canonicalize().unwrap());
    let environment = [
        ("GANTRY_ETCD__ENDPOINTS", url.as_str()),
        ("GANTRY_ETCD__USER", "gantry"),
        ("GANTRY_ETCD__PASSWORD", "hunter2"),
    ];
    fs::write(project.path().join("secret"), "from the file").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(project.path().join("secret"), mode).unwrap();
    let inherited = "GANTRY_ETCD__PASSWORD=hunter2".to_owned();
    let by_file = format!("GANTRY_ETCD__PASSWORD__FILE={}/secret", folder.display());
    for (arguments, password) in [
        (&[][..], inherited),
        (&["--etcd-password-file", "secret"], by_file),
    ] {
        let up = project.up_with(&environment, arguments);
        let (notes, ready) = come_up(&up);
        assert_eq!(url, ready["etcd"]);
        let expected = [
            format!("GANTRY_ETCD__ENDPOINTS={url}"),
            password,
            format!(
                "GANTRY_ETCD__SNAPSHOTS={}/.gantry/data/names",
                folder.display()
            ),
            "GANTRY_ETCD__USER=gantry".to_owned(),
        ];
        assert_eq!(expected, told(&ready)[..]);
        assert!(
            !notes.iter().any(|note| note.contains("ignored")),
            "{notes:?}"
        );
    }
}

/// Goal: with the local etcd, what the environment says of another one reaches no service, and that
/// is told.
/// Method: a user and a CA in the environment; the notes, and the environment of a service.
#[test]
fn the_local_etcd_is_told_completely() {
    let project = Project::new("", "");
    let environment = [
        ("GANTRY_ETCD__USER", "gantry"),
        ("GANTRY_ETCD__PASSWORD", "hunter2"),
        ("GANTRY_ETCD__TLS__CA", "ca.pem"),
    ];
    let up = project.up_with(&environment, &[]);
    let (notes, ready) = come_up(&up);
    let ignored = "GANTRY_ETCD__PASSWORD, GANTRY_ETCD__TLS__CA, GANTRY_ETCD__USER";
    assert!(
        notes.iter().any(|note| note.ends_with(ignored)),
        "{notes:?}"
    );
    let told = told(&ready);
    assert_eq!(2, told.len(), "{told:?}");
    let endpoints = format!("GANTRY_ETCD__ENDPOINTS={}", ready["etcd"].as_str().unwrap());
    assert!(told.contains(&endpoints), "{told:?}");
}

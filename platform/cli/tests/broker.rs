//! Which broker services use: the local one, or another in its place.

#![allow(clippy::unwrap_used, reason = "a helper that fails, fails its test")]

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

use gantry::{config::Live, journal::Journal, shutdown::Tasks};
use gantry_events::broker::{self, Config, Group};
use serde_json::Value;

#[path = "support/project.rs"]
mod project;

use project::{Project, Up};

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

/// What the first instance of `service` was told of a broker by its environment.
fn told(ready: &Value, service: &str) -> Vec<String> {
    let mut instances = ready["instances"].as_array().unwrap().iter();
    let instance = instances.find(|row| row["name"] == service).unwrap();
    let environment = fs::read_to_string(format!("/proc/{}/environ", instance["pid"])).unwrap();
    let variables = environment
        .split('\0')
        .filter(|it| it.starts_with("GANTRY_BROKER__"));
    let mut variables: Vec<_> = variables.map(str::to_owned).collect();
    variables.sort();
    variables
}

/// The groups of the broker at `url`, after one more is declared.
fn groups_with(url: &str, name: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let config = Live::fixed(Config::to(url.parse().unwrap()));
        let tasks = Tasks::new(Journal::new());
        let broker = broker::connect(&config, &tasks, &Journal::new());
        let group = Group {
            name: name.to_owned(),
            partitions: 1,
            topics: vec!["shop.Placed".to_owned()],
            queue_messages_max: None,
        };
        broker.declare(&group).await.unwrap();
        let groups = broker.groups().await.unwrap().unwrap();
        tasks.stop_within(Duration::from_secs(5)).await;
        groups
    })
}

/// Goal: services with a broker are told of the local one, which keeps what it has over runs; others
/// are told of none, as they would refuse it, and what the environment says of another reaches nobody.
/// Method: one service of each kind, and a user in the environment; the variables of both; a group
/// in each of two runs.
#[test]
fn services_with_a_broker_are_told_of_the_local_one() {
    let project = Project::new("broker = true", "");
    let environment = [("GANTRY_BROKER__USER", "me")];
    for (name, known) in [("a.one", &["a.one"][..]), ("b.two", &["a.one", "b.two"])] {
        let mut up = project.up_with(&environment, &[]);
        let (notes, ready) = come_up(&up);
        let url = ready["broker"].as_str().unwrap();
        assert_eq!(
            [format!("GANTRY_BROKER__URL={url}")],
            told(&ready, "front")[..]
        );
        assert_eq!(0, told(&ready, "back").len());
        let ignored = notes
            .iter()
            .any(|note| note.ends_with("ignored in the environment: GANTRY_BROKER__USER"));
        assert!(ignored, "{notes:?}");
        assert_eq!(known, groups_with(url, name));
        up.signal(rustix::process::Signal::TERM);
        assert_eq!(Some(0), up.code());
    }
    assert!(project.path().join(".gantry/data/broker").is_dir());
}

/// Goal: where no service has a broker, none runs.
/// Method: the same without `broker = true`.
#[test]
fn no_broker_runs_where_nobody_wants_one() {
    let project = Project::new("", "");
    let up = project.up(&[]);
    let (_, ready) = come_up(&up);
    assert_eq!(Value::Null, ready["broker"]);
    assert!(!project.path().join(".gantry/data/broker").exists());
}

/// Goal: another broker is used in place of the local one, by option or by variable.
/// Method: one that nobody listens at; the variables, and no data.
#[test]
fn another_broker_takes_its_place() {
    let project = Project::new("broker = true", "");
    let url = "grpc://127.0.0.1:9";
    let variable = format!("GANTRY_BROKER__URL={url}");
    for (environment, arguments) in [
        (&[][..], &["--broker", url][..]),
        (&[("GANTRY_BROKER__URL", url)], &[]),
    ] {
        let up = project.up_with(environment, arguments);
        let (_, ready) = come_up(&up);
        assert_eq!(url, ready["broker"]);
        assert_eq!([variable.as_str()], told(&ready, "front")[..]);
        assert_eq!(0, told(&ready, "back").len());
    }
    assert!(!project.path().join(".gantry/data/broker").exists());
}

/// Goal: what cannot be is one line: a port that is taken names its holder and the way out, and a URL
/// that is none is not repeated.
/// Method: hold the port two above the base; a URL with a password.
#[test]
fn what_cannot_be_is_one_line() {
    let project = Project::new("broker = true", "");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let base = (port - 2).to_string();
    // By another etcd, so that nothing else can be taken.
    let etcd = ["--etcd", "http://127.0.0.1:9"];
    let (code, _, text) = project.run(&[&["up", "--port-base", base.as_str()][..], &etcd].concat());
    assert_eq!(1, code, "{text}");
    let words = [
        format!("port {port} of the local broker is taken by "),
        format!("(process {})", std::process::id()),
        "--broker URL".to_owned(),
    ];
    for word in &words {
        assert!(text.contains(word), "{word:?} in {text}");
    }
    assert_eq!(1, text.trim_end().lines().count(), "{text}");

    for wrong in ["http://me:secret@broker", "grpc://broker/shop"] {
        let (code, _, text) = project.run(&["up", "--broker", wrong]);
        assert_eq!(2, code, "{text}");
        assert!(text.contains("--broker: "), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}

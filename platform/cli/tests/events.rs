//! Dead letters and passing events, by `gantry`, at a broker of its own.

#![allow(clippy::unwrap_used, reason = "a helper that fails, fails its test")]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use gantry::{config::Live, journal::Journal, shutdown::Tasks};
use gantry_events::{
    Message,
    broker::{self, Broker, Group, Settle},
    headers::{
        DEAD_ATTEMPTS, DEAD_ERROR, DEAD_REASON, ID, REDRIVEN, SOURCE, SUBJECT, TIME, TRACEPARENT,
    },
};
use gantry_local::broker as local;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    runtime::Runtime,
    time::{sleep, timeout},
};

#[path = "support/project.rs"]
mod project;

use project::{PATIENCE, Project, pid};

const GROUP: &str = "notifications.notices";
const TOPIC: &str = "shop.orders.v1.OrderPlaced";
const SECRET: &str = "order-of-somebody";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A broker with a group, whoever publishes and consumes there, and a folder to call `gantry` in.
struct Stand {
    project: Project,
    url: String,
    broker: Arc<dyn Broker>,
    tasks: Tasks,
    runtime: Runtime,
}

impl Stand {
    fn new() -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let tasks = Tasks::new(Journal::new());
        let (url, broker) = runtime.block_on(async {
            let opened = local::Broker::open(local::Config::default()).unwrap();
            let url = opened.handle().url();
            let run = opened.run(tasks.clone());
            tasks.spawn("local broker", async { drop(run.await) });
            let config = broker::Config::to(url.parse().unwrap());
            let broker = broker::connect(&Live::fixed(config), &tasks, &Journal::new());
            let group = Group {
                name: GROUP.to_owned(),
                partitions: 1,
                topics: vec![TOPIC.to_owned()],
                queue_messages_max: None,
            };
            broker.declare(&group).await.unwrap();
            (url, broker)
        });
        Self {
            project: Project::new("", ""),
            url,
            broker,
            tasks,
            runtime,
        }
    }

    /// Runs `gantry` to its end: exit code, standard output, standard error.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let at = ["--broker", &self.url];
        self.project.run(&[arguments, &at].concat())
    }

    /// What it prints for programs.
    fn json(&self, arguments: &[&str]) -> Value {
        let (code, out, err) = self.run(&[arguments, &["--output", "json"]].concat());
        assert_eq!(0, code, "{err}");
        serde_json::from_str(&out).unwrap()
    }

    fn publish(&self, id: &str) {
        let headers = [
            (ID, id),
            (SOURCE, "/orders"),
            (SUBJECT, SECRET),
            (TIME, "2026-01-02T03:04:05Z"),
            (TRACEPARENT, &format!("00-{TRACE}-00f067aa0ba902b7-01")),
        ];
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let message = Message {
            topic: TOPIC.to_owned(),
            key: SECRET.to_owned(),
            headers: headers.map(owned).into(),
            body: Bytes::from_static(SECRET.as_bytes()),
        };
        let published = self.within(self.broker.publish(message));
        published.unwrap();
    }

    /// Takes the next messages, and settles them so.
    fn settle(&self, count: usize, how: &Settle) -> Vec<Message> {
        let settle = async {
            let mut queue = self.broker.subscribe(GROUP, 0, 10).await.unwrap();
            let mut messages = Vec::new();
            for _ in 0..count {
                let delivery = queue.next().await.unwrap();
                let settled = queue.settler().settle(delivery.tag, how.clone()).await;
                settled.unwrap();
                messages.push(delivery.message);
            }
            messages
        };
        self.within(settle)
    }

    fn within<T>(&self, work: impl Future<Output = T>) -> T {
        let bounded = async { timeout(PATIENCE, work).await };
        self.runtime.block_on(bounded).unwrap()
    }

    /// Has events of these ids become dead letters.
    fn bury(&self, ids: &[&str]) {
        let why = [
            (DEAD_REASON, "rejected"),
            (DEAD_ERROR, "no such account"),
            (DEAD_ATTEMPTS, "5"),
        ];
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let why: BTreeMap<_, _> = why.map(owned).into();
        for id in ids {
            self.publish(id);
            self.settle(1, &Settle::Reject(why.clone()));
        }
    }

    fn letters(&self) -> Vec<Value> {
        let listed = self.json(&["dlq", "list", GROUP]);
        listed.as_array().unwrap().clone()
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        let stopped = async { self.tasks.stop_within(Duration::from_secs(5)).await };
        drop(self.runtime.block_on(stopped));
    }
}

/// Goal: people see who has dead letters and why, and neither keys nor bodies unless they ask.
/// Method: three letters of one group; all ways to look, and everything that is printed.
#[test]
fn dead_letters_are_seen_and_their_contents_are_not() {
    let stand = Stand::new();
    let (code, _, said) = stand.run(&["dlq", "list"]);
    assert_eq!((0, "nobody has dead letters\n"), (code, &*said));
    let (code, _, said) = stand.run(&["dlq", "list", "--topic", "x"]);
    assert_eq!(2, code, "{said}");
    assert!(said.contains("gantry dlq list GROUP"), "{said}");
    stand.bury(&["one", "two", "three"]);
    stand.publish("waits");
    let groups = stand.json(&["dlq", "list"]);
    let expected = json!([
        {"group": GROUP, "dead_letters": 3, "ready": 1, "delayed": 0, "unsettled": 0, "consumers": 0}
    ]);
    assert_eq!(expected, groups);
    let letters = stand.letters();
    let ids: Vec<_> = letters
        .iter()
        .map(|it| it["id"].as_str().unwrap())
        .collect();
    assert_eq!(["one", "two", "three"], ids[..]);
    assert_eq!(json!("rejected"), letters[0]["reason"]);
    assert_eq!(json!(5), letters[0]["attempts"]);
    let place = letters[1]["place"].to_string();
    for arguments in [
        &["dlq", "list", GROUP][..],
        &["dlq", "list", GROUP, "--output", "json"],
        &["dlq", "show", GROUP, &place],
        &["dlq", "show", GROUP, "two", "--output", "json"],
    ] {
        let (code, out, err) = stand.run(arguments);
        assert_eq!(0, code, "{arguments:?}: {err}");
        assert!(out.contains("two"), "{out}");
        assert!(!(out + &err).contains(SECRET), "{arguments:?}");
    }
    let shown = stand.json(&["dlq", "show", GROUP, &place, "--key"]);
    assert_eq!(json!(SECRET), shown["key"]);
    assert_eq!(json!("no such account"), shown["headers"][DEAD_ERROR]);
    // Nobody describes the type.
    let (code, out, err) = stand.run(&["dlq", "show", GROUP, &place, "--body"]);
    assert_eq!(0, code);
    assert!(err.contains("the body cannot be read"), "{err}");
    assert!(out.contains("17 bytes"), "{out}");
    let (code, _, said) = stand.run(&["dlq", "show", GROUP, "nobody"]);
    assert_eq!(2, code, "{said}");
    let (code, _, said) = stand.run(&["dlq", "list", "no.group"]);
    assert_eq!(2, code, "{said}");
    assert!(said.contains(&stand.url), "{said}");
}

/// Goal: letters go back as if they were new, those that are meant; one that comes back again and
/// again stays, and that is told.
/// Method: one by id, all, and one until it may not any more.
#[test]
fn letters_are_redriven() {
    let stand = Stand::new();
    stand.bury(&["one", "two", "three"]);
    let done = stand.json(&["dlq", "redrive", GROUP, "two"]);
    assert_eq!(
        json!({"done": 1, "gone": 0, "left": 0, "missing": []}),
        done
    );
    let message = stand.settle(1, &Settle::Ack).remove(0);
    assert_eq!("two", message.headers[ID]);
    assert_eq!("1", message.headers[REDRIVEN]);
    assert!(message.headers[TRACEPARENT].contains(TRACE), "{message:?}");
    assert!(!message.headers.contains_key(DEAD_REASON), "{message:?}");
    let (code, out, err) = stand.run(&["dlq", "redrive", GROUP, "--all", "--rate", "100"]);
    assert_eq!((0, "2 letters redriven\n"), (code, &*out), "{err}");
    let again = stand.settle(2, &Settle::Reject(BTreeMap::new()));
    assert_eq!("one", again[0].headers[ID]);
    let all = ["dlq", "redrive", GROUP, "--all", "--redriven-max", "1"];
    let (code, out, _) = stand.run(&all);
    assert_eq!(1, code);
    assert!(out.contains("2 letters left"), "{out}");
    let (code, _, said) = stand.run(&["dlq", "redrive", GROUP, "two", "three"]);
    assert_eq!(1, code);
    assert!(said.contains("no such dead letter: two"), "{said}");
    let ids: Vec<_> = stand.letters().iter().map(|it| it["id"].clone()).collect();
    assert_eq!(vec![json!("one")], ids);
}

/// Goal: a reason is one of the words there are; those of another one are not meant.
/// Method: a word that is misspelt, one that no letter has, and that of all of them.
#[test]
fn letters_are_meant_by_their_reason() {
    let stand = Stand::new();
    stand.bury(&["one", "two"]);
    let redrive = |reason: &str| stand.run(&["dlq", "redrive", GROUP, "--all", "--reason", reason]);
    let (code, _, said) = redrive("atempts_used_up");
    assert_eq!(2, code);
    assert!(said.contains("attempts_used_up"), "{said}");
    let (code, out, err) = redrive("attempts_used_up");
    assert_eq!((0, "0 letters redriven\n"), (code, &*out), "{err}");
    let (code, out, err) = redrive("rejected");
    assert_eq!((0, "2 letters redriven\n"), (code, &*out), "{err}");
}

/// Goal: a group goes with all that it has, once nobody consumes it and somebody says so.
/// Method: while it is consumed, without `--yes`, and with it; then again, and events of its topic.
#[test]
fn a_group_that_nobody_needs_is_removed() {
    let stand = Stand::new();
    stand.bury(&["one", "two"]);
    stand.publish("waits");
    let remove = ["events", "remove", GROUP];
    let sure = ["events", "remove", GROUP, "--yes", "--output", "json"];
    let consuming = stand.within(stand.broker.subscribe(GROUP, 0, 1));
    let (code, _, said) = stand.run(&sure);
    assert_eq!(2, code);
    assert!(said.contains("1 consumer: stop"), "{said}");
    drop(consuming.unwrap());
    // The end of a stream reaches the broker on its own way.
    let free = async {
        while stand.broker.fill(GROUP).await.unwrap().consumers > 0 {
            tokio::task::yield_now().await;
        }
    };
    stand.within(free);
    let (code, _, said) = stand.run(&remove);
    assert_eq!(2, code);
    assert!(
        said.contains("1 event and 2 dead letters; add --yes"),
        "{said}"
    );
    assert_eq!(2, stand.letters().len());
    let (code, out, err) = stand.run(&sure);
    assert_eq!(0, code, "{err}");
    let gone = json!({"group": GROUP, "ready": 1, "delayed": 0, "dead_letters": 2});
    assert_eq!(gone, serde_json::from_str::<Value>(&out).unwrap());
    let (code, _, said) = stand.run(&sure);
    assert_eq!(2, code);
    assert!(said.contains("is not there"), "{said}");
}

/// Goal: nothing is dropped that was not meant.
/// Method: without saying so, and then one of two.
#[test]
fn letters_are_dropped_by_who_says_so() {
    let stand = Stand::new();
    stand.bury(&["one", "two"]);
    let (code, _, said) = stand.run(&["dlq", "drop", GROUP, "--all"]);
    assert_eq!(2, code);
    assert!(said.contains("2 letters would be dropped"), "{said}");
    assert_eq!(2, stand.letters().len());
    let (code, _, said) = stand.run(&["dlq", "drop", GROUP, "--yes"]);
    assert_eq!(2, code, "{said}");
    let (code, out, _) = stand.run(&["dlq", "drop", GROUP, "one", "--yes"]);
    assert_eq!((0, "1 letter dropped\n"), (code, &*out));
    let left = stand.letters();
    assert_eq!(json!("two"), left[0]["id"]);
    assert_eq!(1, left.len());
}

/// Goal: events are seen as they pass, with their size and trace and without their contents; a
/// summary counts them; Ctrl-C ends either.
/// Method: look, publish until it is seen; then a summary, ended by a signal.
#[test]
fn events_are_seen_as_they_pass() {
    let stand = Stand::new();
    let tail = |arguments: &[&str]| {
        let arguments = [
            &["events", "tail", "--output", "json", "--broker", &stand.url][..],
            arguments,
        ];
        let mut command = stand.project.command(&arguments.concat());
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    // Whoever looks sees what comes from then on, so this goes on until it does.
    let publish_until = |ended: &mut dyn FnMut() -> bool| {
        for number in 0..3_000 {
            if ended() {
                return;
            }
            stand.publish(&format!("event-{number}"));
            stand.settle(1, &Settle::Ack);
            let pause = async { sleep(Duration::from_millis(20)).await };
            stand.runtime.block_on(pause);
        }
        panic!("it has not ended");
    };
    let mut looking = tail(&[TOPIC, "--count", "2"]);
    publish_until(&mut || looking.try_wait().unwrap().is_some());
    let out = looking.wait_with_output().unwrap();
    assert_eq!(Some(0), out.status.code());
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(!text.contains(SECRET), "{text}");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(2, lines.len());
    assert_eq!(json!(TOPIC), lines[0]["topic"]);
    assert_eq!(json!(17), lines[0]["bytes"]);
    assert_eq!(json!(TRACE), lines[0]["trace_id"]);
    assert_eq!(json!(0), lines[0]["missed"]);

    let mut looking = tail(&["--summary", "--every", "50ms"]);
    let mut out = BufReader::new(looking.stdout.take().unwrap());
    let (sender, counted) = std::sync::mpsc::sync_channel(1);
    let reading = std::thread::spawn(move || {
        let mut line = String::new();
        while out.read_line(&mut line).unwrap() > 0 {
            let summary: Value = serde_json::from_str(&line).unwrap();
            if summary["topics"][0]["topic"] == TOPIC {
                let _ = sender.try_send(());
            }
            line.clear();
        }
    });
    publish_until(&mut || counted.try_recv().is_ok());
    kill_process(pid(u64::from(looking.id())), Signal::INT).unwrap();
    assert_eq!(Some(0), looking.wait().unwrap().code());
    reading.join().unwrap();
}

/// Goal: commands know the broker of the running `up`, or the environment's; where there is none, they
/// say how one is named.
/// Method: look for dead letters without an `up`, with one whose services have no broker, with one of
/// whose services one has, and by a variable.
#[test]
fn the_broker_is_that_of_the_running_up() {
    let project = Project::new("", "");
    let (code, _, said) = project.run(&["dlq", "list"]);
    assert_eq!(1, code);
    assert!(said.contains("--broker URL"), "{said}");
    let up = project.up(&[]);
    up.ready();
    let (code, _, said) = project.run(&["events", "tail"]);
    assert_eq!(1, code);
    assert!(said.contains("broker = true"), "{said}");
    drop(up);

    let project = Project::new("broker = true", "");
    let up = project.up(&[]);
    up.ready();
    let (code, _, said) = project.run(&["dlq", "list"]);
    assert_eq!((0, "nobody has dead letters\n"), (code, &*said));
    let mut command = project.command(&["dlq", "list", GROUP]);
    let said = command.env("GANTRY_BROKER__URL", "grpc://127.0.0.1:9");
    let said = String::from_utf8(said.output().unwrap().stderr).unwrap();
    assert!(said.contains("grpc://127.0.0.1:9"), "{said}");
}

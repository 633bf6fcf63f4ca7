//! What `up` tells, apart from its children's lines: state changes, the table, lines to paste.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use gantry::shutdown::Tasks;
use serde_json::json;
use tokio::sync::watch;

use crate::{
    output::Format,
    project::{Example, Project},
    ps,
    supervisor::{Report, State, Status, Supervisor, World, logs::Logs},
};

/// Tells people or programs.
#[derive(Debug, Clone)]
pub(crate) struct Show {
    logs: Logs,
    format: Format,
    /// Where everybody registers.
    etcd: String,
    /// Where events go, where there are any.
    broker: Option<String>,
}

impl Show {
    pub(crate) fn new(logs: Logs, format: Format, etcd: &str, broker: Option<&str>) -> Self {
        Self {
            logs,
            format,
            etcd: etcd.to_owned(),
            broker: broker.map(str::to_owned),
        }
    }

    /// Tells what is being done.
    pub(crate) fn note(&self, text: &str) {
        match self.format {
            Format::Human => self.logs.say(text.to_owned()),
            Format::Json => self.json(&json!({ "type": "note", "text": text })),
        }
    }

    fn json(&self, value: &serde_json::Value) {
        self.logs.say(value.to_string());
    }

    /// Waits until everything told so far was shown.
    pub(crate) async fn flushed(&self) {
        self.logs.flushed().await;
    }

    /// Tells every change of an instance's state from now on, and who joins and is gone.
    pub(crate) fn changes<W: World>(&self, supervisor: &Supervisor<W>, tasks: &Tasks) {
        let all = self.clone().follow_all(supervisor.clone(), tasks.clone());
        tasks.spawn("instances", all);
    }

    async fn follow_all<W: World>(self, supervisor: Supervisor<W>, tasks: Tasks) {
        let stopping = tasks.stopping();
        let mut changes = supervisor.changes();
        let mut known: Option<BTreeMap<u64, String>> = None;
        loop {
            changes.borrow_and_update();
            let listed = supervisor.list();
            let now: BTreeSet<_> = listed.iter().map(|listed| listed.joined).collect();
            let first = known.is_none();
            let known = known.get_or_insert_default();
            known.retain(|joined, instance| {
                let stays = now.contains(joined);
                if !stays {
                    self.note(&format!("{instance} is gone"));
                }
                stays
            });
            for new in listed {
                if known.contains_key(&new.joined) {
                    continue;
                }
                if !first {
                    self.note(&format!("{} joins", new.instance));
                }
                known.insert(new.joined, new.instance.clone());
                let changes = self.clone().follow(new.instance, new.status);
                tasks.spawn("state changes", changes);
            }
            tokio::select! {
                // Never an error: we hold the supervisor.
                _ = changes.changed() => {}
                () = stopping.cancelled() => return,
            }
        }
    }

    async fn follow(self, instance: String, mut status: watch::Receiver<Status>) {
        let mut last = State::Exited;
        while status.changed().await.is_ok() {
            let now = status.borrow_and_update().clone();
            if now.state != last {
                last = now.state;
                self.state(&instance, &now);
            }
        }
    }

    fn state(&self, instance: &str, status: &Status) {
        let ended = match (status.state, &status.ended) {
            (State::Exited, Some(ended)) => Some(ended.to_string()),
            _ => None,
        };
        match self.format {
            Format::Json => self.json(&json!({
                "type": "state",
                "instance": instance,
                "state": status.state,
                "pid": status.pid,
                "ended": ended,
            })),
            // Starts and drains of everything are told as a whole.
            Format::Human => match (status.state, ended) {
                (State::Exited, Some(ended)) => self.note(&format!("{instance} {ended}")),
                (State::NotServing, _) => self.note(&format!("{instance} is NOT_SERVING")),
                (State::Serving, _) if status.restarts > 0 => {
                    self.note(&format!("{instance} serves again"));
                }
                _ => {}
            },
        }
    }

    /// Tells who keeps everybody waiting.
    pub(crate) fn slow(&self, reports: &[Report]) {
        let waiting = reports
            .iter()
            .filter(|report| report.row.state != State::Serving)
            .map(|report| format!("{} is {}", report.row.instance, report.row.state));
        let waiting: Vec<_> = waiting.collect();
        self.note(&format!("still waiting: {}", waiting.join(", ")));
    }

    /// Tells that everything serves, where, and what to try.
    pub(crate) fn ready(&self, project: &Project, reports: &[Report], took: Duration) {
        if self.format == Format::Json {
            let rows: Vec<_> = reports.iter().map(|report| &report.row).collect();
            self.json(&json!({
                "type": "ready",
                "seconds": took.as_secs_f64(),
                "etcd": self.etcd,
                "broker": self.broker,
                "instances": rows,
            }));
            return;
        }
        let mut text = format!("\n{}\n\n", ps::table(reports));
        let seconds = took.as_secs_f64();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "Everything serves after {seconds:.1} s, registered in etcd at {}{}. \
             Ctrl-C drains and ends it.",
            self.etcd,
            self.broker
                .as_ref()
                .map_or_else(String::new, |url| format!(", events by {url}")),
        );
        let gantry = spelled();
        if !project.examples.is_empty() {
            text.push_str("\nTry, in another terminal:\n");
        }
        for example in &project.examples {
            let serving = reports
                .iter()
                .find(|report| report.row.name == example.service);
            let address = serving.map_or("", |report| &report.row.address);
            text.push_str(&lines(example, &gantry, address));
        }
        self.logs.say(text);
    }
}

/// One call in the two spellings.
fn lines(example: &Example, gantry: &str, address: &str) -> String {
    let Example {
        service, method, ..
    } = example;
    let mut ours = format!("{gantry} call {service} {method}");
    let mut grpcurl = "grpcurl -plaintext".to_owned();
    // Writing to a string cannot fail.
    if let Some(request) = example.request.as_deref().map(quoted) {
        let _ = write!(ours, " {request}");
        let _ = write!(grpcurl, " -d {request}");
    }
    if let Some(header) = &example.header {
        let _ = write!(ours, " -H \"{header}\"");
        let _ = write!(grpcurl, " -H \"{header}\"");
    }
    let _ = write!(grpcurl, " {address} {method}");
    if let Some(field) = &example.keep {
        let pick = format!(r#"sed -n 's/.*"{field}": *"\([^"]*\)".*/\1/p'"#);
        let variable = field.to_uppercase();
        ours = format!("{variable}=$({ours} | {pick})");
        grpcurl = format!("{variable}=$({grpcurl} | {pick})");
    }
    let note = example.note.as_ref();
    let note = note.map_or_else(String::new, |note| format!("  # {note}\n"));
    format!("{note}  {ours}\n  {grpcurl}\n")
}

/// A shell word that means exactly `text`.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// How to call this program from here: by its path where it lies in a build folder.
fn spelled() -> String {
    let program = std::env::current_exe().ok();
    let spelled = program.as_deref().and_then(|program| {
        let target = program.parent()?.parent()?;
        target.join("CACHEDIR.TAG").exists().then_some(())?;
        let here = std::env::current_dir().ok()?;
        let near = program.strip_prefix(&here).unwrap_or(program);
        near.to_str().map(str::to_owned)
    });
    spelled.unwrap_or_else(|| "gantry".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what is printed can be pasted into a shell as it is.
    /// Method: a request with both kinds of quotes.
    #[test]
    fn lines_to_paste_survive_a_shell() {
        let example = Example {
            service: "accounts".to_owned(),
            method: "a.v1.Accounts/Register".to_owned(),
            request: Some(r#"{"name": "O'Hara"}"#.to_owned()),
            header: Some("authorization: Bearer $TOKEN".to_owned()),
            keep: None,
            note: Some("a new account".to_owned()),
        };
        let request = r#"'{"name": "O'\''Hara"}'"#;
        let header = "-H \"authorization: Bearer $TOKEN\"";
        assert_eq!(
            format!(
                "  # a new account\n  \
                 gantry call accounts a.v1.Accounts/Register {request} {header}\n  \
                 grpcurl -plaintext -d {request} {header} 127.0.0.1:5 a.v1.Accounts/Register\n"
            ),
            lines(&example, "gantry", "127.0.0.1:5")
        );
    }

    /// Goal: a kept field lands in a variable, whichever tool printed the answer.
    /// Method: have a shell run the line with `printf` in the tools' place.
    #[test]
    fn a_kept_field_lands_in_a_variable() {
        let example = Example {
            service: "x".to_owned(),
            method: "y".to_owned(),
            request: None,
            header: None,
            keep: Some("token".to_owned()),
            note: None,
        };
        let text = lines(&example, "gantry", "z");
        let ours = text.lines().next().unwrap().trim();
        for answer in [
            r#"{"token":"abc","x":1}"#,
            "{\n  \"token\": \"abc\",\n  \"x\": 1\n}",
        ] {
            let script =
                format!("gantry() {{ printf '%s\\n' '{answer}'; }}\n{ours}\nprintf %s \"$TOKEN\"");
            let output = std::process::Command::new("sh")
                .args(["-c", &script])
                .output();
            assert_eq!("abc", String::from_utf8(output.unwrap().stdout).unwrap());
        }
    }
}

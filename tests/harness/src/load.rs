//! A running `gantry load`, and what its report says.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;

use crate::{
    process::built,
    wait::{self, SOON},
};

/// Calls a second.
pub const RATE: u32 = 200;

/// How often a scenario is carried out at most, where the machine is too busy for its load.
const TRIES: usize = 4;

/// A running `gantry load`, open loop; killed when dropped.
#[derive(Debug)]
pub struct Load {
    child: Child,
    report: Option<thread::JoinHandle<String>>,
    /// When its first call was due, to a tenth of a second.
    begun: Instant,
    seconds: u64,
}

impl Load {
    /// Calls a method of `target` with a request for `seconds`, [`RATE`] times a second, and returns
    /// once the first second is over. `target` is as `gantry load` takes it, `etcd` where it looks
    /// names up.
    ///
    /// # Panics
    ///
    /// If it does not begin.
    #[must_use]
    pub fn start(target: &str, etcd: &str, call: [&str; 2], seconds: u64) -> Self {
        Self::start_at(RATE, target, etcd, call, seconds)
    }

    /// As [`Load::start`], `rate` times a second.
    ///
    /// # Panics
    ///
    /// If it does not begin.
    #[must_use]
    pub fn start_at(rate: u32, target: &str, etcd: &str, call: [&str; 2], seconds: u64) -> Self {
        let rate = rate.to_string();
        Self::start_with(&["--rate", &rate], target, etcd, call, seconds)
    }

    /// As [`Load::start`], with further arguments, [`RATE`] times a second where they do not say.
    ///
    /// # Panics
    ///
    /// If it does not begin.
    #[must_use]
    pub fn start_with(
        arguments: &[&str],
        target: &str,
        etcd: &str,
        [method, request]: [&str; 2],
        seconds: u64,
    ) -> Self {
        let mut all = vec![target, method, request, "--etcd", etcd];
        let rate = RATE.to_string();
        if !arguments.contains(&"--rate") {
            all.extend(["--rate", &rate]);
        }
        all.extend(["--deadline", "2s"]);
        all.extend(arguments);
        Self::start_as(&all, seconds)
    }

    /// As [`Load::start`], with nothing but `arguments`, as people write them.
    ///
    /// # Panics
    ///
    /// If it does not begin.
    #[must_use]
    pub fn start_as(arguments: &[&str], seconds: u64) -> Self {
        let mut child = Command::new(built("gantry"))
            .arg("load")
            .args(arguments)
            .args(["--duration", &format!("{seconds}s"), "--output", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start gantry load");
        let mut output = child.stdout.take().expect("standard output is piped");
        let report = thread::spawn(move || {
            let mut text = String::new();
            output.read_to_string(&mut text).expect("a report is text");
            text
        });
        let lines = BufReader::new(child.stderr.take().expect("standard error is piped"));
        let (sender, told) = mpsc::channel();
        // Read to its end, so that it never waits for us.
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                drop(sender.send(line));
            }
        });
        let first = told.recv_timeout(SOON).expect("a line of progress");
        let begun = Instant::now()
            .checked_sub(Duration::from_secs(1))
            .expect("a second ago there was time");
        assert!(!first.contains("error"), "{first}");
        Self {
            child,
            report: Some(report),
            begun,
            seconds,
        }
    }

    /// The second of the run it is now, as the report counts them.
    #[must_use]
    pub fn second(&self) -> u64 {
        self.begun.elapsed().as_secs()
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// If the run says nothing: the machine was too busy to send calls when they were due.
    ///
    /// # Panics
    ///
    /// If it does not end, or has no report.
    pub async fn finish(self) -> Result<Report, Void> {
        let (report, valid) = self.ended().await;
        valid.map(|()| report)
    }

    /// The same, for whoever counts calls and asks of a run that says nothing of times only whether it
    /// does.
    ///
    /// # Panics
    ///
    /// As [`Load::finish`].
    pub async fn ended(mut self) -> (Report, Result<(), Void>) {
        let bound = Duration::from_secs(self.seconds) + SOON;
        wait::until("the load to end", bound, async || {
            self.child.try_wait().expect("ask for a child")
        })
        .await;
        let text = self.report.take().expect("taken once").join();
        let text = text.expect("the reader does not panic");
        let report: Value = serde_json::from_str(&text).expect("a report in JSON");
        let void = report["void"] != false;
        let why = void.then(|| Void(report["void_reasons"].to_string()));
        (Report { report }, why.map_or(Ok(()), Err))
    }
}

/// Why a run says nothing.
#[derive(Debug)]
pub struct Void(pub(crate) String);

/// Carries a scenario out until its load was valid, a few times at most.
///
/// # Panics
///
/// If no run was.
pub async fn valid(scenario: impl AsyncFn() -> Result<(), Void>) {
    let mut why = Vec::new();
    for _ in 0..TRIES {
        match scenario().await {
            Ok(()) => return,
            Err(Void(reasons)) => why.push(reasons),
        }
    }
    panic!("no run was valid: {why:?}");
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    report: Value,
}

impl Report {
    /// Calls that did not end with OK, by the second in which they were due.
    ///
    /// # Panics
    ///
    /// If the report has another form than it promises.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<u64, u64> {
        let mut failures = BTreeMap::new();
        for second in self.seconds() {
            let by_code = second["status"].as_object().expect("calls by code");
            let failed = by_code.iter().filter(|(code, _)| *code != "OK");
            let failed: u64 = failed.map(|(_, count)| count.as_u64().unwrap_or(0)).sum();
            if failed > 0 {
                failures.insert(second["second"].as_u64().expect("a number"), failed);
            }
        }
        failures
    }

    /// Calls that ended.
    ///
    /// # Panics
    ///
    /// If the report has another form than it promises.
    #[must_use]
    pub fn calls(&self) -> u64 {
        let by_code = |second: &Value| {
            let by_code = second["status"].as_object().expect("calls by code");
            let counts = by_code.values().filter_map(Value::as_u64);
            counts.sum::<u64>()
        };
        self.seconds().iter().map(by_code).sum()
    }

    /// Calls that ended with `code`, as in `OK`.
    #[must_use]
    pub fn ended_with(&self, code: &str) -> u64 {
        self.report["status"][code].as_u64().unwrap_or(0)
    }

    /// How many calls of those that a scenario calls `name` ended with each code.
    ///
    /// # Panics
    ///
    /// If there are none.
    #[must_use]
    pub fn ended_of(&self, name: &str) -> BTreeMap<String, u64> {
        let methods = self.report["methods"].as_array().into_iter().flatten();
        let mut method = methods.filter(|it| it["name"] == name);
        let status = method.next().map(|it| it["status"].clone());
        serde_json::from_value(status.expect("one of that name")).expect("calls by code")
    }

    /// What 99 of 100 calls took at most, from when they were due.
    ///
    /// # Panics
    ///
    /// If the report has another form than it promises.
    #[must_use]
    pub fn p99(&self) -> Duration {
        let seconds = self.report["latency_seconds"]["p99"].as_f64();
        Duration::from_secs_f64(seconds.expect("a number"))
    }

    /// That no call failed.
    ///
    /// # Panics
    ///
    /// If one did.
    pub fn all_ok(&self) {
        let failures = self.failures();
        assert!(failures.is_empty(), "{failures:?}: {}", self.errors());
    }

    /// What went wrong, in words.
    #[must_use]
    pub fn errors(&self) -> &Value {
        &self.report["errors"]
    }

    /// The share of calls due from second `from` to before `to` that went to `address`.
    ///
    /// # Panics
    ///
    /// If there were none in that time.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn share(&self, address: SocketAddr, from: u64, to: u64) -> f64 {
        let mut mine = 0;
        let mut all = 0;
        for second in self.seconds() {
            let number = second["second"].as_u64().expect("a number");
            if (from..to).contains(&number) {
                let endpoints = second["endpoints"].as_object().expect("calls by endpoint");
                for (endpoint, count) in endpoints {
                    let count = count.as_u64().expect("a number");
                    all += count;
                    mine += if *endpoint == address.to_string() {
                        count
                    } else {
                        0
                    };
                }
            }
        }
        assert!(all > 0, "no call in seconds {from} to {to}");
        mine as f64 / all as f64
    }

    /// How many endpoints answered.
    #[must_use]
    pub fn endpoints(&self) -> usize {
        let endpoints = self.report["endpoints"].as_array();
        endpoints.map_or(0, |all| {
            all.iter().filter(|it| !it["address"].is_null()).count()
        })
    }

    fn seconds(&self) -> &[Value] {
        self.report["seconds"]
            .as_array()
            .expect("a series of seconds")
    }

    /// Writes the report into `folder` as `name`.json, for people.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    pub fn keep(&self, folder: &Path, name: &str) {
        std::fs::create_dir_all(folder).expect("a folder");
        let path = folder.join(format!("{name}.json"));
        std::fs::write(path, self.report.to_string()).expect("write a report");
    }
}

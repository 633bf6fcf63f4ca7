//! Programs of others on the local etcd: `etcdctl`, and one with Go's client.

use std::process::{Command, Stdio};

use gantry_harness::{
    etcd::ctl,
    tools,
    wait::{self, SOON},
};
use serde_json::Value;

use super::Local;

/// `etcdctl` on one server.
struct Ctl<'a>(&'a Local);

impl Ctl<'_> {
    /// What it prints, which must begin as expected.
    #[track_caller]
    fn says(&self, expected: &str, arguments: &[&str]) -> String {
        let output = ctl(&self.0.url, arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}{complaint}");
        assert!(said.starts_with(expected), "{arguments:?}: {said}");
        said
    }

    /// What it prints where it fails.
    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> String {
        let output = ctl(&self.0.url, arguments);
        assert!(!output.status.success(), "{arguments:?} did not fail");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["-w", "json"]].concat();
        let said = self.says("", &arguments);
        serde_json::from_str(&said).expect("JSON")
    }
}

/// Goal: `etcdctl` works on the local etcd.
/// Method: each of its commands that people use, and what it prints.
#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_works_on_the_local_etcd() {
    if tools::find("etcdctl").is_none() {
        return;
    }
    let local = Local::start();
    let ctl = Ctl(&local);

    ctl.says("OK", &["put", "a", "1"]);
    ctl.says("OK\na\n1\n", &["put", "a", "2", "--prev-kv"]);
    ctl.says("OK", &["put", "ab", "3"]);
    ctl.says("a\n2\nab\n3\n", &["get", "--prefix", "a"]);
    ctl.says("a\n1\n", &["get", "a", "--rev", "2"]);
    ctl.says(
        "ab\n\na\n\n",
        &[
            "get",
            "--prefix",
            "a",
            "--keys-only",
            "--order",
            "DESCEND",
            "--sort-by",
            "KEY",
        ],
    );
    ctl.says("1\nab\n3\n", &["del", "ab", "--prev-kv"]);

    let lease = ctl.json(&["lease", "grant", "100"])["ID"].as_i64();
    let lease = format!("{:x}", lease.expect("an id"));
    ctl.says("OK", &["put", "l", "1", "--lease", &lease]);
    let kept = ctl.says("lease ", &["lease", "keep-alive", "--once", &lease]);
    assert!(kept.contains("keepalived with TTL(100)"), "{kept}");
    let told = ctl.says("lease ", &["lease", "timetolive", "--keys", &lease]);
    assert!(told.contains("attached keys([l])"), "{told}");
    let listed = ctl.says("found 1 leases", &["lease", "list"]);
    assert!(listed.contains(&lease), "{listed}");
    ctl.says("lease ", &["lease", "revoke", &lease]);
    ctl.says("", &["get", "l"]);

    let revision = ctl.json(&["get", "a"])["header"]["revision"].as_i64();
    let revision = revision.expect("a revision").to_string();
    ctl.says("compacted revision ", &["compact", &revision]);
    let gone = ctl.fails(&["get", "a", "--rev", "2"]);
    assert!(
        gone.contains("required revision has been compacted"),
        "{gone}"
    );

    let members = ctl.json(&["member", "list"]);
    assert_eq!(
        local.url, members["members"][0]["clientURLs"][0],
        "{members}"
    );
    let status = ctl.json(&["endpoint", "status"]);
    assert_eq!("3.6.14", status[0]["Status"]["version"], "{status}");
    ctl.says("", &["endpoint", "health"]);
    ctl.says("", &["alarm", "list"]);
}

/// Goal: `etcdctl txn` and `etcdctl watch` work, which read and write while they run.
/// Method: a transaction from its standard input; a watch of history, until it told all of it.
#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_transacts_and_watches() {
    let Some(binary) = tools::find("etcdctl") else {
        return;
    };
    let local = Local::start();
    let ctl = Ctl(&local);
    ctl.says("OK", &["put", "a", "1"]);

    // The shell gives it a transaction as people do.
    let run = |script: &str| {
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .env("ETCDCTL_API", "3")
            .env("ETCDCTL_ENDPOINTS", &local.url)
            .env("CTL", &binary);
        String::from_utf8_lossy(&tools::output(&mut command).stdout).into_owned()
    };
    let transact = r#"printf 'value("a") = "1"\n\nput a 2\nget a\n\nput a 3\n\n' | "$CTL" txn"#;
    assert_eq!("SUCCESS\n\nOK\n\na\n2\n", run(transact));
    assert_eq!("FAILURE\n\nOK\n", run(transact));
    ctl.says("1\n", &["del", "a"]);

    let told = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut watch = Command::new(&binary)
        .args(["--endpoints", &local.url, "watch", "a", "--rev", "2"])
        .stdin(Stdio::null())
        .stdout(told.reopen().expect("the file again"))
        .spawn()
        .expect("start etcdctl");
    let expected = "PUT\na\n1\nPUT\na\n2\nPUT\na\n3\nDELETE\na\n\n";
    wait::until("all events", SOON, async || {
        let told = std::fs::read_to_string(told.path()).ok()?;
        (told == expected).then_some(())
    })
    .await;
    watch.kill().expect("end etcdctl");
    watch.wait().expect("etcdctl ends");
}

/// Goal: a Go program with etcd's own client watches, transacts, elects and locks.
/// Method: `client/main.go`, which ends at the first surprise, on the local etcd.
#[tokio::test(flavor = "multi_thread")]
async fn a_go_client_works_on_the_local_etcd() {
    let Some(binary) = tools::find("etcd-client") else {
        return;
    };
    let local = Local::start();
    let told = tools::run(Command::new(binary).arg(&local.url));
    assert_eq!("watch\ntransaction\nlease\nmutex\nelection\nstm\n", told);
}

//! The local etcd as a process: killed, frozen, started on data that cannot be used.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

use std::{fs, path::Path, process::Command, time::Duration};

use etcd_client::{
    Client, GetOptions, GetResponse, LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions, Txn,
    TxnOp,
};
use futures_util::future::join_all;
use gantry_harness::{tools, wait};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::sleep;

#[path = "support/process.rs"]
mod support;

use support::{Process, refused};

/// A local etcd in a process of its own, on a port of its own.
struct Local(Process);

impl Local {
    fn start(folder: &Path) -> Self {
        Self(Process::start("etcd", "127.0.0.1:0", folder))
    }

    async fn client(&self) -> Client {
        let url = format!("http://{}", self.0.address);
        Client::connect([url], None).await.unwrap()
    }
}

/// Puts a key; its revision, once it is acknowledged.
async fn put(client: &mut Client, key: &str, value: &str, lease: i64) -> Option<i64> {
    let options = PutOptions::new().with_lease(lease);
    let answer = client.put(key, value, Some(options)).await.ok()?;
    Some(answer.header()?.revision())
}

/// Everything there is.
async fn all(client: &mut Client) -> GetResponse {
    let options = GetOptions::new().with_all_keys();
    client.get("", Some(options)).await.unwrap()
}

/// Goal: what was acknowledged survives `kill -9`, and what is there is whole.
/// Method: eight writers until the process is killed under them, three times over; what each had
/// acknowledged last must be there, at no lower revision than it was told.
#[tokio::test]
async fn acknowledged_writes_survive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let mut local = Local::start(folder.path());
        let client = local.client().await;
        let writers = (0..8).map(|writer| {
            let mut client = client.clone();
            async move {
                let key = format!("{round}-{writer}");
                let mut acknowledged = (0, 0);
                for value in 1.. {
                    match put(&mut client, &key, &value.to_string(), 0).await {
                        Some(revision) => acknowledged = (value, revision),
                        None => break,
                    }
                }
                (key, acknowledged)
            }
        });
        let killing = async {
            let mut client = client.clone();
            wait::until("some writes", wait::SOON, async || {
                (all(&mut client).await.header()?.revision() > 200 * (round + 1)).then_some(())
            })
            .await;
            local.0.kill();
        };
        let (told, ()) = tokio::join!(join_all(writers), killing);

        let local = Local::start(folder.path());
        let there = all(&mut local.client().await).await;
        for (key, (value, revision)) in told {
            let found = there.kvs().iter().find(|it| it.key() == key.as_bytes());
            let found = found.unwrap_or_else(|| panic!("{key} is gone"));
            let kept: i32 = found.value_str().unwrap().parse().unwrap();
            // One more may have been written and not answered.
            assert!(
                (value..=value + 1).contains(&kept),
                "{key}: {kept}, not {value}"
            );
            assert!(found.mod_revision() >= revision);
            assert_eq!(i64::from(kept), found.version());
        }
    }
}

/// Goal: a kill in the midst of a write takes whole transactions, never a part of one.
/// Method: writers that put the same value to many keys at once, large enough that most of the
/// time is spent writing; the process is killed at any moment of that, many times over.
#[tokio::test]
async fn a_transaction_survives_a_kill_whole_or_not_at_all() {
    const KEYS: usize = 32;
    let folder = tempfile::tempdir().unwrap();
    for round in 0..8 {
        let mut local = Local::start(folder.path());
        let client = local.client().await;
        let writers = (0..4).map(|writer| {
            let mut client = client.clone();
            async move {
                for turn in 0.. {
                    let value = format!("{round}-{turn}-").repeat(1_000);
                    let puts = (0..KEYS)
                        .map(|key| TxnOp::put(format!("{writer}/{key}"), value.as_str(), None));
                    let transaction = Txn::new().and_then(puts.collect::<Vec<_>>());
                    if client.txn(transaction).await.is_err() {
                        break;
                    }
                }
            }
        });
        let moment = Duration::from_millis(fastrand::u64(50..150));
        let killing = async {
            sleep(moment).await;
            local.0.kill();
        };
        tokio::join!(join_all(writers), killing);

        let local = Local::start(folder.path());
        let there = all(&mut local.client().await).await;
        for writer in 0..4 {
            let prefix = format!("{writer}/");
            let mut kvs = there.kvs().iter();
            let mut ours = kvs
                .by_ref()
                .filter(|it| it.key().starts_with(prefix.as_bytes()));
            let Some(first) = ours.next() else { continue };
            let alike = ours.filter(|it| {
                (it.value(), it.mod_revision()) == (first.value(), first.mod_revision())
            });
            assert_eq!(
                KEYS,
                alike.count() + 1,
                "killed after {moment:?}: {prefix} is torn"
            );
        }
    }
}

/// Goal: leases live through a pause of the process, and begin anew when it is started again.
/// Method: freeze it for longer than a lease has; the key is still there, and goes when its time
/// has passed while the process ran. Then kill it: the other lease has all of its time again.
#[tokio::test]
async fn leases_outlive_a_pause_and_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut local = Local::start(folder.path());
    let mut client = local.client().await;
    for (id, ttl) in [(1, 2), (2, 60)] {
        let options = LeaseGrantOptions::new().with_id(id);
        let granted = client.lease_grant(ttl, Some(options)).await.unwrap();
        assert_eq!(ttl, granted.ttl());
        put(&mut client, &format!("{id}"), "", id).await.unwrap();
    }

    local.0.signal(Signal::STOP);
    sleep(Duration::from_secs(4)).await;
    local.0.signal(Signal::CONT);

    assert_eq!(
        2,
        all(&mut client).await.count(),
        "a lease ended in a pause"
    );
    wait::until("the short lease to end", wait::SOON, async || {
        (all(&mut client).await.count() == 1).then_some(())
    })
    .await;

    local.0.kill();
    let local = Local::start(folder.path());
    let options = LeaseTimeToLiveOptions::new().with_keys();
    let mut client = local.client().await;
    let left = client.lease_time_to_live(2, Some(options)).await.unwrap();
    assert!(left.ttl() > 56, "{left:?}");
    assert_eq!([b"2".to_vec()], left.keys());
}

/// Goal: data that cannot be used is one line that names the file.
/// Method: a second process on the same folder; a file of garbage; a folder that is a file.
#[test]
fn unusable_data_is_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let local = Local::start(folder.path());
    let file = folder.path().join("etcd.redb");
    let file = file.display();
    let told = format!("{file} is in use by another process");
    refused("etcd", folder.path(), &told);
    drop(local);

    let garbage: TempDir = tempfile::tempdir().unwrap();
    let path = garbage.path().join("etcd.redb");
    fs::write(&path, vec![7; 100_000]).unwrap();
    let told = format!("{} is damaged; remove it to begin anew", path.display());
    refused("etcd", garbage.path(), &told);

    let told = format!("open {}", path.join("etcd.redb").display());
    refused("etcd", &path, &told);
}

/// Goal: an `etcdctl` of an older release works on it.
/// Method: each of its commands that a developer would use, and what it prints.
#[test]
fn an_old_etcdctl_works_on_it() {
    let Some(etcdctl) = tools::find("etcdctl-3.4") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let local = Local::start(folder.path());
    let run = |arguments: &str| {
        let mut command = Command::new(&etcdctl);
        command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &local.0.address])
            .args(arguments.split(' '));
        tools::run(&mut command)
    };
    for (arguments, printed) in [
        ("put a 1", "OK\n"),
        ("put a 2 --prev-kv", "OK\na\n1\n"),
        ("get a", "a\n2\n"),
        ("get a --rev=2", "a\n1\n"),
        ("lease grant 60 -w fields", "\"TTL\" : 60\n"),
        ("put b 1", "OK\n"),
        ("get --keys-only --from-key a", "a\n\nb\n\n"),
        ("compaction 3", "compacted revision 3\n"),
        ("del a --prev-kv", "1\na\n2\n"),
        ("endpoint health -w fields", "\"Health\" : true\n"),
        ("endpoint status -w fields", "\"Version\" : \"3.6."),
        ("member list -w fields", "\"Name\" : \"gantry\"\n"),
        ("lock l echo locked", "locked\n"),
    ] {
        let text = run(arguments);
        assert!(text.contains(printed), "{arguments}: {text}");
    }
}

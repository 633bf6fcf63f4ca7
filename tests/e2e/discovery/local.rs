//! The same faults where the registry is the local etcd inside `gantry up`.

use std::time::Duration;

use gantry_harness::{
    etcd::{self, keys},
    load::{Load, Void, valid},
    process::pid,
    system::System,
    tools,
    wait::{self, SOON},
};
use rustix::process::{Signal, kill_process};

use super::rolling::LIST;

/// How long one has after its key or lease was taken.
const SOON_AGAIN: Duration = Duration::from_secs(3);

fn address(system: &System, instance: &str) -> String {
    let rows = system.instances();
    let row = rows.into_iter().find(|row| row.instance == instance);
    row.expect("the instance").address
}

async fn registered(url: &str, key: &str, there: bool, bound: Duration) {
    let what = format!("{key} to be there: {there}");
    wait::until(&what, bound, async || {
        let keys = keys(url, "catalog/")?;
        (keys.iter().any(|it| it == key) == there).then_some(())
    })
    .await;
}

/// Goal: what is deleted, revoked or compacted in the local etcd is made again, and one that stands
/// still or dies is left, as with a real one.
/// Method: two catalogs under load; each fault on one of them.
#[tokio::test(flavor = "multi_thread")]
async fn faults_are_survived() {
    valid(faults_are_survived_once).await;
}

async fn faults_are_survived_once() -> Result<(), Void> {
    if tools::find("etcdctl").is_none() {
        return Ok(());
    }
    let system = System::up(&["--replicas", "catalog=2"]);
    let url = system.etcd();
    let address = address(&system, "catalog-1");
    let key = format!("catalog/{address}");
    registered(&url, &key, true, SOON).await;
    let load = Load::start("etcd:///catalog", &url, LIST, 30);

    assert!(etcd::ctl(&url, &["del", &key]).status.success());
    registered(&url, &key, true, SOON_AGAIN).await;
    let output = etcd::ctl(&url, &["get", &key, "-w", "json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let lease = value["kvs"][0]["lease"].as_u64().expect("a lease");
    let revoked = etcd::ctl(&url, &["lease", "revoke", &format!("{lease:x}")]);
    assert!(revoked.status.success(), "{revoked:?}");
    registered(&url, &key, true, SOON_AGAIN).await;
    let revision = value["header"]["revision"].to_string();
    assert!(etcd::ctl(&url, &["compact", &revision]).status.success());

    let row = system
        .instances()
        .into_iter()
        .find(|row| row.instance == "catalog-1");
    let id = row.and_then(|row| row.pid).expect("it runs");
    let frozen = load.second();
    kill_process(pid(id), Signal::STOP).expect("stop a child");
    registered(&url, &key, false, Duration::from_secs(12)).await;
    kill_process(pid(id), Signal::CONT).expect("let a child go on");
    registered(&url, &key, true, SOON_AGAIN).await;
    let killed = load.second();
    kill_process(pid(id), Signal::KILL).expect("kill a child");
    wait::until("it to serve again", SOON, async || {
        let rows = system.instances();
        let row = rows.into_iter().find(|row| row.instance == "catalog-1")?;
        (row.state == "SERVING" && row.restarts == 1).then_some(())
    })
    .await;
    let report = load.finish().await?;
    let failures = report.failures();
    let near = |at: u64| at..=at + 2;
    let unexpected = failures
        .keys()
        .filter(|it| !near(frozen).contains(it) && !near(killed).contains(it));
    let unexpected: Vec<_> = unexpected.collect();
    assert!(unexpected.is_empty(), "{failures:?}: {}", report.errors());
    Ok(())
}

/// Goal: `gantry` itself standing still, and with it the registry, costs no call.
/// Method: freeze it under load for longer than the leases.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_gantry_costs_no_call() {
    valid(a_frozen_gantry_costs_no_call_once).await;
}

async fn a_frozen_gantry_costs_no_call_once() -> Result<(), Void> {
    if tools::find("etcdctl").is_none() {
        return Ok(());
    }
    let stands = if tools::timed() { 30 } else { 13 };
    let system = System::up(&["--replicas", "catalog=2"]);
    let url = system.etcd();
    let load = Load::start("etcd:///catalog", &url, LIST, stands + 8);
    system.signal(Signal::STOP);
    tokio::time::sleep(Duration::from_secs(stands)).await;
    system.signal(Signal::CONT);
    wait::until("everybody to be registered", SOON, async || {
        let keys = keys(&url, "")?;
        let there = |name: &str| keys.iter().filter(|key| key.starts_with(name)).count();
        (there("catalog/") == 2 && there("orders/") == 2 && there("accounts/") == 1).then_some(())
    })
    .await;
    load.finish().await?.all_ok();
    Ok(())
}

/// Goal: what stands in the local etcd survives the death of `gantry up`.
/// Method: put a key, kill -9, start it again in the same folder.
#[tokio::test(flavor = "multi_thread")]
async fn the_registry_survives_gantry() {
    if tools::find("etcdctl").is_none() {
        return;
    }
    let mut system = System::up(&[]);
    let put = etcd::ctl(&system.etcd(), &["put", "mine", "kept"]);
    assert!(put.status.success(), "{put:?}");
    system.signal(Signal::KILL);
    system.ended(SOON).await;
    let system = system.again(&[]);
    let got = etcd::ctl(&system.etcd(), &["get", "mine", "--print-value-only"]);
    assert_eq!("kept\n", String::from_utf8_lossy(&got.stdout));
}

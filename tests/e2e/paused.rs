//! Instances of the shop that are taken out of the registry, and what takes their place.

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use gantry_harness::{
    process::pid,
    system::{Instance, System},
    wait::{self, SOON},
};

fn row(system: &System, instance: &str) -> Option<Instance> {
    let mut rows = system.instances().into_iter();
    rows.find(|row| row.instance == instance)
}

/// Where catalogs are registered.
fn listed(system: &System) -> Vec<String> {
    let output = system.gantry(&["ls", "catalog", "--output", "json"]);
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    let addresses = rows.iter().filter_map(|row| row["address"].as_str());
    addresses.map(str::to_owned).collect()
}

fn done(system: &System, arguments: &[&str]) {
    let output = system.gantry(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// Waits until the catalog of that name serves and its registration is in that state; it may not
/// be registered meanwhile.
async fn paused(system: &System, instance: &str, restarts: u64) -> Instance {
    wait::until("it to serve, paused", SOON, async || {
        assert!(listed(system).is_empty(), "registered meanwhile");
        let row = row(system, instance)?;
        let there = row.state == "SERVING" && row.restarts == restarts;
        (there && row.registration.as_deref() == Some("PAUSED")).then_some(row)
    })
    .await
}

/// Goal: `gantry ps` shows a pause, and no process that takes the place of a paused one registers,
/// until it is resumed; a pause is refused for who does not register.
/// Method: pause, kill -9, restart and resume the catalog, with the registry looked into all the
/// while; the table and the rows.
#[tokio::test]
async fn a_pause_outlives_the_process() {
    let system = System::up(&[]);
    let before = row(&system, "catalog-1").expect("it runs");
    assert_eq!(Some("REGISTERED"), before.registration.as_deref());
    assert_eq!(vec![before.address.clone()], listed(&system));

    done(&system, &["pause", "catalog"]);
    assert!(listed(&system).is_empty());
    let shown = row(&system, "catalog-1").and_then(|row| row.registration);
    assert_eq!(Some("PAUSED"), shown.as_deref());
    let table = system.gantry(&["ps"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(
        table.contains("REGISTRATION") && table.contains("PAUSED"),
        "{table}"
    );

    let id = before.pid.expect("it runs");
    kill_process(pid(id), Signal::KILL).expect("kill a child");
    paused(&system, "catalog-1", 1).await;
    done(&system, &["restart", "catalog"]);
    let after = paused(&system, "catalog-2", 0).await;

    done(&system, &["resume", "catalog"]);
    assert_eq!(vec![after.address.clone()], listed(&system));
    done(&system, &["restart", "catalog"]);
    let last = row(&system, "catalog-1").expect("it runs");
    assert_eq!(Some("REGISTERED"), last.registration.as_deref());
    assert_eq!(vec![last.address], listed(&system));
}

/// Goal: who does not register cannot be paused, and is not remembered as paused.
/// Method: a shop that registers nowhere; pause, then the row of the next process.
#[tokio::test]
async fn who_does_not_register_is_not_paused() {
    let nowhere = [("GANTRY_REGISTRATION__ENABLED", "false")];
    let system = System::up_with(&nowhere, &[]);
    let refused = system.gantry(&["pause", "catalog"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(Some(1), refused.status.code(), "{said}");
    assert!(said.contains("catalog-1"), "{said}");
    let id = row(&system, "catalog-1").and_then(|row| row.pid);
    kill_process(pid(id.expect("it runs")), Signal::KILL).expect("kill a child");
    // Between two processes a paused one would be shown as such.
    let next = wait::until("the next one", SOON, async || {
        let row = row(&system, "catalog-1")?;
        assert_eq!(None, row.registration);
        (row.state == "SERVING" && row.restarts == 1).then_some(row)
    });
    next.await;
}

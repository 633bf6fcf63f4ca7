//! The shop under `gantry up`.

use std::time::Duration;

use rustix::process::Signal;

use gantry_harness::{
    process::pid,
    system::{Instance, System, is_alive},
    tools,
    wait::{self, SOON},
};

/// Goal: everything serves, and every row of `gantry ps` says so with the promised fields.
/// Method: start the shop, read the rows, wait for each service by name.
#[tokio::test]
async fn everything_serves() {
    let system = System::up(&["--replicas", "catalog=2"]);
    // Elsewhere the harness has a bound of its own.
    assert!(
        !tools::timed() || system.seconds_to_serving <= 10.0,
        "served after {} s",
        system.seconds_to_serving
    );
    let instances = system.instances();
    let names: Vec<_> = instances.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(
        vec![
            "accounts",
            "bank",
            "catalog",
            "catalog",
            "gateway",
            "notifications",
            "orders",
            "orders",
            "payments"
        ],
        names
    );
    for instance in &instances {
        assert_eq!("SERVING", instance.state, "{instance:?}");
        assert!(
            instance.rss_bytes.is_some_and(|bytes| bytes > 0),
            "{instance:?}"
        );
        assert!(instance.pid.is_some_and(is_alive), "{instance:?}");
    }
    for name in [
        "accounts",
        "bank",
        "catalog",
        "gateway",
        "notifications",
        "orders",
        "payments",
    ] {
        assert_eq!(
            Some(0),
            system
                .gantry(&["wait", name, "--timeout", "10s"])
                .status
                .code()
        );
    }
    for target in ["catalog", "gateway"] {
        let called = system.gantry(&[
            "call",
            target,
            "shop.catalog.v1.CatalogService/ListProducts",
            r#"{"pageSize": 1}"#,
        ]);
        assert!(called.status.success(), "{called:?}");
        let answer: serde_json::Value = serde_json::from_slice(&called.stdout).expect("JSON");
        assert_eq!(
            Some(1),
            answer["products"].as_array().map(Vec::len),
            "seeded: {answer}"
        );
    }
}

/// Goal: children never outlive `gantry up`, not even its death by kill -9.
/// Method: kill it, then look for every child.
#[tokio::test]
async fn children_die_with_it() {
    let mut system = System::up(&[]);
    let children: Vec<_> = system
        .instances()
        .into_iter()
        .filter_map(|it| it.pid)
        .collect();
    assert!(children.len() >= 3, "{children:?}");
    system.signal(Signal::KILL);
    system.ended(SOON).await;
    wait::until("the children to end", Duration::from_secs(5), async || {
        children.iter().all(|child| !is_alive(*child)).then_some(())
    })
    .await;
}

/// Goal: a crashed instance comes back under the same address, and `ps` counts it.
/// Method: kill one, wait for it.
#[tokio::test]
async fn a_crashed_instance_comes_back() {
    let system = System::up(&[]);
    let victim = |system: &System| {
        let rows = system.instances();
        rows.into_iter()
            .find(|it| it.instance == "catalog-1")
            .expect("catalog-1")
    };
    let before = victim(&system);
    let id = before.pid.expect("it runs");
    rustix::process::kill_process(pid(id), Signal::KILL).expect("kill a child");
    let after = wait::until("the instance to serve again", SOON, async || {
        let row = victim(&system);
        (row.state == "SERVING" && row.restarts == 1).then_some(row)
    })
    .await;
    assert_ne!(before.pid, after.pid);
    assert_eq!(before.address, after.address);
}

/// Goal: every process of the shop can be replaced, and its services be more and fewer, while it
/// goes on as before.
/// Method: restart all, scale up and down; the rows that `gantry` prints, and a call after each.
#[tokio::test]
async fn everything_can_be_replaced_and_scaled() {
    let system = System::up(&[]);
    let change = |arguments: &[&str]| {
        let output = system.gantry(&[arguments, &["--output", "json"]].concat());
        assert!(output.status.success(), "{output:?}");
        let rows: Vec<Instance> = serde_json::from_slice(&output.stdout).expect("rows of ps");
        for name in ["accounts", "catalog", "orders", "payments"] {
            // Those whose callees moved have been started again.
            let waited = system.gantry(&["wait", name, "--timeout", "10s"]);
            assert!(waited.status.success(), "{waited:?}");
        }
        let called = system.gantry(&[
            "call",
            "catalog",
            "shop.catalog.v1.CatalogService/ListProducts",
            r#"{"pageSize": 1}"#,
        ]);
        assert!(called.status.success(), "{called:?}");
        rows
    };
    let count = |rows: &[Instance], name| rows.iter().filter(|it| it.name == name).count();

    let before = system.instances();
    let after = change(&["restart", "--all"]);
    assert_eq!(before.len(), after.len());
    for old in &before {
        // What gantry listens at for its instances it hands on.
        let stays = ["bank", "gateway"].contains(&old.name.as_str());
        assert_eq!(stays, after.iter().any(|new| new.address == old.address));
        assert!(!old.pid.is_some_and(is_alive), "{old:?} is gone");
    }
    let more = change(&["scale", "orders=3", "catalog=2"]);
    assert_eq!((3, 2), (count(&more, "orders"), count(&more, "catalog")));
    let fewer = change(&["scale", "orders=1"]);
    assert_eq!((1, 2), (count(&fewer, "orders"), count(&fewer, "catalog")));
}

/// Goal: a second `up` in the same folder is refused; `stop` drains the first, which exits with 0.
/// Method: start both, then stop. The first is told of a socket of its own, which is no service's.
#[tokio::test]
async fn there_is_one_at_a_time_and_it_drains() {
    let mut system = System::up_with(&[("LISTEN_FDS", "1")], &[]);
    let children: Vec<_> = system
        .instances()
        .into_iter()
        .filter_map(|it| it.pid)
        .collect();
    let second = system.gantry(&["up"]);
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        said.contains(&system.id().to_string()) || said.contains(".gantry"),
        "{said}"
    );

    let stopped = system.gantry(&["stop"]);
    assert!(stopped.status.success(), "{stopped:?}");
    let status = system.ended(SOON).await;
    assert_eq!(Some(0), status.code());
    assert!(
        children.iter().all(|child| !is_alive(*child)),
        "all are drained"
    );
}

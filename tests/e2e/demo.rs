//! `gantry up --demo`.

use std::{fs, time::Duration};

use gantry_harness::{
    system::{System, is_alive},
    wait::{self, SOON},
};
use shop_proto::catalog::v1::{GetProductRequest, catalog_service_client::CatalogServiceClient};

use crate::{
    shop::SKU,
    support::{channel, move_stock},
};

/// How the demo says how it goes, so often that a test need not wait.
const SETTINGS: &str = "[shopping]\ncalls_per_second = 20.0\nsummary_interval = \"200ms\"\n";

/// The newest count of `name` in what the demo prints.
fn counted(system: &System, name: &str) -> Option<u64> {
    let said = system.gantry(&["logs", "shopper"]).stdout;
    let said = String::from_utf8(said).expect("a log is text");
    let line = said.lines().rfind(|line| line.contains("people shop"))?;
    let (_, rest) = line.split_once(&format!("{name}="))?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

async fn until_more(system: &System, name: &str, than: u64) -> u64 {
    wait::until(&format!("more {name}"), SOON, async || {
        counted(system, name).filter(|count| *count > than)
    })
    .await
}

/// Goal: the demo has orders confirmed and cancelled through the gateway, goes on after the gateway
/// was replaced, keeps its secrets and ends with the rest.
/// Method: its own counts, made frequent while it runs; a restart of the gateway; what it printed.
#[tokio::test]
async fn the_demo_shops() {
    let mut system = System::up(&["--demo"]);
    let row = |system: &System| {
        let rows = system.instances().into_iter();
        rows.filter(|row| row.name == "shopper").collect::<Vec<_>>()
    };
    let rows = row(&system);
    assert_eq!(1, rows.len(), "{rows:?}");
    let id = rows[0].pid.expect("it runs");
    fs::write(system.folder().join("config/shopper.toml"), SETTINGS).expect("write a file");

    for name in ["placed", "confirmed", "cancelled"] {
        until_more(&system, name, 0).await;
    }
    let restarted = system.gantry(&["restart", "gateway"]);
    assert!(restarted.status.success(), "{restarted:?}");
    let before = counted(&system, "confirmed").expect("a count");
    until_more(&system, "confirmed", before).await;
    assert_eq!(Some(0), counted(&system, "failed"), "a customer noticed");
    assert_eq!(Some(id), row(&system)[0].pid, "it is the same process");

    let said = system.gantry(&["logs", "shopper"]).stdout;
    let said = String::from_utf8(said).expect("a log is text");
    for secret in ["Bearer", "eyJ", "password"] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
    let stopped = system.gantry(&["stop"]);
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!(Some(0), system.ended(SOON).await.code());
    assert!(!is_alive(id));
}

/// Goal: what runs short is delivered again, by one of the demo who was made one of the staff.
/// Method: take nearly all of a product away; its units, without anybody else who delivers.
#[tokio::test]
async fn the_demo_fills_the_shelves() {
    let system = System::up(&["--demo"]);
    fs::write(system.folder().join("config/shopper.toml"), SETTINGS).expect("write a file");
    until_more(&system, "placed", 0).await;
    let catalog = system.address("catalog").parse().expect("an address");
    let mut catalog = CatalogServiceClient::new(channel(&[catalog]));
    let mut available = async || {
        let sku = SKU.to_owned();
        let product = catalog.get_product(GetProductRequest { sku }).await;
        let product = product.expect("a product").into_inner().product;
        product.expect("a product").available
    };
    // Some may be bought meanwhile.
    let left = available().await - 10;
    move_stock(&system, SKU, -i32::try_from(left).expect("a few")).await;
    wait::until("a delivery", SOON, async || {
        (available().await > 15).then_some(())
    })
    .await;
    assert_eq!(Some(0), counted(&system, "failed"), "nobody was refused");
}

/// Goal: while the gateway is away, the demo asks now and then, and goes on when it is back.
/// Method: end the only gateway with `kill -9` until the demo says so; its counts.
#[tokio::test]
async fn the_demo_outlives_the_gateway() {
    let system = System::up(&["--demo"]);
    fs::write(system.folder().join("config/shopper.toml"), SETTINGS).expect("write a file");
    until_more(&system, "confirmed", 0).await;
    // Each end makes the pause before the next start longer.
    wait::until("the demo to notice", Duration::from_mins(1), async || {
        let rows = system.instances().into_iter();
        let mut gateways = rows.filter(|row| row.name == "gateway");
        if let Some(id) = gateways.find_map(|row| row.pid) {
            let id = gantry_harness::process::pid(id);
            // It may be gone by now.
            let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL);
        }
        counted(&system, "failed").filter(|failed| *failed > 0)
    })
    .await;
    let waited = system.gantry(&["wait", "gateway", "--timeout", "60s"]);
    assert!(waited.status.success(), "{waited:?}");
    let before = counted(&system, "placed").expect("a count");
    until_more(&system, "placed", before).await;
}

/// Goal: nobody shops who was not asked to.
/// Method: `up` without the option; its rows, and those of its processes.
#[tokio::test]
async fn without_the_option_nobody_shops() {
    let system = System::up(&[]);
    let rows = system.instances();
    assert!(rows.iter().all(|row| row.name != "shopper"), "{rows:?}");
    let up = system.id();
    let children = fs::read_to_string(format!("/proc/{up}/task/{up}/children"));
    for child in children.expect("children of a process").split_whitespace() {
        let name = fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
        assert_ne!("shopper", name.trim());
    }
}

//! Rolling restarts of everything, under load from clients that discover.

use std::time::Duration;

use gantry_harness::{
    load::{Load, RATE, Void, valid},
    system::System,
    tools,
};
use tokio::task::JoinSet;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::channel;

/// A call of the catalog without effect.
pub(super) const LIST: [&str; 2] = [
    "shop.catalog.v1.CatalogService/ListProducts",
    r#"{"pageSize": 1}"#,
];
const KEYS: [&str; 2] = ["shop.accounts.v1.AccountsService/GetJwks", "{}"];
const HEALTH: [&str; 2] = ["grpc.health.v1.Health/Check", "{}"];

/// Longest a restart of everything may take: each exit has its bound of 28 s, and none needs it.
const ROUND_MAX: Duration = Duration::from_mins(1);

/// Goal: not one call fails while everything is replaced again and again, also with streams open.
/// Method: two replicas of each service; a load on each; an open health watch at every instance;
/// restart all, round by round.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_call() {
    valid(a_rolling_restart_fails_no_call_once).await;
}

async fn a_rolling_restart_fails_no_call_once() -> Result<(), Void> {
    let rounds = if tools::timed() { 10 } else { 1 };
    let system = System::up(&["--replicas", "catalog=2", "--replicas", "accounts=2"]);
    let url = system.etcd();
    let seconds = if tools::timed() { 150 } else { 20 };
    let load = |rate, name: &str, call| {
        Load::start_at(rate, &format!("etcd:///{name}"), &url, call, seconds)
    };
    // The machine starts processes all the while, so the full rate is for one of the three.
    let loads = [
        load(RATE, "catalog", LIST),
        load(RATE / 4, "accounts", KEYS),
        load(RATE / 4, "orders", HEALTH),
    ];
    for round in 0..rounds {
        let mut watches = JoinSet::new();
        for row in system.instances() {
            let address = row.address.parse().expect("an address");
            let mut client = HealthClient::new(channel(&[address]));
            let opened = client.watch(HealthCheckRequest::default()).await;
            let mut watch = opened.expect("a health watch").into_inner();
            watches.spawn(async move { while let Ok(Some(_)) = watch.message().await {} });
        }
        let started = tokio::time::Instant::now();
        let restarted = system.gantry(&["restart", "--all"]);
        assert!(restarted.status.success(), "round {round}: {restarted:?}");
        assert!(started.elapsed() < ROUND_MAX, "{:?}", started.elapsed());
        let over = async { while watches.join_next().await.is_some() {} };
        let ended = tokio::time::timeout(ROUND_MAX, over).await;
        ended.expect("every watch ended with its process");
    }
    for load in loads {
        let report = load.finish().await?;
        report.all_ok();
        assert!(report.endpoints() > 2, "{} endpoints", report.endpoints());
    }
    Ok(())
}

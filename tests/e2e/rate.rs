//! How many calls a client may make through the gateway, while they are made.

use std::process::Command;

use gantry_harness::{
    process::{self, Service},
    tools,
    wait::{self, SOON},
};
use gantry_probe::{WaitRequest, probe_service_client::ProbeServiceClient};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::{discovery::fleet::Fleet, support::channel};

const FILE: &str = "config/own.toml";

fn settings(calls: u32) -> String {
    format!("[policies.\"probe.v1.ProbeService/Wait\"]\nrate = [\"{calls}/1h per address\"]\n")
}

/// What is said to a client at `address`, calling by Connect.
fn from(address: &str, gateway: &Service) -> String {
    let url = format!("http://{}/probe.v1.ProbeService/Wait", gateway.address);
    let mut command = Command::new("curl");
    let status = ["-sS", "-o", "/dev/null", "-w", "%{http_code}"];
    let command = command.args(status).args(["--interface", address]);
    tools::run(command.args(["--json", "{}", &url]))
        .trim()
        .to_owned()
}

/// Goal: a quota that changes in the file is in force within a second, under load; one client that has
/// spent it is refused and another is not.
/// Method: callers that never stop from one address of loopback; lower the quota, call from another
/// address, raise it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_quota_changes_under_load() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    if Command::new("curl").arg("--version").output().is_err() {
        tools::skip("curl is not installed");
        return;
    }
    let gateway = process::service("gateway")
        .set("ETCD__ENDPOINTS", fleet.etcd.url())
        .file(FILE, &settings(10_000_000))
        .argument("--config")
        .argument(FILE)
        .start()
        .await;
    let stop = CancellationToken::new();
    let mut callers = JoinSet::new();
    let client = ProbeServiceClient::new(channel(&[gateway.address]));
    for _ in 0..4 {
        let (mut client, stop) = (client.clone(), stop.clone());
        callers.spawn(async move {
            while !stop.is_cancelled() {
                let called = client.wait(WaitRequest::default()).await;
                if let Err(status) = called {
                    assert_eq!(Code::ResourceExhausted, status.code(), "{status:?}");
                }
            }
        });
    }
    let refused = || async {
        let mut client = client.clone();
        client.wait(WaitRequest::default()).await.is_err()
    };
    assert!(!refused().await);
    for (calls, is_refused) in [(50, true), (10_000_000, false), (60, true)] {
        let path = gateway.folder().join(FILE);
        std::fs::write(path, settings(calls)).expect("write the configuration");
        let begun = Instant::now();
        wait::until("the other quota", SOON, async || {
            (refused().await == is_refused).then_some(())
        })
        .await;
        let took = begun.elapsed();
        assert!(!tools::timed() || took.as_secs_f64() < 1.0, "{took:?}");
    }
    // Those who load, and this client, are 127.0.0.1.
    assert_eq!("429", from("127.0.0.1", &gateway));
    assert_eq!("200", from("127.0.0.2", &gateway));
    stop.cancel();
    callers.join_all().await;
    let metrics = gateway.get("/metrics").await.expect("metrics");
    let counted = metrics
        .lines()
        .find(|it| it.starts_with("gantry_limit_refused_total{reason=\"quota\"}"));
    let counted = counted.and_then(|it| it.rsplit(' ').next()?.parse::<f64>().ok());
    assert!(counted.is_some_and(|it| it > 0.0), "{metrics}");
}

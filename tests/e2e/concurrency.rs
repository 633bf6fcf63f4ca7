//! Many calls at once, and where they go.

use std::{collections::BTreeMap, time::Duration};

use gantry_harness::tools;
use gantry_probe::{WaitRequest, probe_service_client::ProbeServiceClient};
use tokio::{task::JoinSet, time::Instant};

use crate::support::{channel, hop, probe};

fn waiting(millis: u32, hops: u32) -> WaitRequest {
    WaitRequest {
        millis,
        hops,
        spawned: false,
    }
}

/// Goal: two thousand calls at once through one process, none fails.
/// Method: each waits at a second process behind the first, so all are open together in both.
#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_calls_at_once_all_succeed() {
    let second = probe().start().await;
    let first = hop(&second).start().await;
    let client = ProbeServiceClient::new(channel(&[first.address]));
    let mut calls = JoinSet::new();
    for _ in 0..2_000 {
        let mut client = client.clone();
        calls.spawn(async move { client.wait(waiting(200, 1)).await });
    }
    while let Some(answer) = calls.join_next().await {
        answer.expect("no panic").expect("no call fails");
    }
}

/// Goal: a peer's limit on streams opens more connections instead of a queue.
/// Method: 600 calls of 500 ms against 100 streams a connection; in one queue they would take 3 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_streams_is_met_with_more_connections() {
    let service = probe().start().await;
    let client = ProbeServiceClient::new(channel(&[service.address]));
    let started = Instant::now();
    let mut calls = JoinSet::new();
    for _ in 0..600 {
        let mut client = client.clone();
        calls.spawn(async move { client.wait(waiting(500, 0)).await });
    }
    while let Some(answer) = calls.join_next().await {
        answer.expect("no panic").expect("no call fails");
    }
    // One round of 500 ms and what it takes to open the connections; elsewhere only that nothing
    // queued for a round after the third.
    let bound = if tools::timed() { 1_100 } else { 2_500 };
    assert!(
        started.elapsed() < Duration::from_millis(bound),
        "{:?}",
        started.elapsed()
    );
    let metrics = service.get("/metrics").await.expect("metrics");
    let open = metrics
        .lines()
        .find_map(|line| line.strip_prefix("gantry_server_connections_open "))
        .and_then(|count| count.parse::<f64>().ok());
    assert!(
        open.is_some_and(|count| count >= 6.0),
        "connections open: {open:?}"
    );
}

/// Goal: a slow replica gets little of the load.
/// Method: three replicas, one ten times slower; count who answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_replica_gets_few_calls() {
    let mut replicas = Vec::new();
    for (name, slowness) in [("fast-1", 1), ("fast-2", 1), ("slow", 10)] {
        replicas.push(
            probe()
                .set("INSTANCE", name)
                .set("SLOWNESS", slowness)
                .start()
                .await,
        );
    }
    let addresses: Vec<_> = replicas.iter().map(|replica| replica.address).collect();
    let client = ProbeServiceClient::new(channel(&addresses));
    let mut callers = JoinSet::new();
    for _ in 0..12 {
        let mut client = client.clone();
        callers.spawn(async move {
            let mut answered = Vec::new();
            for _ in 0..100 {
                let answer = client.wait(waiting(50, 0)).await.expect("no call fails");
                answered.push(answer.into_inner().instance);
            }
            answered
        });
    }
    let mut counts = BTreeMap::<String, usize>::new();
    while let Some(answered) = callers.join_next().await {
        for instance in answered.expect("no panic") {
            *counts.entry(instance).or_default() += 1;
        }
    }
    let slow = counts.get("slow").copied().unwrap_or(0);
    assert!(
        slow < 100,
        "the slow replica got {slow} of 2000 calls: {counts:?}"
    );
    assert!(
        counts["fast-1"] > 300 && counts["fast-2"] > 300,
        "{counts:?}"
    );
}

//! Many calls at once, and where they go.

use std::{collections::BTreeMap, time::Duration};

use gantry_harness::{
    tools,
    wait::{self, SOON},
};
use gantry_probe::{CountRequest, WaitRequest, probe_service_client::ProbeServiceClient};
use tokio::{task::JoinSet, time::Instant};
use tonic::Request;

use crate::support::{channel, hop, probe};

fn waiting(millis: u32, hops: u32) -> WaitRequest {
    WaitRequest {
        millis,
        hops,
        spawned: false,
    }
}

/// Goal: two thousand calls at once through one process, none fails.
/// Method: each waits at a second process behind the first; with the limits there are, most of
/// them wait in line for a stream, here and at the first process.
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

/// Goal: two thousand calls are open in one process at the same moment, and none fails.
/// Method: as above with room for as many streams; they wait until all of them have arrived.
#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_calls_are_open_at_once() {
    const CALLS: u64 = 2_000;
    let second = probe().set("LIMITS__STREAMS_MAX", 3_000).start().await;
    let first = hop(&second)
        .set("LIMITS__STREAMS_MAX", 3_000)
        .set("CLIENTS__NEXT__TIMEOUT_DEFAULT", "1min")
        .set("CLIENTS__NEXT__BULKHEAD__CALLS_MAX", 3_000)
        .start()
        .await;
    let client = ProbeServiceClient::new(channel(&[first.address]));
    // Long enough for the last to arrive before the first is answered.
    let pause = if tools::timed() { 3_000 } else { 15_000 };
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let mut client = client.clone();
        let mut request = Request::new(waiting(pause, 1));
        request.set_timeout(Duration::from_mins(1));
        calls.spawn(async move { client.wait(request).await });
    }
    let mut counter = ProbeServiceClient::new(channel(&[second.address]));
    wait::until("all calls to be open at once", SOON, async || {
        let counts = counter.count(CountRequest {}).await.expect("counts");
        let counts = counts.into_inner();
        assert_eq!(0, counts.finished, "answered before all came: {counts:?}");
        (counts.begun == CALLS && counts.dropped == 0).then_some(())
    })
    .await;
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

/// Goal: a slow replica gets less than a twentieth of the load.
/// Method: three replicas, one ten times slower, and twenty callers; count who answered. On a busy
/// machine the others are slower as well: there it is a tenth.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_replica_gets_few_calls() {
    const CALLERS: usize = 20;
    const CALLS: usize = 100;
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
    for _ in 0..CALLERS {
        let mut client = client.clone();
        callers.spawn(async move {
            let mut answered = Vec::new();
            for _ in 0..CALLS {
                let answer = client.wait(waiting(100, 0)).await.expect("no call fails");
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
    let total: usize = counts.values().sum();
    assert_eq!(CALLERS * CALLS, total, "{counts:?}");
    let slow = counts.get("slow").copied().unwrap_or(0);
    let share = if tools::timed() { 20 } else { 10 };
    assert!(
        slow * share < total,
        "the slow replica got {slow} of {total} calls: {counts:?}"
    );
    for fast in ["fast-1", "fast-2"] {
        assert!(counts[fast] * 4 > total, "{counts:?}");
    }
}

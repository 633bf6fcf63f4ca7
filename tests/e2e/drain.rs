//! The end of a process, under load and with open streams.

use std::{collections::BTreeMap, time::Duration};

use gantry_probe::{HangRequest, OnceRequest, probe_service_client::ProbeServiceClient};
use rustix::process::Signal;
use tokio::{task::JoinSet, time::Instant};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use gantry_harness::wait::{self, SOON};

use crate::support::{channel, probe};

/// Longest a drain may take with the settings below.
const BOUND: Duration = Duration::from_secs(15);

/// Goal: a process that drains loses no call and runs none twice.
/// Method: 200 calls in flight and a stream of new ones while it gets SIGTERM; each id goes to a
/// history file as its handler begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_loses_no_call_and_repeats_none() {
    let histories = tempfile::tempdir().expect("a folder");
    let mut replicas = Vec::new();
    for number in 0..2 {
        let history = histories.path().join(number.to_string());
        replicas.push(
            probe()
                .set("HISTORY", history.display())
                .set("SHUTDOWN__DELAY", "1s")
                .start()
                .await,
        );
    }
    let addresses: Vec<_> = replicas.iter().map(|replica| replica.address).collect();
    let client = ProbeServiceClient::new(channel(&addresses));
    let mut calls = JoinSet::new();
    let call = |id: String, millis| {
        let mut client = client.clone();
        async move {
            let request = OnceRequest {
                id: id.clone(),
                millis,
                payload: Vec::new(),
            };
            client
                .once(request)
                .await
                .unwrap_or_else(|error| panic!("{id} was lost: {error:?}"));
        }
    };
    for number in 0..200 {
        calls.spawn(call(format!("open-{number}"), 2_000));
    }
    wait::until("the calls to begin", SOON, async || {
        (begun(&histories).values().sum::<usize>() == 200).then_some(())
    })
    .await;

    replicas[0].signal(Signal::TERM);
    let mut number = 0;
    let drained = loop {
        calls.spawn(call(format!("late-{number}"), 5));
        number += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
        // Polled by hand, so that calls go on right up to the end of the process.
        if let Ok(status) = tokio::time::timeout(Duration::ZERO, replicas[0].ended(BOUND)).await {
            break status;
        }
        assert!(number < 10_000, "the process did not end");
    };
    assert!(drained.success(), "{drained}\n{}", replicas[0].output());
    while let Some(call) = calls.join_next().await {
        call.expect("no call is lost");
    }
    let begun = begun(&histories);
    assert_eq!(200 + number, begun.len(), "every call ran");
    assert!(
        begun.values().all(|times| *times == 1),
        "no call ran twice: {begun:?}"
    );
}

/// How often each id began, over all replicas.
fn begun(histories: &tempfile::TempDir) -> BTreeMap<String, usize> {
    let mut begun = BTreeMap::new();
    for entry in std::fs::read_dir(histories.path()).expect("the folder") {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("a history");
        for id in text.lines() {
            *begun.entry(id.to_owned()).or_default() += 1;
        }
    }
    begun
}

/// Goal: open streams do not hold a drain beyond its bound, and are told why they end.
/// Method: a health watch and a stream that hangs for ever, then SIGTERM.
#[tokio::test]
async fn open_streams_end_with_the_drain() {
    let mut service = probe().set("SHUTDOWN__FINISH", "2s").start().await;
    let mut client = ProbeServiceClient::new(channel(&[service.address]));
    let mut hanging = client
        .hang(HangRequest {
            messages: 1,
            hops: 0,
        })
        .await
        .expect("headers")
        .into_inner();
    hanging.message().await.expect("a message");
    let mut health = HealthClient::new(channel(&[service.address]));
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let mut watch = health.watch(request).await.expect("headers").into_inner();
    let first = watch.message().await.expect("a status").expect("a status");
    assert_eq!(ServingStatus::Serving, first.status());

    let started = Instant::now();
    service.signal(Signal::TERM);
    let next = watch
        .message()
        .await
        .expect("the change")
        .expect("the change");
    assert_eq!(
        ServingStatus::NotServing,
        next.status(),
        "told before the end"
    );
    let error = hanging.message().await.expect_err("cut at the bound");
    assert_eq!(Code::Unavailable, error.code(), "{error:?}");
    let status = service.ended(BOUND).await;
    assert!(status.success(), "{status}\n{}", service.output());
    assert!(started.elapsed() < BOUND, "{:?}", started.elapsed());
}

/// Goal: a second signal ends the process at once.
/// Method: a stream that would hold the drain for its whole grace, two signals, exit code 130.
#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut service = probe().set("SHUTDOWN__FINISH", "20s").start().await;
    let mut client = ProbeServiceClient::new(channel(&[service.address]));
    let mut hanging = client
        .hang(HangRequest {
            messages: 1,
            hops: 0,
        })
        .await
        .expect("headers")
        .into_inner();
    hanging.message().await.expect("a message");

    service.signal(Signal::TERM);
    wait::until("the drain to begin", SOON, async || {
        service.output().contains("drain").then_some(())
    })
    .await;
    service.signal(Signal::TERM);
    let status = service.ended(Duration::from_secs(5)).await;
    assert_eq!(Some(130), status.code(), "{}", service.output());
}

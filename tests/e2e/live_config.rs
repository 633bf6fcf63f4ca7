//! Settings that change while calls run.

use std::{fmt::Write as _, time::Duration};

use gantry_harness::{
    process::Service,
    wait::{self, SOON},
};
use gantry_probe::{OnceRequest, WaitRequest, probe_service_client::ProbeServiceClient};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::support::{channel, probe};

const FILE: &str = "config/probe.toml";

fn write(service: &Service, text: &str) {
    std::fs::write(service.folder().join(FILE), text).expect("write the configuration");
}

async fn configured() -> Service {
    probe()
        .file(FILE, "[telemetry]\nlog_level = \"info\"\n")
        .argument("--config")
        .argument(FILE)
        .start()
        .await
}

/// Goal: a limit changes under load without a failed call, and a broken file changes nothing.
/// Method: callers that never stop; lower the message limit, break the file, mend it.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_changes_under_load() {
    let service = configured().await;
    let client = ProbeServiceClient::new(channel(&[service.address]));
    let stop = CancellationToken::new();
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let (mut client, stop) = (client.clone(), stop.clone());
        callers.spawn(async move {
            let mut calls = 0_u32;
            while !stop.is_cancelled() {
                client
                    .wait(WaitRequest::default())
                    .await
                    .expect("no call fails");
                calls += 1;
            }
            calls
        });
    }
    let fits = |bytes: usize| {
        let mut client = client.clone();
        async move {
            let payload = vec![0; bytes];
            let request = OnceRequest {
                id: "size".to_owned(),
                millis: 0,
                payload,
            };
            match client.once(request).await {
                Ok(_) => true,
                Err(error) if error.code() == Code::ResourceExhausted => false,
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    assert!(fits(100_000).await);

    write(&service, "[limits]\nreceive_message_max = \"10KiB\"\n");
    wait::until("the lower limit", SOON, async || {
        (!fits(100_000).await).then_some(())
    })
    .await;
    assert!(fits(1_000).await);

    write(&service, "[limits]\nreceive_message_max = \"plenty\"\n");
    wait::until("the refusal in the log", SOON, async || {
        let output = service.output();
        (output.contains("plenty") && output.contains("probe.toml:2")).then_some(())
    })
    .await;
    assert!(!fits(100_000).await, "a broken file changes nothing");

    write(&service, "[limits]\nreceive_message_max = \"1MiB\"\n");
    wait::until("the higher limit", SOON, async || {
        fits(100_000).await.then_some(())
    })
    .await;

    stop.cancel();
    let mut calls = 0;
    while let Some(made) = callers.join_next().await {
        calls += made.expect("no call fails");
    }
    assert!(calls > 8, "{calls} calls are no load");
}

/// Goal: the log level follows the file.
/// Method: ask for debug, then see a call in the log that was not there before.
#[tokio::test]
async fn the_log_level_follows_the_file() {
    let service = configured().await;
    let mut client = ProbeServiceClient::new(channel(&[service.address]));
    client.wait(WaitRequest::default()).await.expect("answers");
    let quiet = service.output().len();

    write(&service, "[telemetry]\nlog_level = \"trace\"\n");
    wait::until("debug lines", SOON, async || {
        client.wait(WaitRequest::default()).await.expect("answers");
        let output = service.output();
        let fresh = output.get(quiet..)?;
        (fresh.contains("DEBUG") || fresh.contains("TRACE")).then_some(())
    })
    .await;
}

/// Goal: a burst of changes is applied, the last one stays, and nothing fails.
/// Method: a hundred versions of the file at once; the last one is seen.
#[tokio::test]
async fn a_burst_of_changes_ends_with_the_last() {
    let service = configured().await;
    let mut client = ProbeServiceClient::new(channel(&[service.address]));
    for kilobytes in 1..=100 {
        let mut text = String::new();
        writeln!(text, "[limits]\nreceive_message_max = \"{kilobytes}KiB\"")
            .expect("a string takes all");
        write(&service, &text);
    }
    wait::until("the last version", Duration::from_secs(10), async || {
        let payload = vec![0; 99 * 1_024];
        let request = OnceRequest {
            id: "burst".to_owned(),
            millis: 0,
            payload,
        };
        client.once(request).await.is_ok().then_some(())
    })
    .await;
}

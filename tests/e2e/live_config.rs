//! Settings that change while calls run.

use std::{fmt::Write as _, time::Duration};

use gantry_harness::{
    process::{self, Builder, Service},
    wait,
};
use gantry_probe::{OnceRequest, WaitRequest, probe_service_client::ProbeServiceClient};
use shop_proto::catalog::v1::{ListProductsRequest, catalog_service_client::CatalogServiceClient};
use tonic::Code;

use crate::support::{Callers, channel, effect_max, probe};

const FILE: &str = "config/own.toml";

fn write(service: &Service, text: &str) {
    std::fs::write(service.folder().join(FILE), text).expect("write the configuration");
}

/// Starts a binary with `text` as its own file.
async fn configured(binary: Builder, text: &str) -> Service {
    let builder = binary.file(FILE, text).argument("--config").argument(FILE);
    builder.start().await
}

async fn configured_probe() -> Service {
    configured(probe(), "[telemetry]\nlog_level = \"info\"\n").await
}

/// Calls of the probe that are answered at once.
fn on_probe(client: &ProbeServiceClient<gantry::client::Channel>) -> Callers {
    let client = client.clone();
    Callers::of(move || {
        let mut client = client.clone();
        async move { client.wait(WaitRequest::default()).await.map(drop) }
    })
}

/// Goal: a limit changes under load without a failed call, and a broken file changes nothing.
/// Method: callers that never stop; lower the message limit, break the file, mend it.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_changes_under_load() {
    let service = configured_probe().await;
    let client = ProbeServiceClient::new(channel(&[service.address]));
    let load = on_probe(&client);
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
    wait::until("the lower limit", effect_max(), async || {
        (!fits(100_000).await).then_some(())
    })
    .await;
    assert!(fits(1_000).await);

    write(&service, "[limits]\nreceive_message_max = \"plenty\"\n");
    wait::until("the refusal in the log", effect_max(), async || {
        let output = service.output();
        (output.contains("plenty") && output.contains("own.toml:2")).then_some(())
    })
    .await;
    assert!(!fits(100_000).await, "a broken file changes nothing");

    write(&service, "[limits]\nreceive_message_max = \"1MiB\"\n");
    wait::until("the higher limit", effect_max(), async || {
        fits(100_000).await.then_some(())
    })
    .await;
    load.end().await;
}

/// Goal: the log level follows the file under load without a failed call.
/// Method: callers that never stop; ask for trace, and see lines that were not there before.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_level_follows_the_file() {
    let service = configured_probe().await;
    let client = ProbeServiceClient::new(channel(&[service.address]));
    let load = on_probe(&client);
    let fine = |text: &str| text.contains("DEBUG") || text.contains("TRACE");
    assert!(!fine(&service.output()), "{}", service.output());

    write(&service, "[telemetry]\nlog_level = \"trace\"\n");
    wait::until("finer lines", effect_max(), async || {
        fine(&service.output()).then_some(())
    })
    .await;
    load.end().await;
}

/// Goal: the size of a database's pool follows the file under load without a failed call.
/// Method: callers that never stop to read the catalog; a larger pool, then a smaller one.
#[tokio::test(flavor = "multi_thread")]
async fn the_pool_follows_the_file() {
    let service = configured(process::service("catalog"), "[database]\npool_max = 4\n").await;
    let client = CatalogServiceClient::new(channel(&[service.address]));
    let load = Callers::of(move || {
        let mut client = client.clone();
        async move {
            let request = ListProductsRequest::default();
            client.list_products(request).await.map(drop)
        }
    });
    let is = async |size: u32| {
        let metrics = service.get("/metrics").await.expect("metrics");
        metrics.contains(&format!("\ngantry_db_connections_max {size}\n"))
    };
    assert!(is(4).await);
    for size in [9, 2] {
        write(&service, &format!("[database]\npool_max = {size}\n"));
        wait::until("the pool of another size", effect_max(), async || {
            is(size).await.then_some(())
        })
        .await;
    }
    load.end().await;
}

/// Goal: a burst of changes is applied, the last one stays, and nothing fails.
/// Method: a hundred versions of the file at once; the last one is seen.
#[tokio::test]
async fn a_burst_of_changes_ends_with_the_last() {
    let service = configured_probe().await;
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

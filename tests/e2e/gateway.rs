//! The edge: one port for whoever is registered.

use std::{process::Command, time::Duration};

use gantry::client::Reflection;
use gantry_api::admin::v1::{
    ListEndpointsRequest, PauseRegistrationRequest, admin_service_client::AdminServiceClient,
};
use gantry_harness::{
    authority::Authority,
    etcd::{self, Asks, Data, Version},
    process::{self, Builder, Service},
    tools,
    wait::{self, SOON},
};
use gantry_probe::{
    CountRequest, CountResponse, EchoRequest, HangRequest, OnceRequest, WaitRequest,
    probe_service_client::ProbeServiceClient,
};
use rustix::process::Signal;
use tonic::{Code, Request};

use crate::{
    discovery::fleet::{Fleet, replica},
    support::{channel, channel_regardless},
};

const SERVICE: &str = "probe.v1.ProbeService";

async fn gateway(etcd: &str) -> Service {
    process::service("gateway")
        .set("ETCD__ENDPOINTS", etcd)
        .start()
        .await
}

fn client(service: &Service) -> ProbeServiceClient<gantry::client::Channel> {
    ProbeServiceClient::new(channel(&[service.address]))
}

fn wait_for(millis: u32) -> WaitRequest {
    WaitRequest {
        millis,
        hops: 0,
        spawned: false,
    }
}

/// Goal: calls of every kind reach whoever registered their service, spread over its instances, and
/// errors come back as they were given.
/// Method: three probes behind a gateway; unary calls, streams both ways, a broken rule, a method
/// and a service that do not exist.
#[tokio::test(flavor = "multi_thread")]
async fn calls_reach_whoever_is_registered() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let gateway = gateway(&fleet.etcd.url()).await;
    let mut client = client(&gateway);
    for _ in 0..50 {
        client.wait(wait_for(0)).await.expect("a unary call");
    }
    for probe in &fleet.probes {
        let begun = counts(probe).await.begun;
        assert!(begun > 0, "nothing came to {}", probe.address);
    }

    let payloads = [vec![0], vec![1; 1_000_000], Vec::new()];
    let requests = payloads.clone().map(|payload| EchoRequest { payload });
    let echo = client.echo(tokio_stream::iter(requests)).await;
    let mut echo = echo.expect("a stream both ways").into_inner();
    for payload in payloads {
        let answer = echo.message().await.expect("a message").expect("a message");
        assert!(payload == answer.payload);
    }
    assert!(echo.message().await.expect("its end").is_none());

    let id = "NOT ALLOWED".to_owned();
    let broken = OnceRequest {
        id,
        ..OnceRequest::default()
    };
    let error = client.once(broken).await.expect_err("a broken rule");
    assert_eq!(Code::InvalidArgument, error.code());
    assert!(!error.details().is_empty(), "the violations are there");

    for (path, text) in [
        ("/probe.v1.ProbeService/Nope", "has no method Nope"),
        ("/probe.v1.Nobody/Nope", "unknown service probe.v1.Nobody"),
        ("/nowhere", "not the path of a method"),
    ] {
        let error = unary(&gateway, path).await;
        assert_eq!(Code::Unimplemented, error.code(), "{path}: {error:?}");
        assert!(error.message().contains(text), "{path}: {error:?}");
    }
}

async fn counts(probe: &Service) -> CountResponse {
    let counts = client(probe).count(CountRequest {}).await;
    counts.expect("counts").into_inner()
}

/// A call to any path; it must fail.
async fn unary(service: &Service, path: &'static str) -> tonic::Status {
    let mut grpc = tonic::client::Grpc::new(channel_regardless(&[service.address]));
    let codec = tonic_prost::ProstCodec::<WaitRequest, WaitRequest>::default();
    let path = http::uri::PathAndQuery::from_static(path);
    let answer = grpc.unary(Request::new(wait_for(0)), path, codec).await;
    answer.expect_err("nobody serves it")
}

/// Goal: deadlines and cancellation reach the backend, and nothing goes on there.
/// Method: calls that would take an hour, one with a deadline, one given up, and a stream let go.
#[tokio::test(flavor = "multi_thread")]
async fn deadlines_and_cancellation_pass() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let gateway = gateway(&fleet.etcd.url()).await;
    let mut through = client(&gateway);
    let mut request = Request::new(wait_for(3_600_000));
    request.set_timeout(Duration::from_secs(1));
    let error = through
        .wait(request)
        .await
        .expect_err("the deadline passes");
    assert_eq!(Code::DeadlineExceeded, error.code(), "{error:?}");

    let given_up = tokio::time::timeout(
        Duration::from_millis(500),
        through.wait(wait_for(3_600_000)),
    );
    given_up.await.expect_err("it takes an hour");
    let hanging = HangRequest {
        messages: 2,
        hops: 0,
    };
    let mut stream = through.hang(hanging).await.expect("a stream").into_inner();
    for _ in 0..2 {
        stream
            .message()
            .await
            .expect("a message")
            .expect("a message");
    }
    drop(stream);
    wait::until("all three to be dropped", SOON, async || {
        let mut dropped = 0;
        for probe in &fleet.probes {
            let counts = counts(probe).await;
            assert_eq!(0, counts.finished, "{counts:?}");
            dropped += counts.dropped;
        }
        (dropped == 3).then_some(())
    })
    .await;
}

/// Goal: a service is there as soon as it registers, is unavailable while it restarts, and told to be
/// gone when it has; losing etcd changes nothing.
/// Method: a gateway before any probe; one that comes beside another service, outlives etcd and its
/// data, and goes.
#[tokio::test(flavor = "multi_thread")]
async fn services_come_and_go() {
    let Some(mut fleet) = Fleet::start().await else {
        return;
    };
    let url = fleet.etcd.url();
    for mut probe in std::mem::take(&mut fleet.probes) {
        probe.signal(Signal::TERM);
        probe.ended(SOON).await;
    }
    let _other = process::service("catalog")
        .set("ETCD__ENDPOINTS", &url)
        .start()
        .await;
    let gateway = gateway(&url).await;
    let path = "/probe.v1.ProbeService/Wait";
    assert_eq!(Code::Unimplemented, unary(&gateway, path).await.code());

    let mut probe = replica(&url).start().await;
    served(&gateway).await;
    fleet.etcd.kill();
    client(&gateway)
        .wait(wait_for(0))
        .await
        .expect("etcd is away");
    fleet.etcd.restart(Data::Lost).await;
    client(&gateway)
        .wait(wait_for(0))
        .await
        .expect("etcd is empty");
    fleet.registered(1, SOON).await;
    wait::until("the other to be registered", SOON, async || {
        let keys = etcd::keys(&url, "catalog/")?;
        (keys.len() == 1).then_some(())
    })
    .await;

    probe.signal(Signal::TERM);
    probe.ended(SOON).await;
    wait::until("the service to be gone", SOON, async || {
        let status = unary(&gateway, path).await;
        assert_eq!(Code::Unavailable, status.code(), "{status:?}");
        status.message().contains("is registered").then_some(())
    })
    .await;
}

async fn served(gateway: &Service) {
    wait::until("the service to be there", SOON, async || {
        client(gateway).wait(wait_for(0)).await.ok()
    })
    .await;
}

/// Goal: large data of others in the same etcd is in nobody's way: a gateway becomes ready, follows
/// who comes and goes, and loses no watch; `gantry ls` lists.
/// Method: 700 keys of 100 kB before it starts, and all of them again while it stands still, so
/// that many changes come at once.
#[tokio::test(flavor = "multi_thread")]
async fn large_data_of_others_is_in_nobodys_way() {
    let Some(etcd) = etcd::Etcd::start(Version::V36).await else {
        return;
    };
    let url = etcd.url();
    large_data(&url).await;
    let mut probe = replica(&url).start().await;
    let gateway = gateway(&url).await;
    served(&gateway).await;

    let mut listing = Command::new(process::built("gantry"));
    listing.args(["ls", "--etcd", &url, "--output", "json"]);
    let listed = tools::output(&mut listing);
    assert!(listed.status.success(), "{listed:?}");
    let rows: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let rows = rows.as_array().expect("an array");
    let there = |row: &serde_json::Value| row["address"] == probe.address.to_string();
    assert!(rows.iter().any(there), "{rows:?}");

    gateway.signal(Signal::STOP);
    large_data(&url).await;
    gateway.signal(Signal::CONT);
    let _other = process::service("catalog")
        .set("ETCD__ENDPOINTS", &url)
        .start()
        .await;
    let path = "/shop.catalog.v1.CatalogService/Nope";
    wait::until("the other to be there", SOON, async || {
        let error = unary(&gateway, path).await;
        error.message().contains("has no method").then_some(())
    })
    .await;
    probe.signal(Signal::TERM);
    probe.ended(SOON).await;
    let said = gateway.output();
    assert!(!said.contains("cannot be read"), "{said}");
}

/// Writes 700 keys of 100 kB, each as a revision of its own.
async fn large_data(url: &str) {
    let client = etcd_client::Client::connect([url], None).await;
    let mut client = client.expect("it answers");
    for number in 0..700 {
        let key = format!("images/{number:03}");
        let put = client.put(key, vec![b'x'; 100_000], None).await;
        put.expect("it takes 100 kB");
    }
}

/// Goal: a name that goes while it is reachable is let go of once it is not, though the registry says
/// nothing more.
/// Method: beside another service, take a probe that was called out of the registry, and end it once
/// it is not listed.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_for_good_is_let_go_of() {
    let Some(etcd) = etcd::Etcd::start(Version::V36).await else {
        return;
    };
    let _other = process::service("catalog")
        .set("ETCD__ENDPOINTS", etcd.url())
        .start()
        .await;
    let mut probe = replica(&etcd.url()).start().await;
    let gateway = gateway(&etcd.url()).await;
    served(&gateway).await;
    let mut admin = AdminServiceClient::new(channel(&[probe.side_address]));
    let paused = admin.pause_registration(PauseRegistrationRequest {}).await;
    paused.expect("it is registered");
    wait::until("it not to be listed", SOON, async || {
        let listed = Reflection::of(channel(&[gateway.address])).await;
        let (_, services) = listed.expect("it has reflection");
        (!services.iter().any(|it| it == SERVICE)).then_some(())
    })
    .await;
    let still = client(&gateway).wait(wait_for(0)).await;
    still.expect("it is reachable");
    assert!(is_known(&gateway).await);

    probe.signal(Signal::TERM);
    probe.ended(SOON).await;
    wait::until("it to be let go of", SOON, async || {
        (!is_known(&gateway).await).then_some(())
    })
    .await;
}

/// Whether a gateway has the probe among those whom it calls.
async fn is_known(gateway: &Service) -> bool {
    let mut admin = AdminServiceClient::new(channel(&[gateway.side_address]));
    let answer = admin.list_endpoints(ListEndpointsRequest::default()).await;
    let called = answer.expect("the side port answers").into_inner();
    called.endpoints.iter().any(|it| it.client == "probe")
}

/// Goal: in an etcd with users the gateway needs the rights that docs/operating.md says, and no more.
/// Method: its own keys alone, which is told and makes it not ready; then to read all beside.
#[tokio::test(flavor = "multi_thread")]
async fn the_rights_it_needs_are_as_written() {
    let authority = Authority::new("one");
    let Some(etcd) = etcd::Etcd::secured(&authority, Asks::Password).await else {
        return;
    };
    let grant = |arguments: &[&str]| {
        let granted = ["role", "grant-permission", "edge"];
        etcd.must(&[&granted[..], arguments, &["--prefix=true"]].concat());
    };
    etcd.must(&["role", "add", "edge"]);
    etcd.must(&["user", "add", "edge:edge"]);
    etcd.must(&["user", "grant-role", "edge", "edge"]);
    grant(&["readwrite", "gateway/"]);
    let known = |service: Builder, who: &str| {
        service
            .set("ETCD__ENDPOINTS", etcd.url())
            .set("ETCD__TLS__CA", authority.ca().display())
            .set("ETCD__USER", who)
            .set("ETCD__PASSWORD", who)
    };
    let _probe = known(replica(&etcd.url()), "root").start().await;
    let mut gateway = known(process::service("gateway"), "edge").spawn();
    wait::until("it to say what is refused", SOON, async || {
        let refused = gateway.output().contains("permission denied");
        let ready = gateway.get("/readyz").await?;
        (refused && ready.starts_with("HTTP/1.1 503")).then_some(())
    })
    .await;
    grant(&["read", ""]);
    gateway.ready().await;
    served(&gateway).await;
}

/// Goal: as long as the registry was not read, nothing is unknown, by reflection no more than by a
/// call.
/// Method: a gateway whose etcd is not there; a call, and a list of services.
#[tokio::test(flavor = "multi_thread")]
async fn before_the_registry_was_read_nothing_is_unknown() {
    let nobody = process::free_address();
    let gateway = process::service("gateway")
        .set("ETCD__ENDPOINTS", format!("http://{nobody}"))
        .spawn();
    let unread = "the registry has not been read yet";
    let path = "/probe.v1.ProbeService/Wait";
    wait::until("the port to be open", SOON, async || {
        let error = unary(&gateway, path).await;
        (error.code() == Code::Unavailable && error.message().contains(unread)).then_some(())
    })
    .await;
    let listed = Reflection::of(channel_regardless(&[gateway.address])).await;
    let error = listed.expect_err("it knows none");
    assert_eq!(Code::Unavailable, error.code(), "{error:?}");
    assert!(error.message().contains(unread), "{error:?}");
}

/// Goal: calls that are handed on are measured by their names, and what callers make up is not.
/// Method: a call of a method that there is until it is seen under its name, and one of none.
#[tokio::test(flavor = "multi_thread")]
async fn calls_are_measured_by_name() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let gateway = gateway(&fleet.etcd.url()).await;
    let mut client = client(&gateway);
    let name = r#"grpc_server_call_started_total{grpc_method="probe.v1.ProbeService/Wait"} "#;
    wait::until("the call under its name", SOON, async || {
        client.wait(wait_for(0)).await.expect("handed on");
        let page = gateway.get("/metrics").await?;
        let mut lines = page.lines();
        lines.find_map(|it| {
            it.strip_prefix(name)
                .filter(|count| *count != "0")
                .map(drop)
        })
    })
    .await;
    let path = "/made.up.Service/Call".parse().expect("a path");
    let mut raw = tonic::client::Grpc::new(channel(&[gateway.address]));
    raw.ready().await.expect("always ready");
    let codec = tonic_prost::ProstCodec::<WaitRequest, WaitRequest>::default();
    let request = Request::new(WaitRequest::default());
    raw.unary(request, path, codec)
        .await
        .expect_err("there is none");
    let page = gateway.get("/metrics").await.expect("a page");
    assert!(
        page.contains("_OTHER") && !page.contains("made.up"),
        "{page}"
    );
}

/// Goal: one reflection describes all that is registered, and none where the configuration says so.
/// Method: list the services, and read the files of one, as any client does; ask another gateway,
/// which may not answer.
#[tokio::test(flavor = "multi_thread")]
async fn reflection_is_merged() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let gateway = gateway(&fleet.etcd.url()).await;
    let (reflection, services) = Reflection::of(channel(&[gateway.address]))
        .await
        .expect("it has reflection");
    for expected in [SERVICE, "grpc.health.v1.Health"] {
        assert!(services.iter().any(|it| it == expected), "{services:?}");
    }
    for symbol in [
        SERVICE,
        "probe.v1.ProbeService.Wait",
        "probe.v1.WaitRequest",
    ] {
        let files = reflection.files(symbol).await.expect("its files").file;
        let names: Vec<_> = files
            .iter()
            .map(gantry::contract::prost_types::FileDescriptorProto::name)
            .collect();
        assert!(names.contains(&"buf/validate/validate.proto"), "{names:?}");
    }
    let unknown = reflection.files("probe.v1.Nope").await;
    assert_eq!(Some(Code::NotFound), unknown.err().map(|it| it.code()));

    let silent = process::service("gateway")
        .set("ETCD__ENDPOINTS", fleet.etcd.url())
        .set("REFLECTION", false)
        .start()
        .await;
    let refused = Reflection::of(channel(&[silent.address])).await;
    assert_eq!(Some(Code::Unimplemented), refused.err().map(|it| it.code()));
}

/// Goal: a backend without reflection, or one that stands still, is in nobody else's way.
/// Method: one that comes first by its name, beside the probes; a symbol of theirs, and one that
/// nobody knows; then it is stopped, and the same symbol of theirs.
#[tokio::test(flavor = "multi_thread")]
async fn reflection_waits_for_nobody() {
    let Some(fleet) = Fleet::start().await else {
        return;
    };
    let url = fleet.etcd.url();
    let other = process::service("catalog")
        .set("ETCD__ENDPOINTS", &url)
        .set("REFLECTION", false)
        .start()
        .await;
    let gateway = gateway(&url).await;
    let reflection = wait::until("all to be listed", SOON, async || {
        let reflection = Reflection::of(channel(&[gateway.address])).await;
        let (reflection, services) = reflection.expect("it has reflection");
        let there = |name: &str| services.iter().any(|it| it == name);
        (there(SERVICE) && there("shop.catalog.v1.CatalogService")).then_some(reflection)
    })
    .await;
    let symbol = "probe.v1.WaitRequest";
    reflection.files(symbol).await.expect("its files");
    for (symbol, code) in [
        ("probe.v1.Nope", Code::NotFound),
        ("shop.catalog.v1.CatalogService", Code::Unimplemented),
    ] {
        let error = reflection.files(symbol).await.expect_err(symbol);
        assert_eq!(code, error.code(), "{symbol}: {error:?}");
    }

    other.signal(Signal::STOP);
    let files = tokio::time::timeout(Duration::from_secs(3), reflection.files(symbol));
    files.await.expect("nobody waits").expect("its files");
}

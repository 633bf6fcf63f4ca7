//! The side port over real sockets.

use std::{net::SocketAddr, time::Duration};

use futures_util::FutureExt as _;
use gantry_api::admin::v1::{
    DrainRequest, GetConfigRequest, GetInfoRequest, GetLogLevelRequest, ListConnectionsRequest,
    ListEndpointsRequest, ListHealthChecksRequest, ProcessState, SetLogLevelRequest,
    WatchJournalRequest, admin_service_client::AdminServiceClient, config_key::Reload,
    health_check, watch_journal_response::Event,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::{Code, transport::Endpoint};

use super::probe::{IDENTITY, Probe, hang, running};
use crate::{
    admin,
    app::{App, BoxError, testing},
    client::Channel,
    health::Check,
    journal::Kind,
};

/// Sends `head` and reads the answer to its end: status code and body.
async fn exchange(addr: SocketAddr, head: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, body.to_owned())
}

async fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    let head = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
    exchange(addr, &head).await
}

pub(super) async fn admin(
    service: &testing::Service,
) -> AdminServiceClient<tonic::transport::Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", service.side_address()));
    AdminServiceClient::new(endpoint.unwrap().connect().await.unwrap())
}

/// Goal: the pages tell the state of the process: ready or not and why, alive, metrics.
/// Method: a gate that fails until told otherwise, and the JSON that interfaces promise.
#[tokio::test]
async fn pages_tell_readiness_with_its_reasons() {
    let (sender, answer) = tokio::sync::watch::channel(false);
    let start = async move |app: &mut App<()>| -> Result<(), BoxError> {
        app.serve(Probe);
        let probe = move || {
            let fine = *answer.borrow();
            std::future::ready(if fine { Ok(()) } else { Err("down".into()) })
        };
        app.check(Check::gate("store", probe).every(Duration::from_millis(1)));
        Ok(())
    };
    let service = testing::Service::start(IDENTITY, "", start).await.unwrap();
    let addr = service.side_address();
    let mut changes = service.health().changes();

    // The first run may not have ended yet; either way the gate is shut.
    let (code, body) = get(addr, "/readyz").await;
    let state: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (503, "NOT_SERVING"),
        (code, state["status"].as_str().unwrap())
    );
    assert_eq!("store", state["checks"][0]["name"]);
    let (code, _) = get(addr, "/livez").await;
    assert_eq!(200, code, "liveness must not depend on a store");

    sender.send_replace(true);
    changes
        .wait_for(|_| service.health().is_ready())
        .await
        .unwrap();
    let (code, body) = get(addr, "/readyz").await;
    let state: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((200, "SERVING"), (code, state["status"].as_str().unwrap()));
    assert_eq!("PASSING", state["checks"][0]["status"]);
    assert!(state["checks"][0]["latency_ms"].is_number(), "{body}");

    let (code, body) = get(addr, "/metrics").await;
    assert_eq!(200, code);
    assert!(
        body.contains("# TYPE grpc_server_call_started_total counter"),
        "{body}"
    );
    assert_eq!(404, get(addr, "/").await.0);
    service.stop().await;
}

/// Goal: what the listener and the checks count is in the metrics as it is at the scrape.
/// Method: one connection open, then closed, and a check that passes.
#[tokio::test]
async fn connections_and_checks_are_counted() {
    let start = async |app: &mut App<()>| -> Result<(), BoxError> {
        app.serve(Probe);
        app.check(Check::gate("counted", || std::future::ready(Ok(()))));
        Ok(())
    };
    let service = testing::Service::start(IDENTITY, "", start).await.unwrap();
    let addr = service.side_address();
    let mut changes = service.health().changes();
    changes
        .wait_for(|_| service.health().is_ready())
        .await
        .unwrap();
    let before = value(&get(addr, "/metrics").await.1, ACCEPTED);
    let stream = TcpStream::connect(service.address()).await.unwrap();
    let counted = loop {
        let (_, metrics) = get(addr, "/metrics").await;
        if value(&metrics, ACCEPTED) > before {
            break metrics;
        }
    };
    assert!(value(&counted, OPEN) >= 1.0, "{counted}");
    let passing = "gantry_health_check_passing{check=\"counted\"}";
    assert!(
        (value(&counted, passing) - 1.0).abs() < f64::EPSILON,
        "{counted}"
    );
    drop(stream);
    service.stop().await;
}

/// Goal: who is closed to make room is counted, and the journal tells of the limit.
/// Method: two connections where one may be.
#[tokio::test]
async fn a_limit_that_is_reached_is_told() {
    let service = running("[limits]\nconnections_max = 1").await;
    let addr = service.side_address();
    let before = value(&get(addr, "/metrics").await.1, EVICTED);
    let mut first = TcpStream::connect(service.address()).await.unwrap();
    let _second = TcpStream::connect(service.address()).await.unwrap();
    let mut sent = Vec::new();
    let closed = timeout(Duration::from_secs(10), first.read_to_end(&mut sent)).await;
    drop(closed.expect("closed in time"));
    assert!(value(&get(addr, "/metrics").await.1, EVICTED) > before);

    let entries = service.journal().watch().0;
    let told = entries.iter().filter(|it| it.kind == Kind::Limit);
    let told: Vec<_> = told.map(|it| it.subject.as_str()).collect();
    assert_eq!(["limits.connections_max"], told[..]);
    service.stop().await;
}

const EVICTED: &str = "gantry_server_connections_evicted_total{reason=\"too_many\"}";
const ACCEPTED: &str = "gantry_server_connections_accepted_total";
const OPEN: &str = "gantry_server_connections_open";

/// The value of one series.
fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {metrics}"))
        .parse()
        .unwrap()
}

/// Goal: connections that do nothing keep nobody from asking whether the process is alive.
/// Method: as many as there may be, then one that asks: the oldest goes for it, and no other.
#[tokio::test]
async fn a_probe_does_not_wait_for_silent_connections() {
    let service = running("").await;
    let addr = service.side_address();
    let mut silent = Vec::new();
    for _ in 0..admin::CONNECTIONS_MAX {
        silent.push(TcpStream::connect(addr).await.unwrap());
    }
    let soon = Duration::from_secs(5);
    let asked = timeout(soon, get(addr, "/livez")).await;
    assert_eq!(200, asked.expect("it is answered at once").0);
    let gone = timeout(soon, silent[0].read(&mut [0])).await;
    assert_eq!(0, gone.expect("it is cut").unwrap_or(0));
    for stream in &mut silent[1..] {
        let read = stream.read(&mut [0]).now_or_never();
        assert!(read.is_none(), "{read:?}");
    }
    service.stop().await;
}

/// Goal: what is not meant for the side port is refused, in either version of HTTP.
/// Method: a foreign host, none, a web page, another method.
#[tokio::test]
async fn strangers_requests_are_refused() {
    let service = running("").await;
    let addr = service.side_address();
    let cases = [
        (
            403,
            "GET /readyz HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n".to_owned(),
        ),
        (403, "GET /readyz HTTP/1.0\r\n\r\n".to_owned()),
        // A status of gRPC, in headers alone.
        (
            200,
            format!(
                "POST /gantry.admin.v1.AdminService/Drain HTTP/1.1\r\nhost: {addr}\r\n\
                 origin: https://evil.example\r\ncontent-type: application/grpc\r\n\
                 content-length: 5\r\nconnection: close\r\n\r\n\0\0\0\0\0"
            ),
        ),
        (
            405,
            format!("DELETE /readyz HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n"),
        ),
    ];
    for (code, head) in cases {
        assert_eq!(code, exchange(addr, &head).await.0, "{head}");
    }
    let foreign = Endpoint::from_shared(format!("http://{addr}"))
        .unwrap()
        .origin("http://evil.example".parse().unwrap());
    let mut client = AdminServiceClient::new(foreign.connect().await.unwrap());
    let refused = client.drain(DrainRequest {}).await.unwrap_err();
    assert_eq!(Code::PermissionDenied, refused.code());
    assert!(service.health().is_ready());
    service.stop().await;
}

/// Goal: operators see who the process is, what it serves, and who is connected.
/// Method: one open stream on the main port, then ask.
#[tokio::test]
async fn a_process_tells_who_it_is_and_who_is_connected() {
    let service = running("").await;
    let mut admin = admin(&service).await;
    let mut channel: Channel = service.client();
    let hanging = hang(&mut channel).await;

    let info = admin
        .get_info(GetInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        ("probe", "1.2.3"),
        (info.name.as_str(), info.version.as_str())
    );
    assert_eq!(service.address().to_string(), info.address);
    assert_eq!(ProcessState::Serving, info.state());
    assert_eq!(vec!["test.Probe"], info.services);
    assert_eq!((std::process::id(), 1), (info.pid, info.config_version));
    // The stream, and the client's own watch of health.
    assert!(info.calls_in_flight >= 1, "{info:?}");
    assert!(info.rss_bytes > 1_000_000, "{info:?}");

    let asked = ListConnectionsRequest {};
    let connections = admin.list_connections(asked).await.unwrap().into_inner();
    let open = &connections.connections[0];
    assert_eq!(
        (service.address().to_string(), false),
        (open.local.clone(), open.tls)
    );
    assert!(
        open.peer.starts_with("127.0.0.1:") && open.calls_started >= 1,
        "{open:?}"
    );
    drop(hanging);
    service.stop().await;
}

/// Goal: operators see the configuration with its origins, and no secret.
/// Method: one key set, one left alone.
#[tokio::test]
async fn the_configuration_is_shown_with_its_origins() {
    let service = running("[listen]\ninsecure = true").await;
    let mut admin = admin(&service).await;
    let config = admin
        .get_config(GetConfigRequest {})
        .await
        .unwrap()
        .into_inner();
    let key = |name: &str| {
        let key = config.keys.iter().find(|key| key.key == name);
        key.unwrap_or_else(|| panic!("no {name} in {config:?}"))
    };
    let set = key("listen.insecure");
    assert_eq!(
        ("true", Reload::Restart),
        (set.value.as_str(), set.reload())
    );
    assert!(set.origin.starts_with("test:2"), "{}", set.origin);
    let left = key("limits.streams_max");
    assert_eq!(
        ("100", "default"),
        (left.value.as_str(), left.origin.as_str())
    );
    assert!(
        left.description.starts_with("Calls open at once"),
        "{left:?}"
    );
    service.stop().await;
}

/// Goal: the endpoints of the service's own clients are listed, and a target that is down is
/// reported as a check and gates nothing.
/// Method: a client of an address nobody listens at.
#[tokio::test]
async fn clients_and_their_endpoints_are_listed() {
    let start = async |app: &mut App<()>| -> Result<(), BoxError> {
        app.serve(Probe);
        let _catalog: Channel = app.client("catalog");
        let _again: Channel = app.client("catalog");
        Ok(())
    };
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = closed.local_addr().unwrap();
    drop(closed);
    let toml = format!("[clients.catalog]\ntarget = '{target}'");
    let service = testing::Service::start(IDENTITY, &toml, start)
        .await
        .unwrap();
    let mut admin = admin(&service).await;

    let asked = ListEndpointsRequest {
        client: "catalog".to_owned(),
    };
    let listed = loop {
        let listed = admin
            .list_endpoints(asked.clone())
            .await
            .unwrap()
            .into_inner();
        if !listed.endpoints.is_empty() {
            break listed;
        }
        tokio::task::yield_now().await;
    };
    let endpoint = &listed.endpoints[0];
    assert_eq!(
        (target.to_string(), "catalog"),
        (endpoint.address.clone(), endpoint.client.as_str())
    );
    let other = ListEndpointsRequest {
        client: "orders".to_owned(),
    };
    let listed = admin.list_endpoints(other).await.unwrap().into_inner();
    assert!(listed.endpoints.is_empty(), "{listed:?}");

    let checks = loop {
        let checks = admin
            .list_health_checks(ListHealthChecksRequest {})
            .await
            .unwrap()
            .into_inner();
        if checks.checks[0].check_time.is_some() {
            break checks;
        }
        tokio::task::yield_now().await;
    };
    let check = &checks.checks[0];
    assert_eq!(
        ("catalog", "dependency", false),
        (check.name.as_str(), check.kind.as_str(), check.gates)
    );
    assert_eq!(health_check::Status::Failing, check.status());
    assert!(checks.services["test.Probe"].serving, "{checks:?}");
    assert!(service.health().is_ready());
    service.stop().await;
}

/// Goal: the log level is read and changed, and a bad one changes nothing.
/// Method: set, read back, set a bad one, read back.
#[tokio::test]
async fn the_log_level_is_changed_over_the_side_port() {
    let service = running("").await;
    let mut admin = admin(&service).await;
    let before = admin
        .get_log_level(GetLogLevelRequest {})
        .await
        .unwrap()
        .into_inner()
        .filter;
    let asked = SetLogLevelRequest {
        filter: "warn,h2=off".to_owned(),
    };
    let set = admin.set_log_level(asked).await.unwrap().into_inner();
    assert_eq!(before, set.previous_filter);
    for bad in ["inof", "", &"x".repeat(5_000)] {
        let asked = SetLogLevelRequest {
            filter: bad.to_owned(),
        };
        let refused = admin.set_log_level(asked).await.unwrap_err();
        assert_eq!(Code::InvalidArgument, refused.code());
    }
    let now = admin
        .get_log_level(GetLogLevelRequest {})
        .await
        .unwrap()
        .into_inner()
        .filter;
    assert_eq!("warn,h2=off", now);
    let asked = SetLogLevelRequest { filter: before };
    admin.set_log_level(asked).await.unwrap();
    service.stop().await;
}

/// Goal: `Drain` ends the process as a signal does, twice is once, and the journal tells of it to
/// who follows it, until the side port goes last.
/// Method: follow the journal to its end while another drains.
#[tokio::test]
async fn drain_is_told_by_the_journal_until_the_end() {
    let service = running("").await;
    let mut admin = admin(&service).await;
    let asked = WatchJournalRequest::default();
    let mut journal = admin.watch_journal(asked).await.unwrap().into_inner();

    let first = admin.drain(DrainRequest {}).await.unwrap().into_inner();
    let second = admin.drain(DrainRequest {}).await.unwrap().into_inner();
    assert_eq!(first.begin_time, second.begin_time);
    assert!(first.bound.unwrap().seconds >= 20, "{first:?}");
    assert_eq!("asked over the side port", service.stopped().await);
    service.stop().await;

    let mut kinds = Vec::new();
    while let Ok(Some(message)) = journal.message().await {
        let Some(Event::Entry(entry)) = message.event else {
            panic!("{message:?}");
        };
        kinds.push(entry.kind);
    }
    assert_eq!("starting", kinds[0]);
    let at = |kind: &str| {
        kinds
            .iter()
            .position(|k| k == kind)
            .unwrap_or_else(|| panic!("{kinds:?}"))
    };
    let order = ["starting", "serving", "draining", "drain_phase", "stopped"];
    assert!(order.map(at).is_sorted(), "{kinds:?}");
}

//! Answers that a gateway gives once more while a backend cannot.

use std::time::Duration;

use gantry::client::Channel;
use gantry_harness::wait;
use gateway_echo::{
    EchoRequest, EchoResponse, HiddenRequest, SecretRequest, echo_service_client::EchoServiceClient,
};
use http::{Method, Request as Plain, StatusCode};
use serde_json::json;
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status};

use crate::{
    access::TOKENS,
    catalogue::Wire,
    support::{self, ECHO, Edge, gateway, services},
    token::{good, token},
};

const ALL: &str = "[policies.'echo.v1.EchoService/*']\nstale_cache = { age_max = '5m' }\n";
const PATH: &str = "/echo.v1.EchoService/Echo";

async fn echo(
    client: &mut EchoServiceClient<Channel>,
    note: &str,
) -> Result<Response<EchoResponse>, Status> {
    let request = EchoRequest {
        note: note.to_owned(),
        ..EchoRequest::default()
    };
    client.echo(request).await
}

/// A call of gRPC-Web with a note, and Connect's of the same.
fn framed(note: &str) -> Vec<u8> {
    let length = u8::try_from(note.len()).unwrap();
    let message = [&[0x12, length], note.as_bytes()].concat();
    [&[0, 0, 0, 0, length + 2], &*message].concat()
}

/// Goal: while a service is down, and once it is not even registered any more, what only reads is answered
/// by its last answer and says so, in every protocol; what nobody asked before, writes and other methods
/// are not. Once the service is there again, its own answers are given.
/// Method: an echo that is stopped, then taken out of the directory; each protocol asks in its own form.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_down_is_stood_in_for() {
    let mut edge = Edge::with(ALL).await;
    let mut client: EchoServiceClient<Channel> = edge.gateway.client_without_retries();
    let web = |edge: &Edge| {
        let request = edge.request(Method::POST, PATH);
        request.header("content-type", "application/grpc-web+proto")
    };
    let first = echo(&mut client, "asked").await.unwrap();
    assert!(!first.metadata().contains_key("gantry-stale"));
    client.hidden(HiddenRequest::default()).await.unwrap();
    let fresh = edge.get("/v1/echo?note=asked").await;
    assert_eq!(
        (None, None),
        (fresh.header("gantry-stale"), fresh.header("age"))
    );
    edge.send(web(&edge), framed("asked")).await;

    edge.stop_echo().await;
    for registered in [true, false] {
        if !registered {
            edge.registered.send_replace(Some(services(&[])));
            let document = async || {
                let document = edge.get("/openapi.json").await;
                (!document.text().contains("/v1/echo")).then_some(())
            };
            wait::until("the service to be gone", wait::SOON, document).await;
        }
        let answer = echo(&mut client, "asked").await.unwrap();
        let age = answer.metadata().get("gantry-stale").unwrap();
        let age: u64 = age.to_str().unwrap().parse().unwrap();
        assert!(age < 300, "{age}");
        assert_eq!("asked", answer.into_inner().note);
        let refused = echo(&mut client, "never asked").await.unwrap_err();
        assert_eq!(Code::Unavailable, refused.code(), "{refused:?}");
        let refused = client.hidden(HiddenRequest::default()).await.unwrap_err();
        assert_eq!(Code::Unavailable, refused.code(), "{refused:?}");

        let json = edge.get("/v1/echo?note=asked").await;
        let connect = edge.post(PATH, json!({"note": "asked"}).to_string()).await;
        for answer in [json, connect] {
            assert_eq!(StatusCode::OK, answer.status, "{answer:?}");
            assert_eq!("asked", answer.json()["note"]);
            assert!(answer.header("gantry-stale").is_some(), "{answer:?}");
            assert_eq!(answer.header("gantry-stale"), answer.header("age"));
            assert_eq!(1, answer.headers.get_all("gantry-stale").iter().count());
        }
        let answer = edge.send(web(&edge), framed("asked")).await;
        assert!(answer.header("gantry-stale").is_some(), "{answer:?}");
        assert!(answer.body.starts_with(&framed("asked")), "{answer:?}");
        for path in ["/v1/echo?note=never", "/v1/sums"] {
            let answer = edge.get(path).await;
            assert_ne!(StatusCode::OK, answer.status, "{path}: {answer:?}");
        }
    }
    let side = format!("http://{}/metrics", edge.gateway.side_address());
    let metrics = edge.send(Plain::builder().uri(side), "").await;
    for told in ["answers_total{reason=\"overload\"} ", "entries ", "bytes "] {
        let name = format!("gateway_stale_{told}");
        let mut lines = metrics.text().lines();
        let value = lines.find_map(|it| it.strip_prefix(&*name)).expect(&name);
        assert_ne!("0", value, "{name}");
    }
}

/// Goal: nobody is given an answer that was another's, and nobody is let in by one that is kept.
/// Method: ada asks for what is hers; then its service is down, and ada, eve and nobody ask.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_for_whoever_asked() {
    let mut edge = Edge::with(&format!("{TOKENS}{ALL}")).await;
    let get = async |edge: &Edge, token: Option<&str>| {
        let mut request = edge.request(Method::GET, "/v1/secret");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        edge.send(request, "").await
    };
    let ada = good();
    let eve = token(1, &json!({}), &json!({ "sub": "eve" }));
    wait::until("the keys of the issuer", wait::SOON, async || {
        (get(&edge, Some(&ada)).await.status == StatusCode::OK).then_some(())
    })
    .await;
    edge.stop_echo().await;
    let answer = get(&edge, Some(&ada)).await;
    assert_eq!(StatusCode::OK, answer.status, "{answer:?}");
    assert!(answer.header("gantry-stale").is_some(), "{answer:?}");
    let answer = get(&edge, Some(&eve)).await;
    assert_eq!(StatusCode::SERVICE_UNAVAILABLE, answer.status, "{answer:?}");
    let answer = get(&edge, None).await;
    assert_eq!(StatusCode::UNAUTHORIZED, answer.status, "{answer:?}");
    let mut client: EchoServiceClient<Channel> = edge.gateway.client_without_retries();
    let mut request = Request::new(SecretRequest {});
    let value = format!("Bearer {eve}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    let refused = client.secret(request).await.unwrap_err();
    assert_eq!(Code::Unavailable, refused.code(), "{refused:?}");
}

/// Goal: a backend that does not answer is stood in for before its caller stops waiting.
/// Method: an echo behind a wire that is let hang once it has answered; calls with a second, by gRPC and
/// by JSON.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_hangs_is_stood_in_for_in_time() {
    let wire = Wire::start().await;
    let (backend, dropped) = support::echo().await;
    wire.leads_to.send_replace(Some(backend.address()));
    let (registered, known) = watch::channel(Some(services(&[(ECHO, "echo")])));
    let edge = Edge {
        gateway: gateway(&[("echo", wire.address)], known, ALL).await,
        echo: backend,
        dropped,
        registered,
    };
    let mut client: EchoServiceClient<Channel> = edge.gateway.client_without_retries();
    wait::until("an answer", wait::SOON, async || {
        echo(&mut client.clone(), "asked").await.ok()
    })
    .await;
    assert_eq!(StatusCode::OK, edge.get("/v1/echo?note=asked").await.status);
    wire.is_hung.send_replace(true);
    let mut request = Request::new(EchoRequest {
        note: "asked".to_owned(),
        ..EchoRequest::default()
    });
    request.set_timeout(Duration::from_secs(1));
    let answer = client.echo(request).await.unwrap();
    assert!(answer.metadata().contains_key("gantry-stale"));
    let request = edge.request(Method::GET, "/v1/echo?note=asked");
    let answer = edge.send(request.header("grpc-timeout", "1S"), "").await;
    assert_eq!(StatusCode::OK, answer.status, "{answer:?}");
    assert!(answer.header("gantry-stale").is_some(), "{answer:?}");
}

/// Goal: nothing is kept where no policy says so.
/// Method: a gateway without one; its service is asked and stopped.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_policy_nothing_is_kept() {
    let mut edge = Edge::start().await;
    assert_eq!(StatusCode::OK, edge.get("/v1/echo?note=asked").await.status);
    edge.stop_echo().await;
    let answer = edge.get("/v1/echo?note=asked").await;
    assert_eq!(StatusCode::SERVICE_UNAVAILABLE, answer.status, "{answer:?}");
}

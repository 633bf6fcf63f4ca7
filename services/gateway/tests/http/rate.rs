//! How many calls a client may make through a gateway.

use gantry::client::Channel;
use gantry_harness::wait;
use gateway_echo::{
    CountRequest, CountResponse, HiddenRequest, echo_service_client::EchoServiceClient,
};
use http::{Method, StatusCode};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet};
use tonic::{Code, Request, Status, Streaming};

use crate::{
    access::TOKENS,
    support::{Answer, Edge, slow},
    token::token,
};

async fn get(edge: &Edge, path: &str, forwarded: &[&str]) -> Answer {
    let mut request = edge.request(Method::GET, path);
    for value in forwarded {
        request = request.header("x-forwarded-for", *value);
    }
    edge.send(request, "").await
}

/// Goal: a client that has spent its quota is refused in each protocol, and told when to come back;
/// other methods are not affected, and nothing a client writes helps it.
/// Method: quotas for two methods of an echo; calls beyond them by JSON and gRPC, with made-up ways.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_its_quota() {
    let settings = "[policies.'echo.v1.EchoService/Echo']\nrate = ['3/1h per address']\n\
                    [policies.'echo.v1.EchoService/Hidden']\nrate = ['2/1h per address']\n";
    let edge = Edge::with(settings).await;
    for _ in 0..3 {
        let answer = get(&edge, "/v1/echo/a", &[]).await;
        assert_eq!(StatusCode::OK, answer.status, "{answer:?}");
    }
    for forwarded in [&[][..], &["198.51.100.7"], &["198.51.100.8, 127.0.0.1"]] {
        let answer = get(&edge, "/v1/echo/a", forwarded).await;
        assert_eq!(StatusCode::TOO_MANY_REQUESTS, answer.status, "{answer:?}");
        let pause: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1_100..=1_200).contains(&pause), "{pause}");
        let details = answer.json()["details"].clone();
        let reasons = details.as_array().unwrap().iter();
        let reasons: Vec<_> = reasons.filter_map(|it| it["reason"].as_str()).collect();
        assert_eq!(["RATE_LIMIT"].as_slice(), reasons, "{answer:?}");
    }
    let mut client: EchoServiceClient<Channel> = edge.gateway.client();
    for _ in 0..2 {
        client.hidden(HiddenRequest::default()).await.unwrap();
    }
    let mut request = Request::new(HiddenRequest::default());
    let way = "198.51.100.7".parse().unwrap();
    request.metadata_mut().insert("x-forwarded-for", way);
    let refused = client.hidden(request).await.unwrap_err();
    assert_eq!(Code::ResourceExhausted, refused.code(), "{refused:?}");
    assert!(refused.metadata().contains_key("grpc-retry-pushback-ms"));
    let answer = get(&edge, "/v1/count/1", &[]).await;
    assert_eq!(StatusCode::OK, answer.status, "{answer:?}");
}

/// Goal: behind a proxy each of its clients has a quota, and what a client wrote itself does not
/// count.
/// Method: loopback is a trusted proxy; three clients, one of which says to be somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn clients_behind_a_proxy_are_told_apart() {
    let settings = "[policies.'*']\nrate = ['1/1h per address']\n\
                    [rate]\nproxies = ['127.0.0.0/8']\n";
    let edge = Edge::with(settings).await;
    for (forwarded, status) in [
        (&["198.51.100.7"][..], StatusCode::OK),
        (&["198.51.100.7"], StatusCode::TOO_MANY_REQUESTS),
        (
            &["203.0.113.1, 198.51.100.7"],
            StatusCode::TOO_MANY_REQUESTS,
        ),
        (
            &["203.0.113.1", "198.51.100.7"],
            StatusCode::TOO_MANY_REQUESTS,
        ),
        (&["198.51.100.8"], StatusCode::OK),
        (&["198.51.100.7, 127.0.0.9"], StatusCode::TOO_MANY_REQUESTS),
    ] {
        let answer = get(&edge, "/v1/echo/a", forwarded).await;
        assert_eq!(status, answer.status, "{forwarded:?}: {answer:?}");
    }
}

/// Goal: whom a token speaks for has a quota, with whatever token of theirs, and is refused for it alone:
/// what an identity is refused costs its address nothing, and nobody else.
/// Method: three people at one address, which may make one call more than two of them together.
#[tokio::test(flavor = "multi_thread")]
async fn whom_a_token_speaks_for_has_a_quota() {
    let settings = format!(
        "{TOKENS}[policies.'echo.v1.EchoService/Secrets']\n\
         rate = ['2/1h per identity', '5/1h per address']\n"
    );
    let edge = Edge::with(&settings).await;
    let get = async |path: &str, subject: &str| {
        let token = token(1, &json!({}), &json!({ "sub": subject }));
        let request = edge.request(Method::GET, path);
        let request = request.header("authorization", format!("Bearer {token}"));
        edge.send(request, "").await.status
    };
    wait::until("the keys of the issuer", wait::SOON, async || {
        (get("/v1/secret", "ada").await == StatusCode::OK).then_some(())
    })
    .await;
    let (good, refused) = (StatusCode::OK, StatusCode::TOO_MANY_REQUESTS);
    for subject in ["ada", "eve"] {
        for expected in [good, good, refused, refused, refused] {
            assert_eq!(expected, get("/v1/secrets", subject).await, "{subject}");
        }
    }
    for expected in [good, refused] {
        assert_eq!(expected, get("/v1/secrets", "bob").await);
    }
}

/// A stream that stays open, as somebody behind a proxy asks for it.
async fn count(edge: &Edge, client: &str) -> Result<Streaming<CountResponse>, Status> {
    let mut counting: EchoServiceClient<Channel> = edge.gateway.client();
    let mut request = Request::new(CountRequest {
        messages: 1,
        hang: true,
        ..CountRequest::default()
    });
    let client = client.parse().unwrap();
    request.metadata_mut().insert("x-forwarded-for", client);
    counting
        .count(request)
        .await
        .map(tonic::Response::into_inner)
}

/// Goal: nobody takes the room for the streams of all; what is not a stream is not bounded by it, and
/// a stream that ends gives its place back, in each protocol.
/// Method: two clients of a gateway that lets each have two, by gRPC and by JSON.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_so_many_streams() {
    let settings = "[streams]\nper_client_max = 2\n[rate]\nproxies = ['127.0.0.0/8']\n";
    let edge = Edge::with(settings).await;
    let (one, two) = ("198.51.100.7", "198.51.100.8");
    let first = count(&edge, one).await.unwrap();
    let _second = count(&edge, one).await.unwrap();
    let refused = count(&edge, one).await.unwrap_err();
    assert_eq!(Code::ResourceExhausted, refused.code(), "{refused:?}");
    assert!(refused.message().contains("streams.per_client_max"));
    let by_json = get(&edge, "/v1/count/1", &[one]).await;
    assert_eq!(StatusCode::TOO_MANY_REQUESTS, by_json.status, "{by_json:?}");
    assert_eq!(Some("5"), by_json.header("retry-after"), "{by_json:?}");

    let unary = get(&edge, "/v1/echo/a", &[one]).await;
    assert_eq!(StatusCode::OK, unary.status, "{unary:?}");
    let _other = count(&edge, two).await.unwrap();

    drop(first);
    let again = async || count(&edge, one).await.ok();
    drop(wait::until("a place that was given back", wait::SOON, again).await);
    // The second place of the other, used again and again.
    for _ in 0..5 {
        let ended = get(&edge, "/v1/count/1", &[two]).await;
        assert_eq!(StatusCode::OK, ended.status, "{ended:?}");
    }
}

/// Goal: calls whose message does not come count as streams, so that nobody takes the room of all with
/// them; one that comes gives its place back.
/// Method: three heads of unary calls of gRPC without a message, of a gateway that lets a client have
/// two: one of them is refused. A message for one of the others, a call that is whole, and then two
/// heads more: again one is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_so_many_calls_that_do_not_come() {
    let edge = Edge::with("[streams]\nper_client_max = 2\n").await;
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let mut calls = JoinSet::new();
    let mut pieces = Vec::new();
    let mut call = |calls: &mut JoinSet<_>| {
        let request = edge.request(Method::POST, "/echo.v1.EchoService/Hidden");
        let request = request.header("content-type", "application/grpc");
        let (sender, request) = slow(request.header("te", "trailers"));
        let number = pieces.len();
        pieces.push(sender);
        let answer = client.request(request);
        calls.spawn(async move { (number, answer.await.unwrap()) });
    };
    let status = |answer: &http::Response<_>| {
        let status = answer.headers().get("grpc-status")?;
        Some(status.to_str().unwrap().to_owned())
    };
    for _ in 0..3 {
        call(&mut calls);
    }
    let (refused, answer) = calls.join_next().await.unwrap().unwrap();
    assert_eq!(Some("8"), status(&answer).as_deref(), "{answer:?}");
    call(&mut calls);
    let (again, answer) = calls.join_next().await.unwrap().unwrap();
    assert_eq!((3, Some("8")), (again, status(&answer).as_deref()));

    let other = (0..3).find(|number| *number != refused).unwrap();
    pieces[other].send(vec![0; 5].into()).await.unwrap();
    pieces[other] = mpsc::channel(1).0;
    let (came, answer) = calls.join_next().await.unwrap().unwrap();
    assert_eq!((other, None), (came, status(&answer)));
    let mut whole: EchoServiceClient<Channel> = edge.gateway.client();
    whole.hidden(HiddenRequest::default()).await.unwrap();
}

//! How many calls a client may make through a gateway.

use gantry::client::Channel;
use gateway_echo::{HiddenRequest, echo_service_client::EchoServiceClient};
use http::{Method, StatusCode};
use tonic::{Code, Request};

use crate::support::{Answer, Edge};

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
    let settings = "[rate]\nquotas = ['echo.v1.EchoService/Echo 3/1h', \
                    'echo.v1.EchoService/Hidden 2/1h']\n";
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
    let settings = "[rate]\nquotas = ['* 1/1h']\nproxies = ['127.0.0.0/8']\n";
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

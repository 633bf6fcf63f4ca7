//! Bodies of those who may not call, of those who hold too much, and of those who are slow; and what
//! is no request at all.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time,
};

use crate::support::{Answer, Edge, Slow, slow};

async fn send(request: Request<Slow>) -> Answer {
    let client = Client::builder(TokioExecutor::new()).build_http();
    Answer::of(client.request(request).await.unwrap()).await
}

/// Goal: whoever may not call, or has spent its quota, is told so before its body is read, in each
/// protocol.
/// Method: requests whose bodies never come, without a token and beyond a quota.
#[tokio::test]
async fn who_may_not_call_is_told_before_its_body() {
    let settings = "[tokens]\nkeys = 'echo.v1.EchoService/Keys'\nissuer = 'echo.issuer'\n\
                    audience = 'echo'\n[policies.'echo.v1.EchoService/Echo']\n\
                    rate = ['1/1h per address']\n";
    let edge = Edge::with(settings).await;
    assert_eq!(StatusCode::OK, edge.post("/v1/echo", "{}").await.status);
    let secret = "/echo.v1.EchoService/Secret";
    let echo = "/echo.v1.EchoService/Echo";
    let cases = [
        (Method::GET, "/v1/secret", "application/json", 401),
        (Method::GET, "/v1/secrets", "application/json", 401),
        (Method::POST, secret, "application/json", 401),
        (Method::POST, secret, "application/proto", 401),
        (Method::POST, secret, "application/grpc-web", 16),
        (Method::POST, "/v1/echo", "application/json", 429),
        (Method::POST, echo, "application/json", 429),
        (Method::POST, echo, "application/grpc-web", 8),
    ];
    for (method, path, content_type, expected) in cases {
        let request = edge.request(method, path);
        let (_pieces, request) = slow(request.header("content-type", content_type));
        // Far less than a body may take.
        let answer = time::timeout(Duration::from_secs(8), send(request)).await;
        let answer = answer.unwrap_or_else(|_| panic!("{path} {content_type}: its body is read"));
        let status = answer.header("grpc-status").map(str::to_owned);
        let status = status.unwrap_or_else(|| answer.status.as_str().to_owned());
        assert_eq!(
            expected.to_string(),
            status,
            "{path} {content_type}: {answer:?}"
        );
    }
}

/// Goal: one client cannot have all the room that there is for bodies.
/// Method: two behind a proxy; one holds nearly its share in a body that does not end, and wants as
/// much again, until one of both is refused; the other has room all the while.
#[tokio::test]
async fn a_client_has_its_share_of_room() {
    let settings = "[http]\nbody_bytes_max = '4MiB'\n[rate]\nproxies = ['127.0.0.0/8']\n";
    let edge = Edge::with(settings).await;
    let request = |client: &str| {
        let request = edge.request(Method::POST, "/v1/echo");
        let request = request.header("content-type", "application/json");
        request.header("x-forwarded-for", client)
    };
    let much = Bytes::from(vec![b' '; 900_000]);
    let (pieces, first) = slow(request("198.51.100.7"));
    let mut first_sent = JoinSet::new();
    first_sent.spawn(send(first));
    pieces.send(much.clone()).await.unwrap();
    let refused = async {
        loop {
            let answer = edge.send(request("198.51.100.7"), much.clone()).await;
            if answer.status == StatusCode::SERVICE_UNAVAILABLE {
                return answer;
            }
            if let Some(first) = first_sent.try_join_next() {
                return first.unwrap();
            }
            let body = [&much[..], b"{}"].concat();
            let other = edge.send(request("198.51.100.8"), body).await;
            assert_eq!(StatusCode::OK, other.status, "{other:?}");
        }
    };
    let refused = time::timeout(Duration::from_secs(8), refused).await;
    let refused = refused.expect("one client has more than its share");
    assert_eq!(
        StatusCode::SERVICE_UNAVAILABLE,
        refused.status,
        "{refused:?}"
    );
    let text = refused.text();
    assert!(text.contains("http.body_client_percent"), "{text}");
    assert_eq!(Some("1"), refused.header("retry-after"));
    let body = [&much[..], b"{}"].concat();
    let other = edge.send(request("198.51.100.8"), body).await;
    assert_eq!(StatusCode::OK, other.status, "{other:?}");
    // Small ones find room all the same, and alone one may be larger than a share.
    let small = edge.send(request("198.51.100.7"), "{}").await;
    assert_eq!(StatusCode::OK, small.status, "{small:?}");
    let body = [&much[..], &much[..], b"{}"].concat();
    let large = edge.send(request("198.51.100.9"), body).await;
    assert_eq!(StatusCode::OK, large.status, "{large:?}");
}

/// Goal: a body that does not come on is refused in the form of its protocol, and its connection ends.
/// Method: the beginning of a body in each, over HTTP/1.1; all that comes back, to the end.
#[tokio::test]
async fn a_body_that_stalls_is_refused_in_its_own_form() {
    let edge = Edge::with("[http]\nbody_stall_max = '200ms'").await;
    let head = "HTTP/1.1 408 Request Timeout\r\n";
    let path = "/echo.v1.EchoService/Echo";
    let cases = [
        ("/v1/echo", "application/json", head, "\"code\":4"),
        ("/v1/sum", "application/json", head, "\"code\":4"),
        (
            path,
            "application/json",
            head,
            "\"code\":\"deadline_exceeded\"",
        ),
        (
            path,
            "application/proto",
            head,
            "\"code\":\"deadline_exceeded\"",
        ),
        (
            path,
            "application/grpc-web",
            "HTTP/1.1 200 OK\r\n",
            "grpc-status: 4\r\n",
        ),
        (
            path,
            "application/grpc-web-text",
            "HTTP/1.1 200 OK\r\n",
            "grpc-status: 4\r\n",
        ),
        (
            "/echo.v1.EchoService/Sum",
            "application/grpc-web",
            "HTTP/1.1 200 OK\r\n",
            "grpc-status: 4\r\n",
        ),
    ];
    for (path, content_type, head, part) in cases {
        let mut stream = TcpStream::connect(edge.gateway.address()).await.unwrap();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: {content_type}\r\n\
             content-length: 100\r\n\r\n{{"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        let read = time::timeout(Duration::from_secs(8), read).await;
        read.unwrap_or_else(|_| panic!("{path} {content_type}: the connection stays"))
            .unwrap();
        assert!(answer.starts_with(head), "{path} {content_type}: {answer}");
        assert!(answer.contains(part), "{path} {content_type}: {answer}");
        assert!(
            answer.contains("connection: close\r\n"),
            "{path} {content_type}: {answer}"
        );
    }
}

/// Goal: requests that HTTP/1.1 does not know, or that are for a proxy, are refused in JSON.
/// Method: no host, two, one that is none; CONNECT; and one that is right.
#[tokio::test]
async fn what_is_no_request_to_a_server_is_refused() {
    let edge = Edge::start().await;
    for (request, status, part) in [
        ("GET /v1/echo HTTP/1.1\r\n", "400", "host"),
        (
            "GET /v1/echo HTTP/1.1\r\nhost: a\r\nhost: b\r\n",
            "400",
            "host",
        ),
        ("GET /v1/echo HTTP/1.1\r\nhost: a b\r\n", "400", "host"),
        ("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n", "501", "no proxy"),
        ("GET /v1/echo HTTP/1.1\r\nhost:\r\n", "200", "{}"),
        ("GET /v1/echo HTTP/1.0\r\n", "200", "{}"),
    ] {
        let mut stream = TcpStream::connect(edge.gateway.address()).await.unwrap();
        let request = format!("{request}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        let read = time::timeout(Duration::from_secs(10), read).await;
        read.expect(&request).unwrap();
        let found = answer.split(' ').nth(1);
        assert_eq!(Some(status), found, "{request}: {answer}");
        assert!(
            answer.contains("content-type: application/json"),
            "{answer}"
        );
        assert!(answer.contains(part), "{request}: {answer}");
    }
}

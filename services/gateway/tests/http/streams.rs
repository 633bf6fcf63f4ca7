//! Streams, a message in each line.

use std::{pin::pin, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Method, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet, time};
use tokio_stream::wrappers::ReceiverStream;

use crate::support::{Answer, Edge};

/// Goal: a stream is a line for each message, and how it ended is told, by HTTP before the first and
/// by a last line after it.
/// Method: streams that end well, at once and later, and that fail at once and later.
#[tokio::test]
async fn streams_come_line_by_line_and_end_with_their_status() {
    let edge = Edge::start().await;
    let numbers = edge.get("/v1/count/3").await;
    assert_eq!(Some("application/x-ndjson"), numbers.header("content-type"));
    let expected = "{\"number\":\"1\"}\n{\"number\":\"2\"}\n{\"number\":\"3\"}\n";
    assert_eq!(expected, numbers.text());
    let none = edge.get("/v1/count/0").await;
    assert_eq!((StatusCode::OK, ""), (none.status, none.text()));

    let refused = edge.get("/v1/count/0?code=9").await;
    assert_eq!(StatusCode::BAD_REQUEST, refused.status, "{refused:?}");
    assert_eq!(
        json!({"code": 9, "message": "counted enough", "details": []}),
        refused.json()
    );
    let failed = edge.get("/v1/count/1?code=9").await;
    assert_eq!(StatusCode::OK, failed.status);
    let error = json!({"error": {"code": 9, "message": "counted enough", "details": []}});
    assert_eq!(vec![json!({"number": "1"}), error], failed.lines());
}

/// Goal: a message is there as soon as it was sent; a client that goes away ends the call.
/// Method: a stream that stays silent after two messages, and one that says nothing; let go of.
#[tokio::test]
async fn messages_come_at_once_and_leaving_cancels() {
    let edge = Edge::start().await;
    for (count, lines) in [(2, 2), (0, 0)] {
        let before = edge.dropped.load(Ordering::SeqCst);
        let request = edge.request(Method::GET, &format!("/v1/count/{count}?hang=true"));
        let client = Client::builder(TokioExecutor::new()).build_http();
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let answer = client.request(request).await.unwrap();
        assert_eq!(StatusCode::OK, answer.status());
        let mut body = answer.into_body();
        for number in 1..=lines {
            let frame = body.frame().await.unwrap().unwrap();
            let line = format!("{{\"number\":\"{number}\"}}\n");
            assert_eq!(line.as_bytes(), frame.into_data().unwrap());
        }
        drop((body, client));
        let ended = async {
            while edge.dropped.load(Ordering::SeqCst) == before {
                time::sleep(Duration::from_millis(10)).await;
            }
        };
        time::timeout(Duration::from_secs(10), ended)
            .await
            .expect("the call ends");
    }
}

/// Goal: a stream of requests is a message in each line, however the bytes come.
/// Method: lines whole and in pieces, the last with and without its end, empty ones between.
#[tokio::test]
async fn requests_are_read_line_by_line() {
    let edge = Edge::start().await;
    let bodies: [(&[&str], _); 5] = [
        (
            &["{\"number\": 1}\n{\"number\": \"2\"}\n"],
            json!({"sum": "3", "count": 2}),
        ),
        (
            &["{\"num", "ber\": 1}", "\n", "\r\n{\"number\": 4}"],
            json!({"sum": "5", "count": 2}),
        ),
        (&[], json!({})),
        (&["\n\n  \n"], json!({})),
        (&["{}\n"], json!({"count": 1})),
    ];
    for (pieces, expected) in bodies {
        let pieces = pieces
            .iter()
            .map(|it| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(it.as_bytes()))));
        let body = StreamBody::new(futures_util::stream::iter(pieces.collect::<Vec<_>>()));
        let request = edge.request(Method::POST, "/v1/sum");
        let request = request
            .header("content-type", "application/x-ndjson")
            .body(body)
            .unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let answer = client.request(request).await.unwrap();
        assert_eq!(StatusCode::OK, answer.status());
        let answer = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(
            expected,
            serde_json::from_slice::<serde_json::Value>(&answer).unwrap()
        );
    }
}

/// Goal: a line that is no message ends the call, and names the line; it never ends as if it were
/// whole.
/// Method: a broken line after a good one, for an answer that is one message and one that is a
/// stream; a line that is too long.
#[tokio::test]
async fn a_broken_line_is_named() {
    let edge = Edge::with("[http]\nbody_max = '1KiB'").await;
    let long = format!("{{\"number\": \"{}\"}}", "1".repeat(2_000));
    let cases = [
        (
            "{\"number\": 1}\n{\"number\": \"x\"}\n{\"number\": 1}",
            400,
            "number",
            "line 2: expected a number",
        ),
        (
            "{\"number\": 1}\n{\"nope\": 1}\n",
            400,
            "nope",
            "line 2: echo.v1.SumRequest has no such field",
        ),
        ("{\"number\": 1", 400, "line", "line 1: EOF"),
        (long.as_str(), 413, "", ""),
    ];
    for (body, status, field, text) in cases {
        let request = edge.request(Method::POST, "/v1/sum");
        let request = request.header("content-type", "application/x-ndjson");
        let answer = edge.send(request, body.to_owned()).await;
        assert_eq!(status, answer.status.as_u16(), "{body}: {answer:?}");
        if status == 400 {
            let (named, said) = answer.violation();
            assert_eq!(field, named, "{said}");
            assert!(said.contains(text), "{said}");
        }
    }
    let request = edge.request(Method::POST, "/v1/sums?number=1");
    let answer = edge.send(request, "").await;
    assert_eq!(StatusCode::BAD_REQUEST, answer.status, "{answer:?}");
    let request = edge
        .request(Method::POST, "/v1/sum")
        .header("content-type", "text/plain");
    let answer = edge.send(request, "{}").await;
    assert_eq!(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        answer.status,
        "{answer:?}"
    );
}

/// Goal: a stream both ways answers while it is asked, also over HTTP/1.1; a line that is wrong ends
/// it with a last line.
/// Method: a line at a time, each after the answer to the one before.
#[tokio::test]
async fn both_ways_at_once() {
    let edge = Edge::start().await;
    let (lines, sent) = mpsc::channel(1);
    let sent = ReceiverStream::new(sent)
        .map(|line: &str| Ok::<_, std::io::Error>(Frame::data(Bytes::from(line.to_owned()))));
    let request = edge.request(Method::POST, "/v1/sums");
    let request = request
        .header("content-type", "application/x-ndjson")
        .body(StreamBody::new(sent))
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    lines.send("{\"number\": 1}\n").await.unwrap();
    let answer = client.request(request).await.unwrap();
    let mut body = answer.into_body();
    let mut next = async || {
        body.frame()
            .await
            .map(|frame| frame.unwrap().into_data().unwrap())
    };
    assert_eq!(Some("{\"sum\":\"1\"}\n".into()), next().await);
    lines.send("{\"number\": 2}\n").await.unwrap();
    assert_eq!(Some("{\"sum\":\"3\"}\n".into()), next().await);
    lines.send("{\"number\": 2.5}\n").await.unwrap();
    let last = next().await.unwrap();
    let last: serde_json::Value = serde_json::from_slice(&last).unwrap();
    assert_eq!(3, last["error"]["code"], "{last}");
    assert!(next().await.is_none());
}

/// Goal: a call with one answer ends in time, whoever holds it up, and says so in JSON.
/// Method: a stream of requests that does not end.
#[tokio::test]
async fn a_call_with_one_answer_ends_in_time() {
    let edge = Edge::with("[http]\ntimeout = '200ms'").await;
    let (pieces, request) = edge.slow("/v1/sum", "application/json");
    pieces.send("{\"number\": 1}\n".into()).await.unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request).await.unwrap();
    assert_eq!(StatusCode::GATEWAY_TIMEOUT, answer.status());
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(4, body["code"], "{body}");
}

/// Goal: what is held of all bodies is bounded, and who finds no room learns when to come back.
/// Small ones always find room. Method: most of what is allowed in one body that does not end, then
/// another, until one of them found no room; a small one all the while; and again without the first.
#[tokio::test]
async fn bodies_are_bounded_for_all_requests_together() {
    let edge = Edge::with("[http]\nbody_bytes_max = '1MiB'\nbody_client_percent = 100").await;
    let (pieces, request) = edge.slow("/v1/echo", "application/json");
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut first = JoinSet::new();
    first.spawn(client.request(request));
    pieces.send(vec![b' '; 900_000].into()).await.unwrap();
    let refused = async {
        loop {
            let small = edge.post("/v1/echo", format!("{}{{}}", " ".repeat(10_000)));
            assert_eq!(StatusCode::OK, small.await.status);
            let mut answer = edge.post("/v1/echo", vec![b' '; 900_000]).await;
            if let Some(first) = first.try_join_next() {
                answer = Answer::of(first.unwrap().unwrap()).await;
            }
            if answer.status == StatusCode::SERVICE_UNAVAILABLE {
                return answer;
            }
        }
    };
    let refused = time::timeout(Duration::from_secs(10), refused).await;
    let refused = refused.expect("no room for both");
    let text = refused.text();
    assert!(text.contains("http.body_bytes_max"), "{text}");
    assert_eq!(Some("1"), refused.header("retry-after"));
    // Alone, one may be as large as it may be.
    drop(pieces);
    first.join_all().await;
    let body = format!("{}{{}}", " ".repeat(2_000_000));
    assert_eq!(StatusCode::OK, edge.post("/v1/echo", body).await.status);
}

/// Goal: who is refused while it still writes is heard to its end, also where HTTP knows no refusal: a
/// connection that is closed before may tell it nothing.
/// Method: the beginning of a message that is larger than any may be, in gRPC-Web; pieces of it after
/// the answer began.
#[tokio::test]
async fn a_refused_stream_is_heard_to_its_end() {
    let edge = Edge::start().await;
    let path = "/echo.v1.EchoService/Sum";
    let (pieces, request) = edge.slow(path, "application/grpc-web");
    let client = Client::builder(TokioExecutor::new()).build_http();
    pieces.send(vec![0, 1, 0, 0, 0].into()).await.unwrap();
    let answer = client.request(request).await.unwrap();
    let mut body = pin!(Answer::of(answer));
    for _ in 0..5 {
        // It may be answered, and not over.
        tokio::select! {
            biased;
            answer = &mut body => panic!("over: {answer:?}"),
            sent = pieces.send(vec![0; 100_000].into()) => sent.unwrap(),
        }
        time::sleep(Duration::from_millis(20)).await;
    }
    drop(pieces);
    let answer = body.await;
    let status = answer.header("grpc-status").map(str::to_owned);
    let status = status.unwrap_or_else(|| String::from_utf8_lossy(&answer.body).into_owned());
    assert!(
        status == "8" || status.contains("grpc-status: 8\r\n"),
        "{answer:?}"
    );
}

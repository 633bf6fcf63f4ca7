//! What browsers speak: gRPC-Web, Connect, and questions before questions.

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use futures_util::stream;
use gantry::contract::prost::Message;
use gateway_echo::{CountRequest, CountResponse, EchoRequest, EchoResponse, FailRequest};
use http::{Method, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::json;

use crate::support::{Answer, Edge};

fn framed(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    frame
}

/// The frames of an answer: their flags, and what is in them.
fn frames(mut body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(([flags, length @ ..], rest)) = body.split_first_chunk::<5>() {
        let (frame, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        frames.push((*flags, frame.to_vec()));
        body = rest;
    }
    assert!(body.is_empty(), "half a frame: {body:?}");
    frames
}

async fn web(edge: &Edge, method: &str, content_type: &str, body: Vec<u8>) -> Answer {
    let path = format!("/echo.v1.EchoService/{method}");
    let request = edge.request(Method::POST, &path);
    let request = request
        .header("content-type", content_type)
        .header("x-grpc-web", "1");
    edge.send(request, body).await
}

/// The groups of base64 in a body, each decoded.
fn decoded(body: &[u8]) -> Vec<u8> {
    let parts = body.chunk_by(|one, next| *one != b'=' || *next == b'=');
    parts
        .flat_map(|part| BASE64_STANDARD.decode(part).unwrap())
        .collect()
}

/// Goal: calls of one message and streams come as frames, and end with one of trailers; as text all
/// of it is base64.
/// Method: an echo, a stream, one that fails, in each form.
#[tokio::test]
async fn grpc_web_ends_with_its_status() {
    let edge = Edge::start().await;
    for (content_type, is_text) in [
        ("application/grpc-web", false),
        ("application/grpc-web+proto", false),
        ("application/grpc-web-text", true),
        ("Application/gRPC-web-text+proto; charset=utf-8", true),
    ] {
        let call = async |method: &str, body: Vec<u8>| {
            let body = if is_text {
                BASE64_STANDARD.encode(body).into()
            } else {
                body
            };
            let answer = web(&edge, method, content_type, body).await;
            assert_eq!(StatusCode::OK, answer.status, "{answer:?}");
            let said = answer.header("content-type").unwrap();
            assert!(content_type.to_lowercase().starts_with(said), "{said}");
            let bytes = if is_text {
                decoded(&answer.body)
            } else {
                answer.body.to_vec()
            };
            (frames(&bytes), answer.headers)
        };
        let note = "a note".to_owned();
        let request = EchoRequest {
            note,
            ..EchoRequest::default()
        };
        let (frames, _) = call("Echo", framed(&request)).await;
        let [(0, message), (0x80, trailers)] = &frames[..] else {
            panic!("{frames:?}");
        };
        assert_eq!("a note", EchoResponse::decode(&**message).unwrap().note);
        let trailers = String::from_utf8(trailers.clone()).unwrap();
        assert!(trailers.contains("grpc-status: 0\r\n"), "{trailers}");

        let request = CountRequest {
            messages: 2,
            code: 9,
            hang: false,
        };
        let (frames, _) = call("Count", framed(&request)).await;
        let [(0, _), (0, second), (0x80, trailers)] = &frames[..] else {
            panic!("{frames:?}");
        };
        assert_eq!(2, CountResponse::decode(&**second).unwrap().number);
        let trailers = String::from_utf8(trailers.clone()).unwrap();
        assert!(trailers.contains("grpc-status: 9\r\n"), "{trailers}");

        let request = FailRequest {
            code: 5,
            ..FailRequest::default()
        };
        let (frames, headers) = call("Fail", framed(&request)).await;
        assert!(frames.is_empty(), "{frames:?}");
        assert_eq!("5", headers["grpc-status"]);
    }
}

/// Goal: what is not gRPC-Web as it should be is refused, and reaches nobody.
/// Method: another codec, another method of HTTP, text that is none; text in pieces of any size,
/// padded wherever the sender took a breath, is fine.
#[tokio::test]
async fn grpc_web_is_read_strictly() {
    let edge = Edge::start().await;
    let answer = web(&edge, "Echo", "application/grpc-web+json", Vec::new()).await;
    assert_eq!(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        answer.status,
        "{answer:?}"
    );
    let request = edge.request(Method::PUT, "/echo.v1.EchoService/Echo");
    let answer = edge
        .send(request.header("content-type", "application/grpc-web"), "")
        .await;
    assert_eq!(StatusCode::METHOD_NOT_ALLOWED, answer.status, "{answer:?}");
    assert_eq!(Some("POST"), answer.header("allow"));
    for broken in ["AAA", "A*==", "AAAAAAA"] {
        let answer = web(&edge, "Echo", "application/grpc-web-text", broken.into()).await;
        assert_eq!(StatusCode::OK, answer.status, "{answer:?}");
        assert_eq!(
            Some("3"),
            answer.header("grpc-status"),
            "{broken}: {answer:?}"
        );
    }

    let note = "several pieces".to_owned();
    let request = framed(&EchoRequest {
        note,
        ..EchoRequest::default()
    });
    let (head, rest) = request.split_at(7);
    let text = BASE64_STANDARD.encode(head) + &BASE64_STANDARD.encode(rest);
    let pieces: Vec<_> = text
        .as_bytes()
        .chunks(3)
        .map(|it| Ok::<_, std::io::Error>(Frame::data(Bytes::copy_from_slice(it))))
        .collect();
    let request = edge.request(Method::POST, "/echo.v1.EchoService/Echo");
    let request = request.header("content-type", "application/grpc-web-text");
    let request = request.body(StreamBody::new(stream::iter(pieces))).unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request).await.unwrap().into_body();
    let bytes = decoded(&answer.collect().await.unwrap().to_bytes());
    let message = &frames(&bytes)[0].1;
    assert_eq!(
        "several pieces",
        EchoResponse::decode(&**message).unwrap().note
    );
}

/// Goal: Connect calls by POST in both codecs, and by GET where nothing changes.
/// Method: an echo in each form; a method that has no rule of HTTP.
#[tokio::test]
async fn connect_calls_by_post_and_get() {
    let edge = Edge::start().await;
    let echo = "/echo.v1.EchoService/Echo";
    let answer = edge.post(echo, "{\"note\": \"a\"}").await;
    assert_eq!(StatusCode::OK, answer.status, "{answer:?}");
    assert_eq!(json!({"note": "a"}), answer.json());
    assert_eq!(Some("application/json"), answer.header("content-type"));

    let message = EchoRequest {
        note: "b".to_owned(),
        ..EchoRequest::default()
    }
    .encode_to_vec();
    let request = edge
        .request(Method::POST, echo)
        .header("content-type", "application/proto");
    let answer = edge.send(request, message.clone()).await;
    assert_eq!("b", EchoResponse::decode(answer.body).unwrap().note);

    let encoded = BASE64_URL_SAFE_NO_PAD.encode(&message);
    let gets = [
        format!("{echo}?connect=v1&encoding=json&message=%7B%22note%22:%22b%22%7D"),
        format!("{echo}?message=eyJub3RlIjoiYiJ9&encoding=json&base64=1"),
        format!("{echo}?base64=1&encoding=proto&message={encoded}&compression=identity"),
    ];
    for (path, is_json) in gets.iter().zip([true, true, false]) {
        let answer = edge.get(path).await;
        assert_eq!(StatusCode::OK, answer.status, "{path}: {answer:?}");
        if is_json {
            assert_eq!(json!({"note": "b"}), answer.json());
        } else {
            assert_eq!("b", EchoResponse::decode(answer.body).unwrap().note);
        }
    }
    let answer = edge
        .post("/echo.v1.EchoService/Hidden", "{\"data\": \"AQ==\"}")
        .await;
    assert_eq!(json!({"data": "AQ=="}), answer.json());
}

/// A method, a header, a body, and what comes of it.
type Refused = (
    &'static str,
    (&'static str, &'static str),
    &'static str,
    u16,
    &'static str,
);

const REFUSED: [Refused; 9] = [
    ("Echo", VERSION, "{\"nope\": 1}", 400, "invalid_argument"),
    ("Echo", VERSION, "[", 400, "invalid_argument"),
    (
        "Echo",
        ("connect-protocol-version", "2"),
        "{}",
        400,
        "invalid_argument",
    ),
    (
        "Echo",
        ("connect-timeout-ms", "soon"),
        "{}",
        400,
        "invalid_argument",
    ),
    (
        "Echo",
        ("connect-timeout-ms", "12345678901"),
        "{}",
        400,
        "invalid_argument",
    ),
    (
        "Echo",
        ("content-encoding", "gzip"),
        "{}",
        501,
        "unimplemented",
    ),
    ("Fail", VERSION, "{\"code\": 1}", 499, "canceled"),
    ("Fail", VERSION, "{\"code\": 16}", 401, "unauthenticated"),
    ("Nope", VERSION, "{}", 404, "unimplemented"),
];

const VERSION: (&str, &str) = ("connect-protocol-version", "1");

/// GETs of the echo.
const REFUSED_GETS: [(&str, u16, &str); 4] = [
    ("encoding=json", 400, "invalid_argument"),
    (
        "encoding=json&message=%7B%7D&connect=v2",
        400,
        "invalid_argument",
    ),
    ("encoding=json&message=!&base64=1", 400, "invalid_argument"),
    (
        "encoding=json&message=%7B%7D&compression=gzip",
        501,
        "unimplemented",
    ),
];

async fn connect(edge: &Edge, method: &str, header: (&str, &str), body: &str) -> Answer {
    let path = format!("/echo.v1.EchoService/{method}");
    let request = edge.request(Method::POST, &path);
    let request = request.header("content-type", "application/json");
    edge.send(request.header(header.0, header.1), body.to_owned())
        .await
}

/// Goal: what Connect refuses is told in its own form, by code and by status of HTTP.
/// Method: requests that are wrong in each way; a service that fails with details.
#[tokio::test]
async fn connect_refuses_in_its_own_form() {
    let edge = Edge::with("[http]\nbody_max = '1KiB'").await;
    let told = |answer: &Answer, status: u16, code: &str| {
        assert_eq!(status, answer.status.as_u16(), "{answer:?}");
        assert_eq!(code, answer.json()["code"], "{answer:?}");
    };
    for (method, header, body, status, code) in REFUSED {
        told(&connect(&edge, method, header, body).await, status, code);
    }
    for (query, status, code) in REFUSED_GETS {
        let path = format!("/echo.v1.EchoService/Echo?{query}");
        told(&edge.get(&path).await, status, code);
    }
    let long = format!("{{\"note\": \"{}\"}}", "x".repeat(1_100));
    let answer = connect(&edge, "Echo", VERSION, &long).await;
    told(&answer, 413, "resource_exhausted");

    let request = edge.request(Method::POST, "/echo.v1.EchoService/Echo");
    let request = request.header("content-type", "application/proto");
    let answer = edge.send(request, vec![0xff; 3]).await;
    told(&answer, 400, "invalid_argument");

    let body = "{\"code\": 9, \"text\": \"é\", \"details\": 2}";
    let answer = connect(&edge, "Fail", VERSION, body).await;
    let own = json!({"@type": "type.googleapis.com/echo.v1.Inner", "name": "own"});
    let expected = json!({
        "code": "failed_precondition",
        "message": "é",
        "details": [
            {"type": "echo.v1.Inner", "value": "CgNvd24", "debug": own},
            {"type": "nobody.Knows", "value": "AQID"},
        ],
    });
    assert_eq!(expected, answer.json());
}

/// Goal: other methods of HTTP and other types are told apart from what can be had.
/// Method: a GET of what may change something; types that are not spoken, and a stream.
#[tokio::test]
async fn connect_says_what_can_be_had() {
    let edge = Edge::start().await;
    let path = "/echo.v1.EchoService/Fail?encoding=json&message=%7B%7D";
    let changes = edge.get(path).await;
    assert_eq!(
        StatusCode::METHOD_NOT_ALLOWED,
        changes.status,
        "{changes:?}"
    );
    assert_eq!(Some("POST"), changes.header("allow"));
    for (method, content_type) in [
        ("Echo", "text/plain"),
        ("Echo", "application/connect+json"),
        ("Count", "application/json"),
    ] {
        let path = format!("/echo.v1.EchoService/{method}");
        let request = edge.request(Method::POST, &path);
        let answer = edge
            .send(request.header("content-type", content_type), "{}")
            .await;
        assert_eq!(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            answer.status,
            "{answer:?}"
        );
        assert!(answer.header("accept-post").is_some(), "{answer:?}");
    }
}

/// Goal: pages of others may ask where the configuration says so, and nowhere else.
/// Method: what a browser asks before, and what it asks, from one origin that may and one that may
/// not, with and without the setting.
#[tokio::test]
async fn pages_of_others_ask_where_they_may() {
    let (shop, other) = ("https://shop.example.com", "https://other.example.com");
    for (settings, origin, may) in [
        ("", shop, false),
        ("[http]\norigins = ['https://shop.example.com']", shop, true),
        (
            "[http]\norigins = ['https://shop.example.com']",
            other,
            false,
        ),
        ("[http]\norigins = ['*']", other, true),
    ] {
        let edge = Edge::with(settings).await;
        let before = edge
            .request(Method::OPTIONS, "/v1/echo")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "authorization, content-type",
            );
        let before = edge.send(before, "").await;
        let asked = edge
            .request(Method::GET, "/v1/echo")
            .header("origin", origin);
        let asked = edge.send(asked, "").await;
        assert_eq!(StatusCode::OK, asked.status, "{asked:?}");
        for answer in [&before, &asked] {
            let allowed = answer.header("access-control-allow-origin");
            assert_eq!(may.then_some(origin), allowed, "{answer:?}");
            assert!(answer.header("access-control-allow-credentials").is_none());
            let varies = answer.header("vary").is_some();
            assert_eq!(!settings.is_empty(), varies, "{answer:?}");
        }
        let expected = if may { 204 } else { 405 };
        assert_eq!(expected, before.status.as_u16(), "{before:?}");
        if may {
            let headers = before.header("access-control-allow-headers");
            assert_eq!(Some("authorization, content-type"), headers);
        }
    }
}

/// Goal: a client that is refused while it still writes hears why.
/// Method: a body that is larger than any buffer on the way, to a path that nobody has.
#[tokio::test]
async fn who_is_refused_while_writing_hears_it() {
    let edge = Edge::start().await;
    for _ in 0..20 {
        let answer = edge.post("/nowhere", vec![b' '; 900_000]).await;
        assert_eq!(StatusCode::NOT_FOUND, answer.status);
    }
}

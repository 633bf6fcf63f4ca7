//! Messages that are too large, and compressed ones.

use std::{io::Write as _, time::Duration};

use http::HeaderValue;
use tonic::{Code, Response};

use super::probe::{Messages, Probe, STREAM, Served, UNARY};
use crate::{
    config::Size,
    server::Router,
    transport::{
        server::Limits,
        wire::{Wire, framed, prefixed},
    },
};

/// Answers each message with itself, or with so many bytes where it is a number.
fn echo() -> Router {
    Router::new().add(Probe::unary(|request| async move {
        let message = request.into_inner();
        let text = std::str::from_utf8(&message).unwrap_or_default();
        Ok(Response::new(match text.parse() {
            Ok(length) => vec![7; length],
            Err(_) => message,
        }))
    }))
}

fn limits(message_max: u64) -> Limits {
    Limits {
        receive_message_max: Size::bytes(message_max),
        send_message_max: Size::bytes(message_max),
        ..Limits::default()
    }
}

async fn wire(served: &Served) -> Wire {
    Wire::over(served.connector.connect().await.unwrap()).await
}

/// Goal: a message that is declared too large is refused by its prefix alone, and one that fits
/// exactly is not.
/// Method: five bytes of a message that never comes; a message of the limit.
#[tokio::test]
async fn a_large_message_is_refused_before_it_arrives() {
    let served = Served::new(echo(), limits(100));
    let wire = wire(&served).await;

    let mut sent = wire.send(Wire::request(UNARY)).await.unwrap();
    let prefix = prefixed(0, &[0; 101]).slice(..5);
    sent.requests.send_data(prefix, false).unwrap();
    let reply = sent.reply().await.unwrap();
    assert_eq!(Some(Code::ResourceExhausted), reply.code());
    assert_eq!(
        "a message of 101 bytes is larger than the 100 bytes allowed",
        reply.message()
    );

    // Two bytes of a message are the field's.
    let fits = wire.call(Wire::request(UNARY), &[7; 98]).await.unwrap();
    assert_eq!(Some(Code::Ok), fits.code());
}

/// Goal: each message of a stream is measured.
/// Method: one that fits, echoed, then one that does not.
#[tokio::test]
async fn a_large_message_ends_a_stream() {
    let stream = Probe::stream(|request| async move {
        let messages: Messages = Box::pin(request.into_inner());
        Ok(Response::new(messages))
    });
    let served = Served::new(Router::new().add(stream), limits(100));
    let mut sent = wire(&served)
        .await
        .send(Wire::request(STREAM))
        .await
        .unwrap();
    sent.requests.send_data(framed(&[7; 50]), false).unwrap();
    sent.requests.send_data(framed(&[7; 100]), false).unwrap();
    let reply = sent.reply().await.unwrap();
    assert_eq!(framed(&[7; 50]), reply.data);
    assert_eq!(Some(Code::ResourceExhausted), reply.code());
}

/// Goal: an answer that is too large is not sent, and says so.
/// Method: ask for more bytes than the limit.
#[tokio::test]
async fn a_large_answer_is_not_sent() {
    let served = Served::new(echo(), limits(100));
    let reply = wire(&served)
        .await
        .call(Wire::request(UNARY), b"500")
        .await
        .unwrap();
    assert!(reply.data.is_empty());
    assert_eq!(Some(Code::ResourceExhausted), reply.code());
}

/// Goal: a limit changes under a connection, from the next call on.
/// Method: the same call before and after.
#[tokio::test]
async fn message_limits_are_live() {
    let served = Served::new(echo(), limits(100));
    let wire = wire(&served).await;
    let refused = wire.call(Wire::request(UNARY), &[7; 200]).await.unwrap();
    assert_eq!(Some(Code::ResourceExhausted), refused.code());

    served.listener.set_limits(limits(300));
    let taken = wire.call(Wire::request(UNARY), &[7; 200]).await.unwrap();
    assert_eq!(Some(Code::Ok), taken.code());
}

/// Goal: what is held of unfinished messages is bounded for all calls together, without harm to
/// small ones, and a message that is alone always fits.
/// Method: most of a large message that does not end, a second one until it finds no room, a small
/// one beside them; then the second again, once the first is given up.
#[tokio::test]
async fn large_messages_share_what_is_held() {
    let limits = Limits {
        receive_bytes_max: Size::kib(100),
        ..limits(1_000_000)
    };
    let served = Served::new(echo(), limits);
    let wire = wire(&served).await;
    let mut first = wire.send(Wire::request(UNARY)).await.unwrap();
    let most = framed(&vec![7; 200_000]).slice(..90_000);
    first.requests.send_data(most, false).unwrap();
    let payload = vec![7; 150_000];
    let large = || wire.call(Wire::request(UNARY), &payload);
    let refused = async {
        loop {
            let reply = large().await.unwrap();
            if reply.code() != Some(Code::Ok) {
                return reply;
            }
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(10), refused).await;
    let refused = refused.expect("the first message comes");
    assert_eq!(Some(Code::ResourceExhausted), refused.code());
    assert_eq!("1000", refused.headers["grpc-retry-pushback-ms"]);
    let small = wire.call(Wire::request(UNARY), &[7; 9_000]).await.unwrap();
    assert_eq!(Some(Code::Ok), small.code());

    drop(first);
    let taken = async { while large().await.unwrap().code() != Some(Code::Ok) {} };
    let taken = tokio::time::timeout(Duration::from_secs(10), taken).await;
    taken.expect("what was held is given back");
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// Goal: gzip is read, and written for those who ask for it.
/// Method: a compressed message that compresses well, and its answer.
#[tokio::test]
async fn gzip_is_spoken_both_ways() {
    let served = Served::new(echo(), limits(10_000));
    let plain = framed(&[7; 5_000]).slice(5..);
    let mut request = Wire::request(UNARY);
    let gzip = HeaderValue::from_static("gzip");
    request.headers_mut().insert("grpc-encoding", gzip.clone());
    request.headers_mut().insert("grpc-accept-encoding", gzip);
    let mut sent = wire(&served).await.send(request).await.unwrap();
    let message = prefixed(1, &gzipped(&plain));
    sent.requests.send_data(message, true).unwrap();
    let reply = sent.reply().await.unwrap();
    assert_eq!(Some(Code::Ok), reply.code());
    assert_eq!("gzip", reply.headers["grpc-encoding"]);
    assert_eq!(1, reply.data[0]);
    assert!(reply.data.len() < 500);
}

/// Goal: what a small message decompresses to is bounded too.
/// Method: zeros, a thousand times what they compress to.
#[tokio::test]
async fn a_bomb_is_refused_while_it_unfolds() {
    let served = Served::new(echo(), limits(10_000));
    let mut request = Wire::request(UNARY);
    let gzip = HeaderValue::from_static("gzip");
    request.headers_mut().insert("grpc-encoding", gzip);
    let mut sent = wire(&served).await.send(request).await.unwrap();
    let bomb = gzipped(&vec![0; 5_000_000]);
    assert!(bomb.len() < 10_000);
    sent.requests.send_data(prefixed(1, &bomb), true).unwrap();
    let reply = sent.reply().await.unwrap();
    assert_eq!(Some(Code::ResourceExhausted), reply.code());
}

/// Goal: an encoding nobody knows is UNIMPLEMENTED, with those that are known.
/// Method: a message said to be in it.
#[tokio::test]
async fn an_unknown_encoding_is_unimplemented() {
    let served = Served::new(echo(), limits(10_000));
    let mut request = Wire::request(UNARY);
    let unknown = HeaderValue::from_static("snappy");
    request.headers_mut().insert("grpc-encoding", unknown);
    let reply = wire(&served).await.call(request, b"hello").await.unwrap();
    assert_eq!(Some(Code::Unimplemented), reply.code());
    let known = reply.headers["grpc-accept-encoding"].to_str().unwrap();
    assert!(known.contains("gzip"), "{known}");
}

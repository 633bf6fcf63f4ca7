//! What is answered beside gRPC, where a program speaks more.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, body::Body};

use super::probe::{Probe, Served, UNARY};
use crate::{
    call,
    server::{Calls, Router},
    status::code_in,
    transport::{
        server::Limits,
        wire::{Wire, framed},
    },
};

/// Answers by path: what it was asked, never, with a panic, without an end, or with what a call
/// of [`UNARY`] answers.
async fn pages(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let text = |text: String| Response::new(Body::new(Full::from(text)));
    Ok(match head.uri.path() {
        "/never" => std::future::pending().await,
        "/panic" => panic!("as asked"),
        "/call" => {
            let request = Request::post(UNARY)
                .header(header::CONTENT_TYPE, "application/grpc")
                .header("grpc-timeout", head.headers["grpc-timeout"].clone())
                .body(Body::new(Full::new(framed(b"made of it"))))
                .unwrap();
            let calls = head.extensions.get::<Calls>().unwrap();
            calls.call(request).await
        }
        "/endless" => {
            let pieces = std::iter::repeat_with(|| {
                let piece = Bytes::from_static(&[0; 16_384]);
                Ok::<_, Infallible>(http_body::Frame::data(piece))
            });
            let pieces = tokio_stream::iter(pieces);
            Response::new(Body::new(http_body_util::StreamBody::new(pieces)))
        }
        path => {
            let read = body.collect().await.unwrap().to_bytes();
            text(format!("{} {path} {}", head.method, read.len()))
        }
    })
}

fn served(probe: Probe, limits: Limits) -> Served {
    let pages = tower::service_fn(pages);
    Served::new(Router::new().add(probe).http(pages), limits)
}

fn remaining() -> Probe {
    Probe::unary(|_| async {
        let context = call::current().unwrap();
        let left = context.deadline.unwrap().remaining();
        let answer = format!("{:x} {}", context.trace.trace_id, left.as_secs());
        Ok(tonic::Response::new(answer.into_bytes()))
    })
}

/// A connection of HTTP/1.1, and the task that moves its bytes.
async fn http1(served: &Served) -> http1::SendRequest<Full<Bytes>> {
    let io = TokioIo::new(served.connector.connect().await.unwrap());
    let (send, connection) = http1::handshake(io).await.unwrap();
    #[allow(clippy::disallowed_methods)]
    drop(tokio::spawn(connection));
    send
}

fn post(path: &str, body: &'static [u8]) -> Request<Full<Bytes>> {
    Request::post(path)
        .header(header::HOST, "memory")
        .body(Full::from(body))
        .unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

/// Goal: one port speaks both protocols, and gRPC goes its way.
/// Method: two requests of HTTP/1.1 on one connection, one of HTTP/2, then a call.
#[tokio::test]
async fn other_requests_are_answered_beside_grpc() {
    let echo =
        Probe::unary(|request| async move { Ok(tonic::Response::new(request.into_inner())) });
    let served = served(echo, Limits::default());
    let mut send = http1(&served).await;
    for _ in 0..2 {
        let response = send.send_request(post("/page", b"four")).await.unwrap();
        assert_eq!(
            (StatusCode::OK, Version::HTTP_11),
            (response.status(), response.version())
        );
        assert_eq!("POST /page 4", text(response).await);
    }
    let wire = Wire::over(served.connector.connect().await.unwrap()).await;
    let mut request = Wire::request(UNARY);
    request
        .headers_mut()
        .insert("content-type", "application/json".parse().unwrap());
    let reply = wire.clone().call(request, b"x").await.unwrap();
    assert_eq!(format!("POST {UNARY} 8").as_bytes(), reply.data);
    let reply = wire
        .clone()
        .call(Wire::request(UNARY), b"hello")
        .await
        .unwrap();
    assert_eq!(
        (Some(Code::Ok), framed(b"hello")),
        (reply.code(), reply.data)
    );
    let infos = served.listener.connections();
    let calls: Vec<_> = infos
        .iter()
        .map(|info| (info.streams_total, info.streams_open))
        .collect();
    assert_eq!(vec![(2, 0), (2, 0)], calls);
}

/// Goal: without a handler nothing but gRPC is spoken.
/// Method: a request of HTTP/1.1 to a server that has none.
#[tokio::test]
async fn without_a_handler_http1_is_refused() {
    let served = Served::probe(remaining());
    let mut send = http1(&served).await;
    let refused = send.send_request(post("/page", b"")).await;
    assert!(refused.is_err(), "{refused:?}");
}

/// Goal: a call made of a request passes the layers: deadline and trace are its own.
/// Method: a translation; the handler tells what it sees.
#[tokio::test(start_paused = true)]
async fn calls_made_of_requests_pass_the_layers() {
    let served = served(remaining(), Limits::default());
    let mut send = http1(&served).await;
    let mut request = post("/call", b"");
    let headers = request.headers_mut();
    headers.insert("grpc-timeout", "7S".parse().unwrap());
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    headers.insert("traceparent", parent.parse().unwrap());
    let response = send.send_request(request).await.unwrap();
    let mut body = response.into_body().collect().await.unwrap();
    let code = body.trailers().cloned();
    let data = std::mem::take(&mut body).to_bytes();
    assert_eq!(framed(b"af7651916cd43dd8448eb211c80319c 7"), data);
    // Trailers are HTTP/1.1's to leave out where nobody asked for them.
    assert!(code.is_none_or(|trailers| code_in(&trailers) == Some(Code::Ok)));
}

/// Goal: a handler that fails, hangs or is overtaken by the end of the process costs its own
/// request an answer that says so, and the connection goes on.
/// Method: each on one connection, on the paused clock.
#[tokio::test(start_paused = true)]
async fn handlers_that_fail_are_answered_for() {
    let limits = Limits::default();
    let longest = limits.unary_deadline_max;
    let served = served(remaining(), limits);
    let mut send = http1(&served).await;
    let response = send.send_request(post("/panic", b"")).await.unwrap();
    assert_eq!(StatusCode::INTERNAL_SERVER_ERROR, response.status());
    text(response).await;
    let began = Instant::now();
    let response = send.send_request(post("/never", b"")).await.unwrap();
    assert_eq!(StatusCode::GATEWAY_TIMEOUT, response.status());
    assert_eq!(longest.as_secs(), began.elapsed().as_secs());
    text(response).await;
    let ending = async {
        sleep(Duration::from_secs(1)).await;
        served.stack.end_calls();
    };
    let (response, ()) = tokio::join!(send.send_request(post("/never", b"")), ending);
    assert_eq!(StatusCode::SERVICE_UNAVAILABLE, response.unwrap().status());
}

/// Goal: a drain lets a request of HTTP/1.1 end, then closes its connection; an idle one goes.
/// Method: one connection with a request that hangs until calls are ended, one without.
#[tokio::test(start_paused = true)]
async fn http1_connections_drain() {
    let served = served(remaining(), Limits::default());
    let (mut busy, mut idle) = (http1(&served).await, http1(&served).await);
    for send in [&mut busy, &mut idle] {
        text(send.send_request(post("/page", b"")).await.unwrap()).await;
    }
    let hanging = busy.send_request(post("/never", b""));
    let draining = async {
        sleep(Duration::from_secs(1)).await;
        served.listener.drain();
        sleep(Duration::from_secs(3)).await;
        let open = served.listener.counts().open;
        served.stack.end_calls();
        open
    };
    let (answered, open) = tokio::join!(hanging, draining);
    assert_eq!(
        (1, StatusCode::SERVICE_UNAVAILABLE),
        (open, answered.unwrap().status())
    );
    let closed = timeout(Duration::from_mins(1), served.listener.closed()).await;
    assert!(closed.is_ok(), "{:?}", served.listener.connections());
}

/// Goal: no request is lost on its way to a connection that ends: its answer says that it is the
/// last, and comes. Who asks for nothing is not waited for.
/// Method: connections that were used and such that were not, for a drain and for their age; a
/// request a moment later on some of them.
#[tokio::test(start_paused = true)]
async fn the_last_answer_of_http1_says_so() {
    let age = Duration::from_mins(10);
    for drains in [true, false] {
        let limits = Limits {
            connection_age_max: age,
            ..Limits::default()
        };
        let served = served(remaining(), limits);
        let mut used = http1(&served).await;
        text(used.send_request(post("/page", b"")).await.unwrap()).await;
        let mut silent = http1(&served).await;
        text(silent.send_request(post("/page", b"")).await.unwrap()).await;
        let mut asking = vec![used];
        if drains {
            asking.push(http1(&served).await);
            sleep(Duration::from_secs(1)).await;
            served.listener.drain();
            sleep(Duration::from_millis(500)).await;
        }
        for mut send in asking {
            let last = loop {
                let answer = send.send_request(post("/page", b"")).await;
                let answer = answer.expect("an answer to whoever asks");
                assert_eq!(StatusCode::OK, answer.status());
                let closes = answer.headers().get(header::CONNECTION).cloned();
                assert_eq!("POST /page 0", text(answer).await);
                if let Some(closes) = closes {
                    break closes;
                }
                // Ages are spread by a tenth: this one asks until it is told.
                assert!(!drains, "the first one says so");
                sleep(Duration::from_millis(500)).await;
                send.ready().await.expect("it stays without a word");
            };
            assert_eq!("close", last);
            assert!(send.ready().await.is_err(), "closed as it said");
        }
        let gone = timeout(age, async {
            while silent.ready().await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        });
        gone.await.expect("nobody waits for ever");
    }
}

/// Goal: nobody holds an answer by not reading it, nor a connection by half a head.
/// Method: an endless answer that is not read, and a head without an end.
#[tokio::test(start_paused = true)]
async fn http1_connections_do_not_hang() {
    use tokio::io::AsyncWriteExt as _;
    for head in [
        "GET /endless HTTP/1.1\r\nhost: memory\r\n\r\n",
        "GET /endless HTTP/1.1\r\nhost:",
    ] {
        let served = served(remaining(), Limits::default());
        let mut io = served.connector.connect().await.unwrap();
        io.write_all(head.as_bytes()).await.unwrap();
        sleep(Duration::from_secs(5)).await;
        assert_eq!(1, served.listener.counts().open, "{head:?}");
        sleep(Duration::from_secs(30)).await;
        assert_eq!(0, served.listener.counts().open, "{head:?}");
    }
}

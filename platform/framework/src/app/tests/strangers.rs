//! What callers may decide of traces.

use std::convert::Infallible;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::body::Body;

use super::probe::{IDENTITY, Probe};
use crate::app::{App, BoxError, testing};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

/// The `traceparent` that a handler sees, where its caller wants the trace recorded.
async fn seen(toml: &str, hands_on: bool) -> String {
    let answer = |request: Request<Incoming>| {
        let trace = request.headers()["traceparent"].to_str().unwrap();
        let answer = Response::new(Body::new(trace.to_owned()));
        std::future::ready(Ok::<_, Infallible>(answer))
    };
    let start = async |app: &mut App<()>| -> Result<(), BoxError> {
        app.serve_http(tower::service_fn(answer));
        if hands_on {
            let _ = app.serve_others(Probe);
        }
        Ok(())
    };
    let service = testing::Service::start(IDENTITY, toml, start).await;
    let service = service.unwrap();
    let mut stream = TcpStream::connect(service.address()).await.unwrap();
    let head = format!(
        "GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\ntraceparent: {TRACE}-01\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    service.stop().await;
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// Goal: a service follows its callers in what is recorded, one that hands calls on does not; each
/// can be told otherwise. The trace is the caller's in any case.
/// Method: both, as they are and as configured; nothing is exported here, so nothing is recorded of
/// strangers.
#[tokio::test]
async fn strangers_do_not_decide_what_is_recorded() {
    let (on, off) = (
        "[telemetry]\ntrust_remote = true",
        "[telemetry]\ntrust_remote = false",
    );
    for (toml, hands_on, flags) in [
        ("", false, "01"),
        (off, false, "00"),
        ("", true, "00"),
        (on, true, "01"),
    ] {
        let expected = format!("{TRACE}-{flags}");
        assert_eq!(expected, seen(toml, hands_on).await, "{toml} {hands_on}");
    }
}

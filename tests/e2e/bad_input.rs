//! What is wrong is said in one line, or cut in time, while the rest goes on.

use std::{net::TcpListener, time::Duration};

use gantry_harness::{
    process::{Builder, Service},
    tools,
    wait::SOON,
};
use gantry_probe::{
    CountRequest, OnceRequest, WaitRequest, probe_service_client::ProbeServiceClient,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::{Code, client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_types::StatusExt as _;

use crate::support::{channel, probe};

/// Starts what must not start: its exit code and what it said.
async fn refused(builder: Builder) -> (Option<i32>, String) {
    let mut service = builder.spawn();
    let status = service.ended(SOON).await;
    (status.code(), service.output())
}

#[track_caller]
fn says(output: &str, parts: &[&str]) {
    for part in parts {
        assert!(output.contains(part), "{part:?} is missing in:\n{output}");
    }
    assert!(
        !output.contains("panicked"),
        "a panic is no message:\n{output}"
    );
}

/// Goal: every fault of the configuration at once, each with its place and the way out.
/// Method: an unknown key, a bad duration and a bad variable together.
#[tokio::test]
async fn faults_of_the_configuration_are_told_at_once() {
    let builder = probe()
        .file(
            "config/probe.toml",
            "[limits]\nconections_max = 5\nkeepalive_interval = \"soon\"\n",
        )
        .argument("--config")
        .argument("config/probe.toml")
        .set("SLOWNESS", "often");
    let (code, output) = refused(builder).await;
    assert_eq!(Some(2), code, "{output}");
    says(
        &output,
        &[
            "config/probe.toml:2",
            "conections_max",
            "connections_max",
            "config/probe.toml:3",
            "keepalive_interval",
            "soon",
            "GANTRY_SLOWNESS",
            "often",
        ],
    );
}

/// Goal: a taken port is one line that names the port, its holder and the setting.
/// Method: take it first.
#[tokio::test]
async fn a_taken_port_is_named() {
    let builder = probe();
    let _holder = TcpListener::bind(builder.address()).expect("the port is free");
    let port = builder.address().port().to_string();
    let (code, output) = refused(builder).await;
    assert_eq!(Some(1), code, "{output}");
    says(&output, &[&port, "listen.address", "e2e"]);
}

/// Goal: a certificate that cannot be read names its file; plaintext beyond loopback is refused.
/// Method: a file that is none, a file that is not there, and an address that is not loopback.
#[tokio::test]
async fn what_cannot_be_served_safely_is_not_served() {
    let builder = probe()
        .file("tls.pem", "nothing of the kind")
        .set("LISTEN__CERTIFICATE", "tls.pem")
        .set("LISTEN__KEY", "tls.pem");
    let (code, output) = refused(builder).await;
    assert_eq!(Some(1), code, "{output}");
    says(&output, &["tls.pem"]);

    let builder = probe()
        .file("tls.pem", "nothing of the kind")
        .set("LISTEN__CERTIFICATE", "missing.pem")
        .set("LISTEN__KEY", "tls.pem");
    let (code, output) = refused(builder).await;
    assert_eq!(Some(1), code, "{output}");
    says(&output, &["missing.pem"]);

    let (code, output) = refused(probe().set("LISTEN__ADDRESS", "0.0.0.0:0")).await;
    assert_ne!(Some(0), code, "{output}");
    says(&output, &["insecure"]);
}

/// Goal: a request that breaks its rules gets all of them at once.
/// Method: an id of the wrong shape and a pause beyond its bound.
#[tokio::test]
async fn invalid_fields_are_told_at_once() {
    let service = probe().start().await;
    let mut client = ProbeServiceClient::new(channel(&[service.address]));
    let request = OnceRequest {
        id: "Not this".to_owned(),
        millis: 70_000,
        payload: Vec::new(),
    };
    let error = client
        .once(request)
        .await
        .expect_err("two rules are broken");
    assert_eq!(Code::InvalidArgument, error.code(), "{error:?}");
    let details = error.get_details_bad_request().expect("a BadRequest");
    let fields: Vec<_> = details
        .field_violations
        .iter()
        .map(|it| it.field.as_str())
        .collect();
    assert_eq!(vec!["id", "millis"], fields, "{details:?}");
}

/// Goal: an unknown method and an oversized message have the standard codes.
/// Method: call both; the connection goes on.
#[tokio::test]
async fn unknown_methods_and_large_messages_have_their_codes() {
    let service = probe().start().await;
    let channel = channel(&[service.address]);
    let mut client = ProbeServiceClient::new(channel.clone()).max_encoding_message_size(usize::MAX);

    let large = OnceRequest {
        id: "large".to_owned(),
        millis: 0,
        payload: vec![0; 5 << 20],
    };
    let error = client.once(large).await.expect_err("too large");
    assert_eq!(Code::ResourceExhausted, error.code(), "{error:?}");

    let mut raw = Grpc::new(channel);
    raw.ready().await.expect("always ready");
    let path = PathAndQuery::from_static("/probe.v1.ProbeService/Guess");
    let codec = tonic_prost::ProstCodec::<WaitRequest, WaitRequest>::default();
    let request = tonic::Request::new(WaitRequest::default());
    let error = raw
        .unary(request, path, codec)
        .await
        .expect_err("nobody serves it");
    assert_eq!(Code::Unimplemented, error.code(), "{error:?}");
    assert!(error.message().contains("Guess"), "{error:?}");

    client
        .wait(WaitRequest::default())
        .await
        .expect("the rest goes on");
}

/// Reads until the other end closes, within `bound`.
async fn closed(stream: &mut TcpStream, bound: Duration) -> Vec<u8> {
    let mut answer = Vec::new();
    // A reset is an end as well.
    let read = timeout(bound, stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "still open after {bound:?}");
    answer
}

async fn impatient() -> Service {
    probe()
        .set("LIMITS__FIRST_REQUEST_TIMEOUT", "1s")
        .start()
        .await
}

/// Sends the preface byte by byte, slower than anybody may, until the other end closes.
async fn dribble(mut stream: TcpStream, bound: Duration) {
    let (mut reading, mut writing) = stream.split();
    let sending = async {
        for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
            if writing.write_all(&[*byte]).await.is_err() {
                return;
            }
            // Each byte comes well within the time that the whole has.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("the whole preface was waited for");
    };
    let mut answer = Vec::new();
    let closed = async {
        // A reset is an end as well.
        drop(reading.read_to_end(&mut answer).await);
    };
    let ended = timeout(bound, async {
        tokio::select! {
            () = closed => {}
            () = sending => {}
        }
    });
    assert!(ended.await.is_ok(), "still open after {bound:?}");
}

/// Goal: garbage, silence and a slow preface are cut in time, and calls go on meanwhile.
/// Method: raw connections of each kind against a first-request timeout of a second, with a
/// caller that calls until the last of them is cut.
#[tokio::test]
async fn what_is_not_grpc_is_cut_in_time() {
    let service = impatient().await;
    let bound = if tools::timed() {
        // A second for the first request, and one in which to read that it must go.
        Duration::from_millis(2_500)
    } else {
        SOON
    };
    let connect = async || TcpStream::connect(service.address).await.expect("connects");
    let refused = async {
        let mut garbage = connect().await;
        garbage.write_all(&[0xff; 64]).await.expect("writes");
        let mut silent = Vec::new();
        for _ in 0..200 {
            silent.push(connect().await);
        }
        let mut stuck = connect().await;
        stuck.write_all(b"PRI * HT").await.expect("writes");
        tokio::join!(
            closed(&mut garbage, bound),
            closed(&mut stuck, bound),
            dribble(connect().await, bound),
            async {
                for stream in &mut silent {
                    closed(stream, bound).await;
                }
            }
        );
    };
    let mut client = ProbeServiceClient::new(channel(&[service.address]));
    let calling = async {
        loop {
            client
                .wait(WaitRequest::default())
                .await
                .expect("calls go on");
        }
    };
    tokio::select! {
        () = refused => {}
        () = calling => unreachable!("it calls for ever"),
    }
}

/// Goal: a request with another content type, or by GET, never reaches a handler.
/// Method: HTTP/2 requests by hand, each with a body that a handler could answer; the same as a
/// call does reach it.
#[tokio::test]
async fn other_content_types_never_reach_a_handler() {
    let service = probe().start().await;
    let stream = TcpStream::connect(service.address).await.expect("connects");
    let (mut sender, connection) = h2::client::handshake(stream).await.expect("speaks HTTP/2");
    #[expect(clippy::disallowed_methods, reason = "ended below")]
    let driving = tokio::spawn(connection);
    let uri = format!("http://{}/probe.v1.ProbeService/Wait", service.address);
    let mut client = ProbeServiceClient::new(channel(&[service.address]));
    for (method, content_type, expected, begun) in [
        ("POST", "application/json", 415, 0),
        ("GET", "application/grpc", 405, 0),
        ("POST", "application/grpc", 200, 1),
    ] {
        let request = http::Request::builder()
            .method(method)
            .uri(&uri)
            .header("content-type", content_type)
            .header("te", "trailers")
            .body(())
            .expect("a request");
        let (answer, mut body) = sender.send_request(request, false).expect("sends");
        // A message of no fields. The answer may come before it, and the stream end with that.
        drop(body.send_data(vec![0; 5].into(), true));
        let answer = answer.await.expect("answers");
        assert_eq!(
            expected,
            answer.status().as_u16(),
            "{method} {content_type}"
        );
        let counts = client.count(CountRequest {}).await.expect("counts");
        assert_eq!(
            begun,
            counts.into_inner().begun,
            "{method} {content_type} at the handler"
        );
    }
    driving.abort();
}

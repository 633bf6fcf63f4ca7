//! What is not a call of a method that is served.

use http::{Method, Request, StatusCode};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use super::probe::{Probe, RULED, Ruled, STREAM, Served, UNARY};
use crate::{
    contract::Server as _,
    server::{Router, router},
    transport::{
        server::Limits,
        wire::{Reply, Wire, framed},
    },
};

fn echo() -> Probe {
    Probe::unary(|request| async move { Ok(Response::new(request.into_inner())) })
}

async fn wire(served: &Served) -> Wire {
    Wire::over(served.connector.connect().await.unwrap()).await
}

async fn answer(request: Request<()>) -> Reply {
    let served = Served::probe(echo());
    wire(&served).await.call(request, b"hello").await.unwrap()
}

/// Goal: a generated service is served end to end.
/// Method: one unary call, read to its trailers.
#[tokio::test]
async fn a_call_reaches_its_handler() {
    let reply = answer(Wire::request(UNARY)).await;
    assert_eq!(
        (StatusCode::OK, Some(Code::Ok)),
        (reply.status, reply.code())
    );
    assert_eq!(framed(b"hello"), reply.data);
    assert_eq!("application/grpc", reply.headers["content-type"]);
}

/// Goal: what nobody serves is UNIMPLEMENTED, in one frame, and named.
/// Method: an unknown service, an unknown method, and a path that is neither.
#[tokio::test]
async fn what_nobody_serves_is_named() {
    let cases = [
        ("/no.Such/Thing", "unknown service no.Such"),
        (
            "/test.Probe/Thing",
            "service test.Probe has no method Thing",
        ),
        ("/test.Probe/Unary/", "unknown service test.Probe/Unary"),
        ("/", "/ is not the path of a method"),
    ];
    for (path, message) in cases {
        let reply = answer(Wire::request(path)).await;
        assert_eq!(StatusCode::OK, reply.status, "{path}");
        assert!(reply.trailers.is_empty() && reply.data.is_empty(), "{path}");
        assert_eq!(Some(Code::Unimplemented), reply.code(), "{path}");
        assert_eq!(message, reply.message(), "{path}");
    }
}

/// Goal: only POST reaches a handler.
/// Method: a whole request, by another method.
#[tokio::test]
async fn only_post_is_a_call() {
    for method in [Method::GET, Method::PUT] {
        let mut request = Wire::request(UNARY);
        *request.method_mut() = method;
        let reply = answer(request).await;
        assert_eq!(StatusCode::METHOD_NOT_ALLOWED, reply.status);
        assert_eq!("POST", reply.headers["allow"]);
        assert!(reply.data.is_empty());
    }
}

/// Goal: only gRPC's content types reach a handler.
/// Method: those that do, those that begin alike, those of browsers, and none.
#[tokio::test]
async fn only_grpc_is_a_call() {
    let good = [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc;charset=utf-8",
    ];
    let bad = [
        "application/grpc-web",
        "application/grpc-web+proto",
        "application/json",
        "text/plain",
        "",
    ];
    let cases = good.map(|it| (it, StatusCode::OK)).into_iter();
    for (content_type, expected) in
        cases.chain(bad.map(|it| (it, StatusCode::UNSUPPORTED_MEDIA_TYPE)))
    {
        let mut request = Wire::request(UNARY);
        let value = content_type.parse().unwrap();
        request.headers_mut().insert("content-type", value);
        assert_eq!(expected, answer(request).await.status, "{content_type:?}");
    }
    let mut request = Wire::request(UNARY);
    request.headers_mut().remove("content-type");
    let reply = answer(request).await;
    assert_eq!(StatusCode::UNSUPPORTED_MEDIA_TYPE, reply.status);
}

/// Goal: the facts of a foreign service come from its descriptors, or it is not served.
/// Method: the standard health contract, and descriptors of something else.
#[test]
fn foreign_services_are_described_by_their_descriptors() {
    use tonic_health::pb::FILE_DESCRIPTOR_SET;
    let (_, health) = tonic_health::server::health_reporter();
    let services = Router::new()
        .add_plain(health.clone(), FILE_DESCRIPTOR_SET)
        .unwrap();
    let watch = services
        .routes
        .iter()
        .find(|(method, _)| method.path == "/grpc.health.v1.Health/Watch");
    let (watch, _) = watch.unwrap();
    assert!(watch.server_streaming && !watch.client_streaming);

    let missing = Router::new().add_plain(health, tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET);
    assert!(matches!(
        missing,
        Err(router::DescriptorError::Missing { .. })
    ));
}

/// Goal: a message that breaks its rules is `INVALID_ARGUMENT` with every broken one; its handler
/// never sees it.
/// Method: a message that breaks two, one that breaks none.
#[tokio::test]
async fn a_message_that_breaks_its_rules_is_refused() {
    let served = Served::probe(echo());
    let wire = wire(&served).await;
    let reply = wire.send_message(RULED, &Ruled::default()).await.unwrap();
    assert_eq!(Some(Code::InvalidArgument), reply.code());
    let status = Status::from_header_map(&reply.headers).unwrap();
    let broken = status.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<_> = broken.iter().map(|it| it.field.as_str()).collect();
    assert_eq!(vec!["quantity", "name"], fields);

    let kept = Ruled {
        quantity: 1,
        name: "one".to_owned(),
    };
    let reply = wire.send_message(RULED, &kept).await.unwrap();
    assert_eq!(Some(Code::Ok), reply.code());
}

/// Goal: a call that is sent in full is answered in full on each method kind.
/// Method: a stream echoed message by message.
#[tokio::test]
async fn streams_are_served_both_ways() {
    let served = Served::new(
        Router::new().add(Probe::stream(|request| async move {
            let messages: super::probe::Messages = Box::pin(request.into_inner());
            Ok(Response::new(messages))
        })),
        Limits::default(),
    );
    let mut sent = wire(&served)
        .await
        .send(Wire::request(STREAM))
        .await
        .unwrap();
    sent.requests.send_data(framed(b"one"), false).unwrap();
    sent.requests.send_data(framed(b"two"), true).unwrap();
    let reply = sent.reply().await.unwrap();
    assert_eq!(Some(Code::Ok), reply.code());
    assert_eq!([framed(b"one"), framed(b"two")].concat(), reply.data);
    assert_eq!("test.Probe", Probe::NAME);
}

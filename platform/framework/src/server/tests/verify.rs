//! Calls that must say who makes them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::{HeaderValue, Request, header::AUTHORIZATION};
use serde_json::json;
use tonic::{Code, Response};

use super::probe::{INTERNAL, MISTAKEN, Messages, Probe, RULED, STAFF, STREAM, Served, UNARY};
use crate::{
    auth::{
        caller,
        tests::{claims, header, ordinary, sign},
    },
    server::Router,
    transport::{
        server::Limits,
        wire::{Wire, framed},
    },
};

/// A probe that answers with who calls, and counts how often it was reached.
fn who() -> (Probe, Arc<AtomicUsize>) {
    let reached = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&reached);
    let probe = Probe::unary(move |request| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move { Ok(Response::new(caller(&request)?.subject.into_bytes())) }
    });
    (probe, reached)
}

fn verified(probe: Probe) -> Served {
    let router = Router::new().add(probe).verify_tokens(ordinary());
    Served::new(router, Limits::default())
}

fn with(path: &str, headers: &[(&'static str, &str)]) -> Request<()> {
    let mut request = Wire::request(path);
    for (name, value) in headers {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        request.headers_mut().append(*name, value);
    }
    request
}

fn bearer(claims: &serde_json::Value) -> String {
    format!("Bearer {}", sign(&header(), claims))
}

/// Goal: nobody reaches a handler that wants to know who calls without a valid token, and what the
/// token says is who calls, whatever else the metadata says.
/// Method: no token, an expired one, names of people in metadata, then a good token with such names.
#[tokio::test]
async fn only_a_token_says_who_calls() {
    let (probe, reached) = who();
    let served = verified(probe);
    let wire = Wire::over(served.connector.connect().await.unwrap()).await;
    let mut expired = claims();
    expired["exp"] = json!(1_700_000_900);
    expired["iat"] = json!(1_700_000_000);
    expired["nbf"] = json!(1_700_000_000);
    let expired = bearer(&expired);
    let forged: &[(&'static str, &str)] = &[
        ("x-user-id", "ada"),
        ("x-account-id", "ada"),
        ("subject", "ada"),
    ];
    for headers in [&[][..], &[("authorization", expired.as_str())], forged] {
        let reply = wire.call(with(UNARY, headers), b"who").await.unwrap();
        assert_eq!(Some(Code::Unauthenticated), reply.code(), "{reply:?}");
    }
    assert_eq!(0, reached.load(Ordering::SeqCst));

    let good = bearer(&claims());
    let headers = [("authorization", good.as_str()), ("x-user-id", "eve")];
    let reply = wire.call(with(UNARY, &headers), b"who").await.unwrap();
    assert_eq!(Some(Code::Ok), reply.code(), "{reply:?}");
    assert_eq!(framed(b"ada"), reply.data);
}

/// Goal: a stream is refused before it begins.
/// Method: a stream both ways without a token, and with one.
#[tokio::test]
async fn a_stream_needs_a_token_as_well() {
    let served = verified(Probe::stream(|request| async move {
        let who = caller(&request)?.subject.into_bytes();
        let messages: Messages = Box::pin(tokio_stream::once(Ok(who)));
        Ok(Response::new(messages))
    }));
    let wire = Wire::over(served.connector.connect().await.unwrap()).await;
    let sent = wire.send(Wire::request(STREAM)).await.unwrap();
    let reply = sent.reply().await.unwrap();
    assert_eq!(Some(Code::Unauthenticated), reply.code(), "{reply:?}");

    let mut request = Wire::request(STREAM);
    let good = HeaderValue::from_str(&bearer(&claims())).unwrap();
    request.headers_mut().insert(AUTHORIZATION, good);
    let reply = wire.call(request, b"").await.unwrap();
    assert_eq!(framed(b"ada"), reply.data, "{reply:?}");
}

/// Goal: a method for services is for no call that passed a gateway, whatever token it has, also where
/// no tokens are verified; other proxies are nothing to it.
/// Method: calls that say in `via` what they passed.
#[tokio::test]
async fn what_services_ask_each_other_is_not_for_those_outside() {
    let good = bearer(&claims());
    for verifies in [true, false] {
        let probe = Probe::unary(async |_| Ok(Response::new(Vec::new())));
        let served = if verifies {
            verified(probe)
        } else {
            Served::probe(probe)
        };
        let wire = Wire::over(served.connector.connect().await.unwrap()).await;
        for (passed, expected) in [
            (&[][..], Code::Ok),
            (&["1.1 proxy.example.org"], Code::Ok),
            (&["1.1 not-gantry-1 (gantry-2)"], Code::Ok),
            (&["\u{ff}, 2.0 gantry-01"], Code::PermissionDenied),
            (&["2.0 gantry-0123456789abcdef"], Code::PermissionDenied),
            (&["1.1 proxy, 2.0 gantry-01"], Code::PermissionDenied),
            (&["1.1 proxy", "2.0 gantry-01"], Code::PermissionDenied),
        ] {
            let mut headers = vec![("authorization", good.as_str())];
            headers.extend(passed.iter().map(|it| ("via", *it)));
            let reply = wire.call(with(INTERNAL, &headers), b"").await.unwrap();
            assert_eq!(Some(expected), reply.code(), "{passed:?}: {reply:?}");
        }
    }
}

/// Goal: a method that wants a role is for tokens that carry it, and for nobody else: not for those
/// who write it into metadata, and not for anybody where no tokens are verified.
/// Method: good tokens with and without the role, names of roles in metadata, a server without keys;
/// a method whose contract asks for a role, and one whose contract lets in anybody beside that.
#[tokio::test]
async fn a_role_is_asked_for_before_the_handler_runs() {
    let (probe, reached) = who();
    let served = verified(probe);
    let wire = Wire::over(served.connector.connect().await.unwrap()).await;
    let with_roles = |roles: serde_json::Value| {
        let mut claims = claims();
        claims["roles"] = roles;
        bearer(&claims)
    };
    let plain = bearer(&claims());
    let other = with_roles(json!(["night"]));
    let staff = with_roles(json!(["night", "staff"]));
    let forged = [("authorization", plain.as_str()), ("roles", "staff")];
    let denied = Some(Code::PermissionDenied);
    for path in [STAFF, MISTAKEN] {
        for (headers, expected) in [
            (&[][..], Some(Code::Unauthenticated)),
            (
                &[("roles", "staff"), ("x-user-roles", "staff")],
                Some(Code::Unauthenticated),
            ),
            (&[("authorization", plain.as_str())], denied),
            (&[("authorization", other.as_str())], denied),
            (&forged, denied),
        ] {
            let reply = wire.call(with(path, headers), b"who").await.unwrap();
            assert_eq!(expected, reply.code(), "{path}: {headers:?}: {reply:?}");
        }
        assert_eq!(0, reached.swap(0, Ordering::SeqCst));
        let headers = [("authorization", staff.as_str())];
        let reply = wire.call(with(path, &headers), b"who").await.unwrap();
        assert_eq!(framed(b"ada"), reply.data, "{path}: {reply:?}");
        assert_eq!(1, reached.swap(0, Ordering::SeqCst));
    }

    let (probe, reached) = who();
    let served = Served::probe(probe);
    let wire = Wire::over(served.connector.connect().await.unwrap()).await;
    let request = with(STAFF, &[("authorization", staff.as_str())]);
    let reply = wire.call(request, b"who").await.unwrap();
    assert_eq!(Some(Code::Unauthenticated), reply.code(), "{reply:?}");
    assert_eq!(0, reached.load(Ordering::SeqCst));
}

/// Goal: what is for everybody stays so, and a handler that asks who calls where nobody was asked
/// for a token is told nobody, whatever a token says.
/// Method: a public method without a token; a server without keys, and a good token.
#[tokio::test]
async fn where_no_token_is_wanted_nobody_is_proved() {
    let (probe, _) = who();
    let served = verified(probe);
    let wire = Wire::over(served.connector.connect().await.unwrap()).await;
    // It has rules, and is refused by them.
    let reply = wire.call(Wire::request(RULED), b"").await.unwrap();
    assert_eq!(Some(Code::InvalidArgument), reply.code(), "{reply:?}");

    let (probe, reached) = who();
    let served = Served::probe(probe);
    let wire = Wire::over(served.connector.connect().await.unwrap()).await;
    let good = bearer(&claims());
    let request = with(UNARY, &[("authorization", good.as_str())]);
    let reply = wire.call(request, b"who").await.unwrap();
    assert_eq!(Some(Code::Unauthenticated), reply.code(), "{reply:?}");
    assert_eq!(1, reached.load(Ordering::SeqCst));
}

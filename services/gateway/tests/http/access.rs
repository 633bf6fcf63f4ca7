//! Who may make which call through a gateway.

use std::time::Duration;

use gantry::client::Channel;
use gateway_echo::{
    BetweenRequest, CountRequest, HiddenRequest, SecretRequest, SecretsRequest, StaffRequest,
    echo_service_client::EchoServiceClient,
};
use http::{Method, StatusCode};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time,
};
use tonic::{Code, Request};

use crate::{
    support::{Answer, Edge},
    token::{bad, good, public, token},
};

/// A gateway whose tokens the echo signs.
pub(crate) const TOKENS: &str = "[tokens]\nkeys = 'echo.v1.EchoService/Keys'\nissuer = 'echo.issuer'\n\
                      audience = 'echo'\n";

fn client(edge: &Edge) -> EchoServiceClient<Channel> {
    edge.gateway.client()
}

fn with<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

/// GET with a token, or without one.
async fn get(edge: &Edge, path: &str, token: Option<&str>) -> Answer {
    let mut request = edge.request(Method::GET, path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    edge.send(request, "").await
}

/// Waits until the gateway has read the keys.
async fn until_open(edge: &Edge) {
    let open = async {
        while get(edge, "/v1/secret", Some(&good())).await.status != StatusCode::OK {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(Duration::from_secs(20), open).await.unwrap();
}

/// Goal: what wants a token is had with a valid one alone, which reaches the service; what is public
/// needs none; what services ask each other is refused, token or not. In all protocols.
/// Method: the methods of an echo, by gRPC, by JSON, by Connect and by gRPC-Web.
#[tokio::test(flavor = "multi_thread")]
async fn contracts_say_who_may_call() {
    let edge = Edge::with(TOKENS).await;
    until_open(&edge).await;
    let mut client = client(&edge);
    let refused = client.secret(SecretRequest {}).await.unwrap_err();
    assert_eq!(Code::Unauthenticated, refused.code(), "{refused:?}");
    let refused = client.secrets(SecretsRequest {}).await.unwrap_err();
    assert_eq!(Code::Unauthenticated, refused.code(), "{refused:?}");
    let refused = client.between(with(BetweenRequest {}, &good())).await;
    assert_eq!(Code::PermissionDenied, refused.unwrap_err().code());
    client.hidden(HiddenRequest::default()).await.unwrap();
    client.count(CountRequest::default()).await.unwrap();

    let token = good();
    let answer = client.secret(with(SecretRequest {}, &token)).await.unwrap();
    assert_eq!(format!("Bearer {token}"), answer.into_inner().authorization);
    let stream = client.secrets(with(SecretsRequest {}, &token)).await;
    let first = stream.unwrap().into_inner().message().await.unwrap();
    assert_eq!(1, first.unwrap().number);

    for path in ["/v1/secret", "/v1/secrets"] {
        let answer = get(&edge, path, None).await;
        assert_eq!(StatusCode::UNAUTHORIZED, answer.status, "{answer:?}");
        assert_eq!(Some("Bearer"), answer.header("www-authenticate"));
        assert_eq!(16, answer.json()["code"]);
        let reason = &answer.json()["details"][0]["reason"];
        assert_eq!("UNAUTHENTICATED", *reason, "{answer:?}");
        assert_eq!(StatusCode::OK, get(&edge, path, Some(&token)).await.status);
    }
    let answer = get(&edge, "/v1/between", Some(&token)).await;
    assert_eq!(StatusCode::FORBIDDEN, answer.status, "{answer:?}");

    let connect = |method: &str, token: Option<&str>| {
        let path = format!("/echo.v1.EchoService/{method}");
        let request = edge.request(Method::POST, &path);
        let request = request.header("content-type", "application/json");
        match token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    };
    let answer = edge.send(connect("Secret", None), "{}").await;
    assert_eq!(StatusCode::UNAUTHORIZED, answer.status, "{answer:?}");
    assert_eq!(Some("Bearer"), answer.header("www-authenticate"));
    let answer = edge.send(connect("Secret", Some(&token)), "{}").await;
    assert_eq!(StatusCode::OK, answer.status, "{answer:?}");
    let answer = edge.send(connect("Between", Some(&token)), "{}").await;
    assert_eq!(StatusCode::FORBIDDEN, answer.status, "{answer:?}");

    let web = edge.request(Method::POST, "/echo.v1.EchoService/Secret");
    let web = web.header("content-type", "application/grpc-web+proto");
    let answer = edge.send(web, vec![0; 5]).await;
    assert_eq!(Some("16"), answer.header("grpc-status"), "{answer:?}");
}

/// Goal: what wants a role is handed on with a valid token that carries it alone, in all protocols, and
/// the refusal says what is missing.
/// Method: a method of an echo that lets nobody in, as it verifies no tokens, and says so: who hears
/// that came past the gateway. No token, a customer's, one of another role, one with the role signed
/// by somebody else, the role in metadata, and a good one.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_asked_for_in_every_protocol() {
    const HANDED_ON: &str = "tokens are not verified";
    let edge = Edge::with(TOKENS).await;
    until_open(&edge).await;
    let with_roles = |seed, roles| token(seed, &json!({}), &json!({ "roles": roles }));
    let (unknown, missing) = (Code::Unauthenticated, Code::PermissionDenied);
    let cases = [
        (None, unknown, false),
        (Some(good()), missing, false),
        (Some(with_roles(1, json!(["night"]))), missing, false),
        (Some(with_roles(1, json!("staff"))), unknown, false),
        (Some(with_roles(2, json!(["staff"]))), unknown, false),
        (
            Some(with_roles(1, json!(["night", "staff"]))),
            unknown,
            true,
        ),
    ];
    let (json, web) = ("application/json", "application/grpc-web+proto");
    for (token, expected, handed_on) in cases {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut request = Request::new(StaffRequest {});
        let metadata = request.metadata_mut();
        metadata.insert("roles", "staff".parse().unwrap());
        if let Some(bearer) = &bearer {
            metadata.insert("authorization", bearer.parse().unwrap());
        }
        let refused = client(&edge).staff(request).await.unwrap_err();
        assert_eq!(expected, refused.code(), "{bearer:?}: {refused:?}");
        assert_eq!(handed_on, refused.message().contains(HANDED_ON));

        let path = "/echo.v1.EchoService/Staff";
        for (method, path, kind, body) in [
            (Method::GET, "/v1/staff", json, &b""[..]),
            (Method::POST, path, json, b"{}"),
            (Method::POST, path, web, &[0; 5]),
        ] {
            let request = edge.request(method, path).header("content-type", kind);
            let mut request = request.header("roles", "staff");
            if let Some(bearer) = &bearer {
                request = request.header("authorization", bearer);
            }
            let answer = edge.send(request, body).await;
            let said = if kind == web {
                let status = (expected as i32).to_string();
                assert_eq!(Some(&*status), answer.header("grpc-status"), "{answer:?}");
                let said = answer.header("grpc-message").unwrap();
                said.replace("%20", " ").replace("%60", "`")
            } else {
                let forbidden = answer.status == StatusCode::FORBIDDEN;
                assert_eq!(expected == missing, forbidden, "{path}: {answer:?}");
                answer.text().to_owned()
            };
            assert_eq!(handed_on, said.contains(HANDED_ON), "{path}: {answer:?}");
            let names = said.contains("with the role `staff`");
            assert_eq!(expected == missing, names, "{path}: {answer:?}");
        }
    }
}

/// Goal: a token that is wrong in any way lets nobody in, and neither does anything beside it; what
/// was wrong, and the token, is not told.
/// Method: tokens with one fault each, and names of people in metadata, by gRPC and by JSON.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_a_good_token_lets_in() {
    let edge = Edge::with(TOKENS).await;
    until_open(&edge).await;
    let mut client = client(&edge);
    for (fault, token) in bad() {
        let refused = client.secret(with(SecretRequest {}, &token)).await;
        let refused = refused.unwrap_err();
        assert_eq!(
            Code::Unauthenticated,
            refused.code(),
            "{fault}: {refused:?}"
        );
        assert!(!format!("{refused:?}").contains(&token), "{fault}");
        let answer = get(&edge, "/v1/secret", Some(&token)).await;
        assert_eq!(
            StatusCode::UNAUTHORIZED,
            answer.status,
            "{fault}: {answer:?}"
        );
        assert!(!answer.text().contains(&token), "{fault}");
    }
    let mut forged = Request::new(SecretRequest {});
    let mut spelled = edge.request(Method::GET, "/v1/secret");
    for name in ["x-user-id", "x-account-id", "x-forwarded-user", "subject"] {
        forged.metadata_mut().insert(name, "ada".parse().unwrap());
        spelled = spelled.header(name, "ada");
    }
    let refused = client.secret(forged).await.unwrap_err();
    assert_eq!(Code::Unauthenticated, refused.code(), "{refused:?}");
    let answer = edge.send(spelled, "").await;
    assert_eq!(StatusCode::UNAUTHORIZED, answer.status, "{answer:?}");
}

/// Goal: a method that nobody describes is for those with a token, and one that is described as not
/// there is told to be so.
/// Method: methods of a service that is described, and a service that is not.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_described_wants_a_token() {
    let edge = Edge::with(TOKENS).await;
    until_open(&edge).await;
    let call = async |path: &'static str, token: Option<String>| {
        let channel: Channel = edge.gateway.client();
        let mut grpc = tonic::client::Grpc::new(channel);
        let request = token.map_or_else(
            || Request::new(SecretRequest {}),
            |token| with(SecretRequest {}, &token),
        );
        let codec = tonic_prost::ProstCodec::<SecretRequest, SecretRequest>::default();
        let path = http::uri::PathAndQuery::from_static(path);
        grpc.ready().await.unwrap();
        grpc.unary(request, path, codec).await.unwrap_err().code()
    };
    let missing = "/echo.v1.EchoService/Nope";
    assert_eq!(Code::Unimplemented, call(missing, None).await);
    assert_eq!(Code::Unimplemented, call(missing, Some(good())).await);

    // Registered, and served by somebody who has no such service to describe.
    let services = crate::support::services(&[
        (crate::support::ECHO, "echo"),
        ("dark.v1.DarkService", "echo"),
    ]);
    edge.registered.send(Some(services)).unwrap();
    let dark = "/dark.v1.DarkService/Any";
    let denied = async {
        while call(dark, None).await != Code::Unauthenticated {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(Duration::from_secs(20), denied)
        .await
        .unwrap();
    // Handed on: the echo itself says that it has no such service.
    assert_eq!(Code::Unimplemented, call(dark, Some(good())).await);
}

/// Goal: without keys nothing but what is public can be called, and it is said why.
/// Method: a gateway without `tokens.keys`, and a good token.
#[tokio::test(flavor = "multi_thread")]
async fn without_keys_only_what_is_public_is_open() {
    let edge = Edge::start().await;
    let answer = get(&edge, "/v1/secret", Some(&good())).await;
    assert_eq!(StatusCode::UNAUTHORIZED, answer.status, "{answer:?}");
    assert!(answer.text().contains("tokens.keys"), "{answer:?}");
    let answer = get(&edge, "/v1/echo/a", None).await;
    assert_eq!(StatusCode::OK, answer.status, "{answer:?}");
}

/// Goal: keys come from a URL as well; while there are none nobody is told that a token is at fault.
/// Method: a gateway whose issuer is a socket of this test, silent at first.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_read_from_a_url() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let settings = format!("[tokens]\nkeys = '{url}'\nissuer = 'echo.issuer'\naudience = 'echo'\n");
    let edge = Edge::with(&settings).await;
    let (kid, x) = public("key-1", 1);
    let set = json!({"keys": [
        {"kty": "RSA", "kid": "old", "n": "AQAB", "e": "AQAB"},
        {"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x, "alg": "EdDSA", "use": "sig"},
    ]});
    let answers = async {
        // The first is let go of.
        for set in std::iter::once(None).chain(std::iter::repeat(Some(set.to_string()))) {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let Some(set) = set else { continue };
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{set}",
                set.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    };
    tokio::select! {
        () = answers => unreachable!("it answers for ever"),
        () = until_open(&edge) => {}
    }
}

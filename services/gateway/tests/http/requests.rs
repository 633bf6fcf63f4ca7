//! Paths, queries, bodies and headers of requests, and how they are refused.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::Edge;

/// Goal: paths and queries fill the fields they name, decoded by the rules of their templates.
/// Method: GETs of an echo; what comes back.
#[tokio::test]
async fn paths_and_queries_fill_fields() {
    let edge = Edge::start().await;
    let cases = [
        ("/v1/echo", json!({})),
        ("/v1/echo?", json!({})),
        ("/v1/echo/a", json!({"message": {"text": "a"}})),
        (
            "/v1/echo/a%20b%2Fc+d",
            json!({"message": {"text": "a b/c+d"}}),
        ),
        ("/v1/echo/%C3%A9:x", json!({"message": {"text": "é:x"}})),
        (
            "/v1/echo/a%3Aforget",
            json!({"message": {"text": "a:forget"}}),
        ),
        ("/v1/%65cho/a", json!({"message": {"text": "a"}})),
        (
            "/v1/numbers/-7/inner/a/name/b%2fc",
            json!({"message": {"int32": -7, "inner": {"name": "inner/a/name/b%2fc"}}}),
        ),
        (
            "/v1/files/a/b%20c/d",
            json!({"message": {"text": "a/b c/d"}}),
        ),
        ("/v1/files/a%2Fb", json!({"message": {"text": "a%2Fb"}})),
        ("/v1/files", json!({"message": {}})),
        ("/v1/files/", json!({"message": {}})),
        ("/v1/files/a//b", json!({"message": {"text": "a//b"}})),
        ("/v1/files/a/b:read", json!({"message": {"text": "a/b"}})),
        (
            "/v1/files/a/b:other",
            json!({"message": {"text": "a/b:other"}}),
        ),
        (
            "/v1/at/1970-01-01T00:00:00Z/COLOR_RED/true",
            json!({"message": {"at": "1970-01-01T00:00:00Z", "color": "COLOR_RED", "wrappedBool": true}}),
        ),
        (
            "/v1/echo?note=a+b%26c&notes=1&notes=2",
            json!({"note": "a b&c", "notes": ["1", "2"]}),
        ),
        (
            "/v1/echo?message.int64=5&message.inner.name=x",
            json!({"message": {"int64": "5", "inner": {"name": "x"}}}),
        ),
        (
            "/v1/echo?message.ofSeveralWords=a&message.colors=1&message.colors=COLOR_GREEN",
            json!({"message": {"ofSeveralWords": "a", "colors": ["COLOR_RED", "COLOR_GREEN"]}}),
        ),
        (
            "/v1/echo?message.wrapped_int64=5&message.lasts=1.5s&message.mask=a,b&message.data=-_8",
            json!({"message": {"wrappedInt64": "5", "lasts": "1.500s", "mask": "a,b", "data": "+/8="}}),
        ),
        (
            "/v1/echo?message.times=1970-01-01T00:00:00Z&message.double=NaN",
            json!({"message": {"times": ["1970-01-01T00:00:00Z"], "double": "NaN"}}),
        ),
        ("/v1/echo?message.left=", json!({"message": {"left": ""}})),
        ("/v1/any", json!({})),
    ];
    for (path, expected) in cases {
        let answer = edge.get(path).await;
        assert_eq!(StatusCode::OK, answer.status, "{path}: {answer:?}");
        assert_eq!(expected, answer.json(), "{path}");
        assert_eq!(Some("application/json"), answer.header("content-type"));
    }
}

/// Goal: what a path or a query says wrongly is refused, and by name.
/// Method: GETs; the field of the violation.
#[tokio::test]
async fn wrong_paths_and_queries_are_refused_by_field() {
    let edge = Edge::start().await;
    let cases = [
        (
            "/v1/numbers/x/inner/a/name/b",
            "message.int32",
            "expected a number, found `x`",
        ),
        ("/v1/echo/%ff", "message.text", "do not make UTF-8"),
        ("/v1/echo/%2", "message.text", "two hexadecimal digits"),
        ("/v1/at/now/COLOR_RED/true", "message.at", "expected a time"),
        (
            "/v1/echo?nope=1",
            "nope",
            "echo.v1.EchoRequest has no field `nope`",
        ),
        (
            "/v1/echo?message.nope=1",
            "message.nope",
            "echo.v1.Everything has no field `nope`",
        ),
        ("/v1/echo?note.x=1", "note.x", "has no fields"),
        (
            "/v1/echo?message.inners.name=1",
            "message.inners.name",
            "has no fields",
        ),
        (
            "/v1/echo?message=1",
            "message",
            "is a echo.v1.Everything, which is more than one value",
        ),
        ("/v1/echo?message.by_text=1", "message.by_text", "is a map"),
        ("/v1/echo?note=1&note=2", "note", "twice"),
        (
            "/v1/echo?message.left=a&message.right=1",
            "message.right",
            "of which left is there too",
        ),
        (
            "/v1/echo?message.flag=yes",
            "message.flag",
            "expected true or false, found `yes`",
        ),
        (
            "/v1/echo?message.int32",
            "message.int32",
            "expected a number",
        ),
        ("/v1/echo?note=%zz", "note", "two hexadecimal digits"),
        (
            "/v1/echo/a?message.text=b",
            "message.text",
            "has its value from the path",
        ),
    ];
    for (path, field, text) in cases {
        let answer = edge.get(path).await;
        assert_eq!(StatusCode::BAD_REQUEST, answer.status, "{path}: {answer:?}");
        let (named, said) = answer.violation();
        assert_eq!(field, named, "{path}: {said}");
        assert!(said.contains(text), "{path}: {said}");
    }
}

/// Goal: unknown paths, missing parts and other methods are told apart.
/// Method: requests of each kind; the status, and what Allow says.
#[tokio::test]
async fn unknown_paths_and_methods_are_told_apart() {
    let edge = Edge::start().await;
    let cases = [
        (Method::GET, "/nowhere", 404, None),
        (Method::GET, "/v1", 404, None),
        (Method::GET, "/v1/echo/", 404, None),
        (Method::GET, "/v1/echo/a/b", 404, None),
        (Method::GET, "/v1/numbers//inner/a/name/b", 404, None),
        (Method::GET, "/v1/numbers/1/inner/a/name", 404, None),
        (Method::GET, "/V1/echo", 404, None),
        (Method::GET, "/v1/fail", 405, Some("POST")),
        (
            Method::POST,
            "/v1/echo/a",
            405,
            Some("GET, HEAD, PATCH, PUT"),
        ),
        (Method::GET, "/v1/echo/a:forget", 405, Some("DELETE")),
        (
            Method::OPTIONS,
            "/v1/echo",
            405,
            Some("GET, HEAD, POST, PURGE"),
        ),
        (Method::DELETE, "/v1/metadata", 405, Some("GET, HEAD")),
    ];
    for (method, path, status, allow) in cases {
        let answer = edge.send(edge.request(method.clone(), path), "").await;
        assert_eq!(
            status,
            answer.status.as_u16(),
            "{method} {path}: {answer:?}"
        );
        assert_eq!(allow, answer.header("allow"), "{method} {path}");
        let text = answer.json()["message"].to_string();
        assert!(text.contains(path), "{text}");
    }
    for (method, path) in [
        (Method::from_bytes(b"PURGE").unwrap(), "/v1/echo"),
        (Method::from_bytes(b"WHATEVER").unwrap(), "/v1/any"),
        (Method::DELETE, "/v1/echo/a:forget"),
        (Method::HEAD, "/v1/echo/a"),
    ] {
        let is_head = method == Method::HEAD;
        let answer = edge.send(edge.request(method, path), "").await;
        assert_eq!(StatusCode::OK, answer.status, "{path}: {answer:?}");
        assert_eq!(is_head, answer.body.is_empty(), "{answer:?}");
    }
}

/// Goal: bodies are what their rule says: the message, or one field; and so are answers.
/// Method: rules of each kind.
#[tokio::test]
async fn bodies_are_what_the_rule_says() {
    let edge = Edge::start().await;
    let json = "application/json; charset=\"UTF-8\"";
    let cases: [(Method, &str, &str, Value); 8] = [
        (Method::POST, "/v1/echo", "", json!({})),
        (
            Method::POST,
            "/v1/echo",
            "{\"note\": \"a\"}",
            json!({"note": "a"}),
        ),
        (
            Method::PUT,
            "/v1/echo/a?note=b",
            "{\"int32\": 1}",
            json!({"int32": 1, "text": "a"}),
        ),
        // What the path says counts.
        (
            Method::PUT,
            "/v1/echo/a",
            "{\"text\": \"b\"}",
            json!({"text": "a"}),
        ),
        (Method::PUT, "/v1/text", "\"a\"", json!("a")),
        (Method::PUT, "/v1/text", "null", json!("")),
        (
            Method::PATCH,
            "/v1/echo/a",
            "{\"notes\": [\"b\"]}",
            json!({"note": "a", "notes": ["b"]}),
        ),
        (
            Method::DELETE,
            "/v1/echo/a:forget?note=b",
            "",
            json!({"message": {"text": "a"}, "note": "b"}),
        ),
    ];
    for (method, path, body, expected) in cases {
        let request = edge
            .request(method.clone(), path)
            .header("content-type", json);
        let answer = edge.send(request, body.to_owned()).await;
        assert_eq!(StatusCode::OK, answer.status, "{method} {path}: {answer:?}");
        assert_eq!(expected, answer.json(), "{method} {path}");
    }
}

/// Goal: a body that is not what its rule says is refused, by the name of the field.
/// Method: bodies where none belongs, with a query beside them, of another kind, or with a value
/// that the contract forbids.
#[tokio::test]
async fn wrong_bodies_are_refused_by_field() {
    let edge = Edge::start().await;
    let json = "application/json";
    let refused = [
        (Method::GET, "/v1/echo", "{}", "body", "takes no body"),
        (
            Method::POST,
            "/v1/echo?note=a",
            "{}",
            "note",
            "takes everything in its body",
        ),
        (
            Method::PUT,
            "/v1/echo/a?message.int32=1",
            "{}",
            "message.int32",
            "is what the body holds",
        ),
        (Method::PUT, "/v1/text", "1", "note", "expected a string"),
        (
            Method::POST,
            "/v1/echo",
            "{\"note\": \"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789x\"}",
            "note",
            "at most 100",
        ),
    ];
    for (method, path, body, field, text) in refused {
        let request = edge
            .request(method.clone(), path)
            .header("content-type", json);
        let answer = edge.send(request, body.to_owned()).await;
        assert_eq!(StatusCode::BAD_REQUEST, answer.status, "{path}: {answer:?}");
        let (named, said) = answer.violation();
        assert_eq!(field, named, "{method} {path}: {said}");
        assert!(said.contains(text), "{method} {path}: {said}");
    }
}

/// Goal: a body of another type, compressed or too large is refused before it is read as JSON; what
/// the caller would rather have is no reason to refuse.
/// Method: headers and sizes.
#[tokio::test]
async fn types_and_sizes_are_bounded() {
    let edge = Edge::with("[http]\nbody_max = '1KiB'").await;
    let cases = [
        (Some("text/plain"), None, 415),
        (Some("application/x-www-form-urlencoded"), None, 415),
        (Some("application/json; charset=latin1"), None, 415),
        (Some("application/grpc-web+json"), None, 415),
        (None, None, 415),
        (Some("application/json"), Some("gzip"), 415),
        (
            Some("Application/JSON;charset=utf-8"),
            Some("identity"),
            200,
        ),
    ];
    for (content_type, encoding, status) in cases {
        let mut request = edge.request(Method::POST, "/v1/echo");
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        if let Some(encoding) = encoding {
            request = request.header("content-encoding", encoding);
        }
        let request = request.header("accept", "image/png, nonsense");
        let answer = edge.send(request, "{}").await;
        assert_eq!(
            status,
            answer.status.as_u16(),
            "{content_type:?}: {answer:?}"
        );
    }
    let note = format!("{{\"notes\": [\"{}\"]}}", "x".repeat(1_100));
    let answer = edge.post("/v1/echo", note).await;
    assert_eq!(StatusCode::PAYLOAD_TOO_LARGE, answer.status, "{answer:?}");
    assert!(
        answer
            .text()
            .contains("1024 bytes, the bound http.body_max"),
        "{answer:?}"
    );
}

/// Goal: an error is `google.rpc.Status` under the right status of HTTP, details by their types.
/// Method: each code; details that are known, of the service's own, and unknown.
#[tokio::test]
async fn errors_are_told_by_both_codes() {
    let edge = Edge::start().await;
    let codes = [
        (1, 499),
        (2, 500),
        (3, 400),
        (4, 504),
        (5, 404),
        (6, 409),
        (7, 403),
        (8, 429),
        (9, 400),
        (10, 409),
        (11, 400),
        (12, 501),
        (13, 500),
        (14, 503),
        (15, 500),
        (16, 401),
    ];
    for (code, status) in codes {
        let answer = edge
            .post(
                "/v1/fail",
                format!("{{\"code\": {code}, \"text\": \"é %\"}}"),
            )
            .await;
        assert_eq!(status, answer.status.as_u16(), "{answer:?}");
        let expected = json!({"code": code, "message": "é %", "details": []});
        assert_eq!(expected, answer.json());
        assert_eq!(
            (code == 16).then_some("Bearer"),
            answer.header("www-authenticate")
        );
    }
    let answer = edge
        .post("/v1/fail", r#"{"code": 14, "details": "DETAILS_RETRY"}"#)
        .await;
    assert_eq!(Some("2"), answer.header("retry-after"));
    let retry =
        json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.500s"}]);
    assert_eq!(retry, answer.json()["details"]);
    let answer = edge
        .post(
            "/v1/fail",
            r#"{"code": 9, "details": "DETAILS_OWN_AND_UNKNOWN"}"#,
        )
        .await;
    let details = json!([
        {"@type": "type.googleapis.com/echo.v1.Inner", "name": "own"},
        {"@type": "type.googleapis.com/nobody.Knows", "value": "AQID"},
    ]);
    assert_eq!(details, answer.json()["details"]);
}

/// Goal: who calls, how long and in which trace arrives; nothing else a stranger writes does.
/// Method: headers of all kinds; those that the service saw.
#[tokio::test]
async fn only_named_headers_pass() {
    let edge = Edge::start().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = edge
        .request(Method::GET, "/v1/metadata")
        .header("authorization", "Bearer abc")
        .header("grpc-timeout", "3S")
        .header("traceparent", trace)
        .header("tracestate", "a=b")
        .header("x-user", "root")
        .header("x-forwarded-for", "10.0.0.1")
        .header("cookie", "a=b")
        .header("grpc-metadata-user", "root")
        .header("via", "1.1 stranger")
        .header("accept-language", "de");
    let answer = edge.send(request, "").await;
    let seen = answer.json();
    let seen = seen.as_object().unwrap();
    assert_eq!("Bearer abc", seen["authorization"]);
    assert!(
        seen["traceparent"]
            .as_str()
            .unwrap()
            .starts_with(&trace[..36]),
        "{seen:?}"
    );
    assert_eq!("a=b", seen["tracestate"]);
    let timeout = seen["grpc-timeout"].as_str().unwrap();
    assert!(!timeout.ends_with('S') || timeout == "3S", "{timeout}");
    let known = [
        "authorization",
        "traceparent",
        "tracestate",
        "grpc-timeout",
        "content-type",
        "te",
        "user-agent",
        "via",
    ];
    let via = seen["via"].as_str().unwrap();
    assert!(via.starts_with("2.0 gantry-"), "{via}");
    for name in seen.keys() {
        assert!(known.contains(&name.as_str()), "{name} passed: {seen:?}");
    }
    assert!(answer.header("server").is_none());
    for (name, value, text) in [
        ("grpc-timeout", "soon", "send a number and a unit"),
        ("authorization", "Bearer b", "is there twice"),
    ] {
        let request = edge
            .request(Method::GET, "/v1/metadata")
            .header("authorization", "Bearer a");
        let answer = edge.send(request.header(name, value), "").await;
        assert_eq!(StatusCode::BAD_REQUEST, answer.status, "{answer:?}");
        let (field, said) = answer.violation();
        assert_eq!(name, field);
        assert!(said.contains(text), "{said}");
    }
}

/// Goal: a call ends with its caller's time.
/// Method: a stream of requests that never ends is not needed: a hanging stream, with a deadline.
#[tokio::test]
async fn deadlines_pass() {
    let edge = Edge::start().await;
    let request = edge.request(Method::GET, "/v1/count/0?hang=true");
    let answer = edge.send(request.header("grpc-timeout", "200m"), "").await;
    assert_eq!(StatusCode::GATEWAY_TIMEOUT, answer.status, "{answer:?}");
    assert_eq!(4, answer.json()["code"], "{answer:?}");
}

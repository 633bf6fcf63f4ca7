//! What there is to ask, told to programs and to people.

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Edge, services};

/// Goal: the document says what JSON can ask, by the same names, and the same each time.
/// Method: that of the echo; paths, parameters, bodies, answers and schemas of each kind.
#[tokio::test]
async fn the_document_says_what_can_be_asked() {
    let edge = Edge::start().await;
    let answer = edge.get("/openapi.json").await;
    assert_eq!(StatusCode::OK, answer.status, "{answer:?}");
    assert_eq!(Some("application/json"), answer.header("content-type"));
    let other = Edge::start().await.get("/openapi.json").await;
    assert_eq!(answer.body, other.body);

    let document = answer.json();
    let at = |pointer: &str| document.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!("3.1.0", at("/openapi"));
    let paths = document["paths"].as_object().unwrap();
    for path in [
        "/v1/echo",
        "/v1/echo/{message.text}",
        "/v1/files/{message.text}:read",
        "/v1/sum",
    ] {
        assert!(paths.contains_key(path), "{path} in {:?}", paths.keys());
    }
    // Paths that differ in names alone are one.
    let echo = &document["paths"]["/v1/echo/{message.text}"];
    for method in ["get", "put", "patch"] {
        let parameter = &echo[method]["parameters"][0];
        assert_eq!("message.text", parameter["name"], "{method}");
        assert_eq!(json!(true), parameter["required"], "{method}");
    }
    let numbers =
        "/v1/numbers/{message.int32}/inner/{message.inner.name_2}/name/{message.inner.name_4}";
    assert!(paths.contains_key(numbers), "{:?}", paths.keys());

    assert_eq!(
        "Answers with the request.",
        at("/paths/~1v1~1echo/post/summary")
    );
    assert_eq!(
        "#/components/schemas/echo.v1.EchoRequest",
        at("/paths/~1v1~1echo/post/requestBody/content/application~1json/schema/$ref")
    );
    let query = at("/paths/~1v1~1echo/get/parameters");
    let query: Vec<_> = query
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].clone())
        .collect();
    for name in [
        "note",
        "notes",
        "message.int64",
        "message.inner.name",
        "message.lasts",
    ] {
        assert!(query.contains(&name.into()), "{name} in {query:?}");
    }
    assert!(!query.contains(&"message.byText".into()), "{query:?}");
    let stream = "application/x-ndjson";
    let counted = at("/paths/~1v1~1count~1{messages}/get/responses/200/content");
    assert!(counted[stream].is_object(), "{counted}");
    let summed = at("/paths/~1v1~1sum/post/requestBody/content");
    assert!(summed[stream].is_object(), "{summed}");
    schemas(&document["components"]["schemas"]);
}

fn schemas(schemas: &Value) {
    let fields = &schemas["echo.v1.Everything"]["properties"];
    for (field, part, expected) in [
        ("int32", "type", json!("integer")),
        ("int64", "type", json!("string")),
        ("double", "type", json!(["number", "string"])),
        ("data", "contentEncoding", json!("base64")),
        ("at", "format", json!("date-time")),
        ("wrappedInt64", "type", json!(["string", "null"])),
        ("color", "$ref", json!("#/components/schemas/echo.v1.Color")),
        (
            "byText",
            "additionalProperties",
            json!({"type": "integer", "format": "int32"}),
        ),
        (
            "numbers",
            "items",
            json!({"type": "string", "format": "int64"}),
        ),
        (
            "nested",
            "$ref",
            json!("#/components/schemas/echo.v1.Everything"),
        ),
        (
            "otherName",
            "description",
            json!("Has another name in JSON."),
        ),
    ] {
        assert_eq!(expected, fields[field][part], "{field}: {}", fields[field]);
    }
    let left = fields["left"]["description"].as_str().unwrap();
    assert!(
        left.contains("At most one of this and `right`, `third`"),
        "{left}"
    );
    let names = json!(["COLOR_UNSPECIFIED", "COLOR_RED", "COLOR_GREEN"]);
    assert_eq!(names, schemas["echo.v1.Color"]["enum"]);
    assert!(
        schemas["echo.v1.HiddenRequest"].is_null(),
        "nobody asks with it"
    );
    assert!(schemas["google.rpc.Status"].is_object());
}

/// Goal: the page shows people every method, with nothing from elsewhere; both pages follow what is
/// registered, and are not there where the configuration says so.
/// Method: read it; take the service away; another gateway.
#[tokio::test]
async fn the_page_shows_what_there_is() {
    let edge = Edge::start().await;
    let page = edge.get("/").await;
    assert_eq!(
        Some("text/html; charset=utf-8"),
        page.header("content-type")
    );
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'"), "{policy}");
    for expected in [
        "echo.v1.EchoService",
        "GET /v1/echo/{message.text}",
        "PURGE /v1/echo",
        "Is not to be had in HTTP.",
        "map of string by string",
    ] {
        assert!(
            page.text().contains(expected),
            "{expected} in {}",
            page.text()
        );
    }
    for foreign in ["<script", "src=", "http://", "https://"] {
        assert!(!page.text().contains(foreign), "{foreign}");
    }
    edge.registered.send_replace(Some(services(&[])));
    while edge.get("/").await.text().contains("echo.v1") {
        tokio::task::yield_now().await;
    }
    let silent = Edge::with("[http]\npages = false").await;
    for path in ["/", "/openapi.json"] {
        assert_eq!(
            StatusCode::NOT_FOUND,
            silent.get(path).await.status,
            "{path}"
        );
    }
}

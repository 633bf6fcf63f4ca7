//! Every form of JSON there is: what it becomes, or why it is refused.

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::Edge;

/// What `message` comes back as.
async fn echoed(edge: &Edge, message: &str) -> Value {
    let answer = edge
        .post("/v1/echo", format!("{{\"message\": {message}}}"))
        .await;
    assert_eq!(StatusCode::OK, answer.status, "{message}: {answer:?}");
    answer.json()["message"].clone()
}

/// Each as it is sent, and as it comes back.
fn forms() -> Vec<(&'static str, Value)> {
    let mut forms = numbers();
    forms.extend(others());
    forms.extend(well_known());
    forms
}

fn numbers() -> Vec<(&'static str, Value)> {
    vec![
        ("{}", json!({})),
        (
            r#"{"int32": 1, "int64": 2, "uint32": 3}"#,
            json!({"int32": 1, "int64": "2", "uint32": 3}),
        ),
        (
            r#"{"int64": "-9223372036854775808", "uint64": "18446744073709551615"}"#,
            json!({"int64": "-9223372036854775808", "uint64": "18446744073709551615"}),
        ),
        (
            r#"{"uint64": 18446744073709551615}"#,
            json!({"uint64": "18446744073709551615"}),
        ),
        (
            r#"{"int32": "7", "sint64": "-7", "fixed64": "7"}"#,
            json!({"int32": 7, "sint64": "-7", "fixed64": "7"}),
        ),
        (
            r#"{"int32": 1.0, "int64": 1e3, "uint32": "2E1"}"#,
            json!({"int32": 1, "int64": "1000", "uint32": 20}),
        ),
        (
            r#"{"int32": 0, "int64": "0", "flag": false, "text": ""}"#,
            json!({}),
        ),
        (
            r#"{"double": 1.5, "float": "2.5"}"#,
            json!({"double": 1.5, "float": 2.5}),
        ),
        (
            r#"{"double": "NaN", "float": "-Infinity"}"#,
            json!({"double": "NaN", "float": "-Infinity"}),
        ),
        (
            r#"{"double": "Infinity", "float": 3}"#,
            json!({"double": "Infinity", "float": 3.0}),
        ),
        (r#"{"maybe": 0}"#, json!({"maybe": 0})),
        (r#"{"maybe": null, "int32": null}"#, json!({})),
        (
            r#"{"numbers": [1, "2", -3]}"#,
            json!({"numbers": ["1", "2", "-3"]}),
        ),
        (r#"{"numbers": [], "inners": null}"#, json!({})),
    ]
}

fn others() -> Vec<(&'static str, Value)> {
    vec![
        (
            r#"{"flag": true, "text": "é\u00e9\n\ud83d\ude00"}"#,
            json!({"flag": true, "text": "éé\n😀"}),
        ),
        (r#"{"data": "-_-_"}"#, json!({"data": "+/+/"})),
        (r#"{"data": "+/+/"}"#, json!({"data": "+/+/"})),
        (r#"{"data": "AQI="}"#, json!({"data": "AQI="})),
        (r#"{"data": "AQI"}"#, json!({"data": "AQI="})),
        (r#"{"color": "COLOR_RED"}"#, json!({"color": "COLOR_RED"})),
        (
            r#"{"color": 2, "colors": [1, "COLOR_GREEN", 0]}"#,
            json!({"color": "COLOR_GREEN", "colors": ["COLOR_RED", "COLOR_GREEN", "COLOR_UNSPECIFIED"]}),
        ),
        (r#"{"color": 99}"#, json!({"color": 99})),
        (r#"{"left": ""}"#, json!({"left": ""})),
        (r#"{"right": "0", "left": null}"#, json!({"right": "0"})),
        (r#"{"third": {}}"#, json!({"third": {}})),
        (
            r#"{"inner": {"name": "a"}, "inners": [{}, {"name": "b"}]}"#,
            json!({"inner": {"name": "a"}, "inners": [{}, {"name": "b"}]}),
        ),
        (
            r#"{"byText": {"a": 1, "": 2}}"#,
            json!({"byText": {"a": 1, "": 2}}),
        ),
        (
            r#"{"by_number": {"-1": {"name": "a"}}, "byFlag": {"true": "b"}}"#,
            json!({"byNumber": {"-1": {"name": "a"}}, "byFlag": {"true": "b"}}),
        ),
        (r#"{"ofSeveralWords": "a"}"#, json!({"ofSeveralWords": "a"})),
        (
            r#"{"of_several_words": "a", "renamed_field": "b"}"#,
            json!({"ofSeveralWords": "a", "otherName": "b"}),
        ),
        (r#"{"otherName": "b"}"#, json!({"otherName": "b"})),
        (
            r#"{"nested": {"nested": {"int32": 1}}}"#,
            json!({"nested": {"nested": {"int32": 1}}}),
        ),
    ]
}

fn well_known() -> Vec<(&'static str, Value)> {
    vec![
        (
            r#"{"wrappedInt64": "0", "wrappedText": "", "wrappedBool": false, "wrappedData": ""}"#,
            json!({"wrappedInt64": "0", "wrappedText": "", "wrappedBool": false, "wrappedData": ""}),
        ),
        (
            r#"{"wrappedInt64": 5, "wrappedBool": null, "wrappedData": "AQ"}"#,
            json!({"wrappedInt64": "5", "wrappedData": "AQ=="}),
        ),
        (
            r#"{"at": "1970-01-01T00:00:00Z"}"#,
            json!({"at": "1970-01-01T00:00:00Z"}),
        ),
        (
            r#"{"at": "2026-01-31T13:00:00.5+01:00"}"#,
            json!({"at": "2026-01-31T12:00:00.500Z"}),
        ),
        (
            r#"{"at": "9999-12-31T23:59:59.999999999Z"}"#,
            json!({"at": "9999-12-31T23:59:59.999999999Z"}),
        ),
        (
            r#"{"times": ["0001-01-01T00:00:00Z"]}"#,
            json!({"times": ["0001-01-01T00:00:00Z"]}),
        ),
        (r#"{"lasts": "1.5s"}"#, json!({"lasts": "1.500s"})),
        (
            r#"{"lasts": "-0.000000001s"}"#,
            json!({"lasts": "-0.000000001s"}),
        ),
        (r#"{"lasts": "0s"}"#, json!({"lasts": "0s"})),
        (r#"{"mask": "a,bC.dE"}"#, json!({"mask": "a,bC.dE"})),
        (r#"{"mask": ""}"#, json!({"mask": ""})),
        (
            r#"{"object": {"a": [1, null, {"b": true}], "c": "d"}}"#,
            json!({"object": {"a": [1.0, null, {"b": true}], "c": "d"}}),
        ),
        (r#"{"value": null}"#, json!({"value": null})),
        (
            r#"{"value": [1.5, "a"], "list": [[], {}]}"#,
            json!({"value": [1.5, "a"], "list": [[], {}]}),
        ),
        (r#"{"null": null}"#, json!({})),
        (r#"{"null": "NULL_VALUE"}"#, json!({})),
        (r#"{"empty": {}}"#, json!({"empty": {}})),
        (
            r#"{"any": {"@type": "type.googleapis.com/echo.v1.Inner", "name": "a"}}"#,
            json!({"any": {"@type": "type.googleapis.com/echo.v1.Inner", "name": "a"}}),
        ),
        (
            r#"{"any": {"value": "1.5s", "@type": "type.googleapis.com/google.protobuf.Duration"}}"#,
            json!({"any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1.500s"}}),
        ),
        (
            r#"{"any": {"@type": "type.googleapis.com/google.protobuf.Any", "value": {"@type": "type.googleapis.com/echo.v1.Inner"}}}"#,
            json!({"any": {"@type": "type.googleapis.com/google.protobuf.Any", "value": {"@type": "type.googleapis.com/echo.v1.Inner"}}}),
        ),
    ]
}

/// Goal: what JSON says arrives, and comes back in the canonical form.
/// Method: each form through a gateway to a service that gives it back.
#[tokio::test]
async fn every_form_arrives_and_comes_back() {
    let edge = Edge::start().await;
    for (sent, expected) in forms() {
        assert_eq!(expected, echoed(&edge, sent).await, "{sent}");
    }
}

/// What is wrong with a message, the field that is named, and what is said of it.
const REFUSED: [(&str, &str, &str); 57] = [
    (
        r#"{"int32": 2147483648}"#,
        "message.int32",
        "2147483648 is no whole number of 32 bits",
    ),
    (
        r#"{"int32": 1.5}"#,
        "message.int32",
        "1.5 is no whole number",
    ),
    (
        r#"{"int32": "1x"}"#,
        "message.int32",
        "expected a number, found `1x`",
    ),
    (r#"{"int32": " 1"}"#, "message.int32", "expected a number"),
    (r#"{"int32": "+1"}"#, "message.int32", "expected a number"),
    (r#"{"int32": "01"}"#, "message.int32", "expected a number"),
    (r#"{"int32": ""}"#, "message.int32", "expected a number"),
    (
        r#"{"int32": true}"#,
        "message.int32",
        "expected a number, found a boolean",
    ),
    (r#"{"int32": "NaN"}"#, "message.int32", "expected a number"),
    (
        r#"{"int64": 9223372036854775808}"#,
        "message.int64",
        "is no whole number of 64 bits",
    ),
    (
        r#"{"int64": 9.3e18}"#,
        "message.int64",
        "is no whole number of 64 bits",
    ),
    (
        r#"{"uint64": 18446744073709551616}"#,
        "message.uint64",
        "is no whole number",
    ),
    (r#"{"uint32": -1}"#, "message.uint32", "from zero up"),
    (
        r#"{"float": 3.5e38}"#,
        "message.float",
        "is no number of 32 bits",
    ),
    (
        r#"{"double": "inf"}"#,
        "message.double",
        "expected a number, found `inf`",
    ),
    (r#"{"double": 1e400}"#, "body", "out of range"),
    (r#"{"double": NaN}"#, "body", "expected value"),
    (
        r#"{"flag": "true"}"#,
        "message.flag",
        "expected true or false, found a string",
    ),
    (r#"{"flag": 1}"#, "message.flag", "expected true or false"),
    (
        r#"{"text": 1}"#,
        "message.text",
        "expected a string, found a number",
    ),
    (r#"{"data": "A"}"#, "message.data", "is not base64"),
    (r#"{"data": "A*=="}"#, "message.data", "is not base64"),
    (
        r#"{"data": [1]}"#,
        "message.data",
        "expected base64 as a string",
    ),
    (
        r#"{"color": "RED"}"#,
        "message.color",
        "echo.v1.Color has no value `RED`",
    ),
    (r#"{"color": "color_red"}"#, "message.color", "has no value"),
    (r#"{"color": 1.5}"#, "message.color", "no number of an enum"),
    (
        r#"{"color": true}"#,
        "message.color",
        "expected the name or the number",
    ),
    (
        r#"{"left": "a", "right": 1}"#,
        "message.right",
        "is one of `choice`, of which left is there too",
    ),
    (
        r#"{"inner": "a"}"#,
        "message.inner",
        "expected an object, found a string",
    ),
    (
        r#"{"inner": []}"#,
        "message.inner",
        "expected an object, found an array",
    ),
    (
        r#"{"inners": {}}"#,
        "message.inners",
        "expected an array, found an object",
    ),
    (
        r#"{"inners": [{}, null]}"#,
        "message.inners[1]",
        "an item cannot be null",
    ),
    (
        r#"{"inners": [{}, {"nam": 1}]}"#,
        "message.inners[1].nam",
        "echo.v1.Inner has no such field",
    ),
    (
        r#"{"unknown": 1}"#,
        "message.unknown",
        "echo.v1.Everything has no such field",
    ),
    (r#"{"Int32": 1}"#, "message.Int32", "has no such field"),
    (
        r#"{"int32": 1, "int32": 1}"#,
        "body",
        "the key \"int32\" is there twice",
    ),
    (
        r#"{"renamed_field": "a", "otherName": "b"}"#,
        "message.renamed_field",
        "twice, by both of its names",
    ),
    (
        r#"{"byText": {"a": null}}"#,
        "message.by_text[\"a\"]",
        "a value cannot be null",
    ),
    (
        r#"{"byText": {"a": "b"}}"#,
        "message.by_text[\"a\"]",
        "expected a number",
    ),
    (r#"{"byText": {"a": 1, "a": 2}}"#, "body", "there twice"),
    (
        r#"{"byText": [1]}"#,
        "message.by_text",
        "expected an object",
    ),
    (
        r#"{"byNumber": {"a": {}}}"#,
        "message.by_number[\"a\"]",
        "expected a number",
    ),
    (
        r#"{"byNumber": {"1": {}, "1.0": {}}}"#,
        "message.by_number[\"1.0\"]",
        "the key is there twice",
    ),
    (
        r#"{"byFlag": {"yes": "a"}}"#,
        "message.by_flag[\"yes\"]",
        "expected true or false",
    ),
    (
        r#"{"wrappedInt64": {"value": 1}}"#,
        "message.wrapped_int64",
        "expected a number, found an object",
    ),
    (
        r#"{"at": "2026-01-31"}"#,
        "message.at",
        "expected a time as in \"2026-01-31T12:00:00Z\"",
    ),
    (
        r#"{"at": "2026-02-30T00:00:00Z"}"#,
        "message.at",
        "expected a time",
    ),
    (r#"{"at": 1}"#, "message.at", "expected a time"),
    (
        r#"{"lasts": "1.5"}"#,
        "message.lasts",
        "expected a duration as in \"1.5s\"",
    ),
    (
        r#"{"lasts": "315576000001s"}"#,
        "message.lasts",
        "expected a duration",
    ),
    (
        r#"{"mask": "a_b"}"#,
        "message.mask",
        "expected names of fields",
    ),
    (r#"{"object": [1]}"#, "message.object", "expected an object"),
    (
        r#"{"empty": {"a": 1}}"#,
        "message.empty.a",
        "has no such field",
    ),
    (
        r#"{"any": {"name": "a"}}"#,
        "message.any",
        "wants the type of its message",
    ),
    (
        r#"{"any": {"@type": "type.googleapis.com/nobody.Knows"}}"#,
        "message.any",
        "knows no type",
    ),
    (
        r#"{"any": {"@type": "type.googleapis.com/google.protobuf.Duration", "seconds": 1}}"#,
        "message.any",
        "is in \"value\"",
    ),
    (
        r#"{"any": {"@type": "type.googleapis.com/echo.v1.Inner", "nam": 1}}"#,
        "message.any.nam",
        "has no such field",
    ),
];

/// Goal: what is no message of the contract is refused, and whoever sent it learns which field.
/// Method: each through a gateway.
#[tokio::test]
async fn what_is_not_the_message_is_refused_by_field() {
    let edge = Edge::start().await;
    for (sent, field, text) in REFUSED {
        let answer = edge
            .post("/v1/echo", format!("{{\"message\": {sent}}}"))
            .await;
        assert_eq!(StatusCode::BAD_REQUEST, answer.status, "{sent}: {answer:?}");
        assert_eq!(3, answer.json()["code"], "{sent}");
        let (named, said) = answer.violation();
        assert_eq!(field, named, "{sent}: {said}");
        assert!(said.contains(text), "{sent}: {said}");
    }
}

/// Goal: what is no JSON, or no text, is refused, wherever it stands.
/// Method: bodies of bytes.
#[tokio::test]
async fn what_is_not_json_is_refused() {
    let edge = Edge::start().await;
    let bodies: [(&[u8], &str); 9] = [
        (b"{", "EOF"),
        (b"{\"note\": \"a\"} x", "trailing characters"),
        (b"[]", "expected an object, found an array"),
        (b"null", "expected an object, found null"),
        (b"{\"note\": \"\xff\"}", "byte 10 is not UTF-8"),
        (b"{\"note\": \"\\ud800\"}", "hex escape"),
        (b"{\"note\": \"a\nb\"}", "control character"),
        (b"{'note': 1}", "key must be a string"),
        (b"\xef\xbb\xbf{}", "expected value"),
    ];
    for (body, text) in bodies {
        let answer = edge.post("/v1/echo", body).await;
        assert_eq!(StatusCode::BAD_REQUEST, answer.status, "{answer:?}");
        let (field, said) = answer.violation();
        assert_eq!("body", field, "{said}");
        assert!(said.contains(text), "{said}");
    }
}

/// Goal: nesting is bounded where it is read, so that no stack overflows and nobody else refuses it.
/// Method: messages, lists and objects inside of each other, as deep as is taken and far deeper.
#[tokio::test]
async fn deep_nesting_is_refused() {
    let edge = Edge::start().await;
    let nested =
        |depth: usize| format!("{}{}", "{\"nested\": ".repeat(depth), "{}") + &"}".repeat(depth);
    let answer = edge
        .post("/v1/echo", format!("{{\"message\": {}}}", nested(90)))
        .await;
    assert_eq!(StatusCode::OK, answer.status, "{answer:?}");
    let value = |open: &str, close: &str, depth: usize| {
        format!(
            "{{\"value\": {}1{}}}",
            open.repeat(depth),
            close.repeat(depth)
        )
    };
    echoed(&edge, &value("[", "]", 20)).await;
    for sent in [
        nested(110),
        nested(100_000),
        value("[", "]", 60),
        value("[", "]", 100_000),
        value("{\"a\": ", "}", 60),
        value("{\"a\": ", "}", 100_000),
    ] {
        let answer = edge
            .post("/v1/echo", format!("{{\"message\": {sent}}}"))
            .await;
        assert_eq!(StatusCode::BAD_REQUEST, answer.status, "{answer:?}");
        let (_, said) = answer.violation();
        let deep = ["more than 100", "recursion limit", "nested too deep"];
        assert!(deep.iter().any(|it| said.contains(it)), "{said}");
    }
}

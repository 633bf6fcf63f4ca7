use prost::Message as _;
use prost_reflect::DescriptorPool;
use serde_json::json;

use super::{super::descriptors, *};

fn response() -> MessageDescriptor {
    let pool = DescriptorPool::decode(&*descriptors::descriptors()).unwrap();
    pool.get_message_by_name("echo.v1.EchoResponse").unwrap()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = pairs
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
    owned.collect()
}

fn wish(keep: &[(&str, &str)], expect: &[(&str, &str)]) -> Result<Option<Wish>, String> {
    Wish::of(response(), &pairs(keep), &pairs(expect))
}

/// Goal: fields are found wherever they are, and kept only of what is as expected, defaults
/// included.
/// Method: a nested field, one of a list, an enum; an answer that is as expected and others.
#[test]
fn fields_are_kept_of_what_is_as_expected() {
    let look = |value: serde_json::Value, wish: &Wish| {
        let message = DynamicMessage::deserialize(response(), value).unwrap();
        wish.look(&message.encode_to_vec())
    };
    let keep = [("said", "request.text"), ("part", "request.parts.1.number")];
    let expect = [("request.mood", "MOOD_CALM"), ("instance", "")];
    let wish = wish(&keep, &expect).unwrap().unwrap();
    let parts = json!([{}, {"number": 7}]);
    let request = json!({"text": "a", "mood": "MOOD_CALM", "parts": parts});
    let kept = look(json!({ "request": request }), &wish).unwrap();
    assert_eq!(pairs(&[("said", "a"), ("part", "7")]), kept);

    for (answer, words) in [
        (json!({}), "request.mood is \"\", expected \"MOOD_CALM\""),
        (
            json!({"request": {"text": "a"}}),
            "request.mood is \"MOOD_UNSPECIFIED\"",
        ),
        (
            json!({"instance": "x", "request": {"mood": "MOOD_CALM"}}),
            "instance is \"x\"",
        ),
        (
            json!({"request": {"mood": "MOOD_CALM"}}),
            "no request.parts.1.number",
        ),
    ] {
        let why = look(answer, &wish).unwrap_err();
        assert!(why.contains(words), "{words} in {why}");
    }
    assert!(wish.look(b"\xff").unwrap_err().starts_with("no echo.v1"));
}

/// Goal: a field that does not exist is told before anything is called, with the nearest.
/// Method: slips at every depth; nothing wanted.
#[test]
fn fields_that_do_not_exist_are_refused() {
    for (path, words) in [
        ("txet", "has no field \"txet\" (did you mean \"text\"?)"),
        ("request.mod", "EchoRequest has no field \"mod\""),
        ("text.more", "there is no more in it"),
        ("request.parts.number", "there is no number in it"),
        ("", "has no field \"\""),
    ] {
        let why = wish(&[("a", path)], &[]).unwrap_err();
        assert!(why.contains(words), "{words} in {why}");
    }
    assert!(wish(&[], &[]).unwrap().is_none());
}

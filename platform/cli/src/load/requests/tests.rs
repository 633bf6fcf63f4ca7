use prost_reflect::DescriptorPool;

use super::{super::descriptors, *};

fn shape(message: &str, stream: bool) -> Shape {
    let pool = DescriptorPool::decode(&*descriptors::descriptors()).unwrap();
    Shape {
        descriptor: pool.get_message_by_name(message).unwrap(),
        stream,
    }
}

fn echo(stream: bool) -> Shape {
    shape("echo.v1.EchoRequest", stream)
}

/// The messages of a call as JSON, read back from the wire.
fn messages(payload: &Payload, number: u64, shape: &Shape) -> Vec<Value> {
    let (bytes, volume) = match payload {
        Payload::Framed(bytes, volume) => (bytes.clone(), *volume),
        Payload::Filled(template) => template.fill(number, &Values::new()).unwrap(),
    };
    let mut rest = &*bytes;
    let mut messages = Vec::new();
    while let [0, a, b, c, d, wire @ ..] = rest {
        let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap();
        let message = DynamicMessage::decode(shape.descriptor.clone(), &wire[..length]).unwrap();
        messages.push(serde_json::to_value(&message).unwrap());
        rest = &wire[length..];
    }
    assert!(rest.is_empty());
    assert_eq!(u64::try_from(messages.len()).unwrap(), volume.messages);
    messages
}

/// Goal: values are calls in turn, whatever space is between them; a stream gets all values, or an
/// array for each call.
/// Method: the same values in several forms, counted by call and by message.
#[test]
fn values_become_calls() {
    let cases: [(&str, bool, &[usize]); 9] = [
        ("{}", false, &[1]),
        ("{\"text\":\"a\"}\n{\"text\":\"b\"}\n", false, &[1, 1]),
        (" {\n\"text\": \"é\"\n} {}{} ", false, &[1, 1, 1]),
        ("", true, &[0]),
        ("{}", true, &[1]),
        ("{} {}", true, &[2]),
        ("[{}, {}]", true, &[2]),
        ("[{}]\n[]\n[{},{},{}]", true, &[1, 0, 3]),
        ("{\"text\":\"{{n}}\"} {}", true, &[2]),
    ];
    for (text, stream, expected) in cases {
        let shape = echo(stream);
        let calls = read(text, &shape, &[]).unwrap();
        let counts: Vec<_> = calls
            .iter()
            .map(|call| messages(call, 7, &shape).len())
            .collect();
        assert_eq!(expected, counts, "{text}");
    }
}

/// Goal: placeholders are filled anew for each call, in strings and as numbers; the rest stays.
/// Method: fill for two calls, next to text that only looks like a placeholder.
#[test]
fn placeholders_are_filled_for_each_call() {
    let text = r#"{"text": "é {{n}}-{{uuid}} {{ {n} }}", "counts": {"a{{n}}": {{ n }}}}"#;
    let shape = echo(false);
    let calls = read(text, &shape, &[]).unwrap();
    assert!(matches!(calls[..], [Payload::Filled(_)]));
    let mut texts = Vec::new();
    for number in [0, 12_345] {
        let message = &messages(&calls[0], number, &shape)[0];
        let text = message["text"].as_str().unwrap().to_owned();
        assert!(text.starts_with(&format!("é {number}-")), "{text}");
        assert!(text.ends_with(" {{ {n} }}"), "{text}");
        let count = &message["counts"][format!("a{number}")];
        assert_eq!(number.to_string(), count.as_str().unwrap());
        texts.push(text.split_once('-').unwrap().1.to_owned());
    }
    assert_eq!(
        "00000000-0000-0000-0000-000000000000 {{ {n} }}".len(),
        texts[0].len()
    );
    assert_ne!(texts[0], texts[1], "a new UUID each time");

    let fixed = read("{\"text\": \"{{ n }\"}", &shape, &[]).unwrap();
    assert!(matches!(fixed[..], [Payload::Framed(..)]));
}

/// Goal: what cannot be sent is refused with line, field and what was meant.
/// Method: slips of several kinds.
#[test]
fn slips_are_refused_with_their_place() {
    let cases = [
        (
            "{}\n\n{\"txet\": 1}",
            false,
            3,
            "txet: echo.v1.EchoRequest has no field \"txet\" (did you mean \"text\"?)",
        ),
        (
            "{\"parts\": [{}, {\"numbr\": 1}]}",
            false,
            1,
            "parts[1].numbr: echo.v1.Part has no field \"numbr\" (did you mean \"number\"?)",
        ),
        (
            "{\"text\":\n\"{{uid}}\"}",
            false,
            2,
            "no placeholder {{uid}} (did you mean \"uuid\"?)",
        ),
        ("{}\n{", false, 2, "no JSON"),
        ("{\"text\": 3}", false, 1, "echo.v1.EchoRequest"),
        ("[{}]", false, 1, "one request per line"),
        ("  ", false, 1, "no request"),
        ("{\"mood\": \"MOOD_{{n}}\"}", false, 1, "MOOD_10000"),
        ("[{}]\n[{\"txet\": 1}]", true, 2, "txet"),
    ];
    for (text, stream, line, words) in cases {
        let fault = read(text, &echo(stream), &[]).unwrap_err();
        assert_eq!(line, fault.line, "{text}: {fault:?}");
        assert!(fault.why.contains(words), "{words} in {fault:?}");
    }
}

/// Goal: types with a JSON of their own are not taken for slips.
/// Method: a duration, an enum's number, a map and an optional field.
#[test]
fn every_json_of_a_message_is_taken() {
    let text = r#"{"pause": "1.5s", "mood": 1, "counts": {"any key": "3"}, "parts": [{"number": 1}], "raw": "AAE="}"#;
    read(text, &echo(false), &[]).unwrap();
}

//! What is written is read again, and what others write as well as it can be.

use lapin::types::ByteArray;

use super::*;

fn message() -> Message {
    let headers = [
        ("id", "0193"),
        ("type", "shop.orders.v1.OrderPlaced"),
        ("time", "2026-11-30T08:00:01.5Z"),
        ("datacontenttype", "application/protobuf"),
        ("traceparent", "00-ab-cd-01"),
        ("gantry-attempt", "2"),
    ];
    Message {
        topic: "shop.orders.v1.OrderPlaced".to_owned(),
        key: "order-7".to_owned(),
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        body: "body".into(),
    }
}

fn table(pairs: impl IntoIterator<Item = (&'static str, AMQPValue)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in pairs {
        table.insert(name.into(), value);
    }
    table
}

/// Goal: a message is on the wire as the binding of CloudEvents has it, with what tools of RabbitMQ show.
/// Method: look at the properties of one, and read them again.
#[test]
fn a_message_is_written_by_the_binding() {
    let properties = properties(&message(), None);
    assert_eq!(Some(2), *properties.delivery_mode());
    let short = |text: &ShortString| text.as_str().to_owned();
    assert_eq!(
        Some("0193".to_owned()),
        properties.message_id().as_ref().map(short)
    );
    let kind = properties.content_type().as_ref().map(short);
    assert_eq!(Some("application/protobuf".to_owned()), kind);
    assert_eq!(Some(1_796_025_601), *properties.timestamp());
    let headers = properties.headers().clone().unwrap();
    let names: Vec<_> = headers
        .inner()
        .keys()
        .map(|it| it.as_str().to_owned())
        .collect();
    let expected = [
        "cloudEvents:id",
        "cloudEvents:time",
        "cloudEvents:traceparent",
        "cloudEvents:type",
        "gantry-attempt",
        "gantry-key",
    ];
    assert_eq!(expected.as_slice(), names);
    let read = read(&properties, "any.key", b"body".to_vec());
    assert_eq!(message(), read.message);
    assert_eq!((None, false), (read.place, read.came_before));
}

/// Goal: a message of somebody else's is read: the other prefix, other types, none of our headers.
/// Method: read some that were never written by us.
#[test]
fn messages_of_others_are_read() {
    let headers = table([
        ("cloudEvents_type", text("a.Told")),
        ("cloudEvents:subject", text("key-1")),
        ("Count", AMQPValue::LongInt(-7)),
        ("flag", AMQPValue::Boolean(true)),
        ("bytes", AMQPValue::ByteArray(ByteArray::from(vec![1, 2]))),
        ("broken", AMQPValue::LongString(vec![b'a', 0xFF].into())),
        ("x-delivery-count", AMQPValue::LongLongInt(3)),
    ]);
    let properties = BasicProperties::default().with_headers(headers);
    let properties = properties.with_content_type("text/plain".into());
    let found = read(&properties, "b.Other.17", Vec::new());
    assert_eq!("text/plain", found.message.headers["datacontenttype"]);
    assert_eq!(
        ("a.Told", "key-1"),
        (&*found.message.topic, &*found.message.key)
    );
    let names: Vec<_> = found.message.headers.keys().map(String::as_str).collect();
    assert_eq!(
        [
            "broken",
            "count",
            "datacontenttype",
            "flag",
            "subject",
            "type"
        ]
        .as_slice(),
        names
    );
    assert_eq!("-7", found.message.headers["count"]);
    assert!(found.came_before, "it came back to its queue");
    let bare = read(&BasicProperties::default(), "b.Other.17", Vec::new());
    assert_eq!(("b.Other", ""), (&*bare.message.topic, &*bare.message.key));
}

/// Goal: a dead letter has its place, and what RabbitMQ says of one that it made itself is known.
/// Method: write one with a place; read the last death of several.
#[test]
fn deaths_are_read() {
    let written = properties(&message(), Some(1_796_025_601_000_000));
    let found = read(&written, "", Vec::new());
    assert_eq!(Some(1_796_025_601_000_000), found.place);
    assert_eq!(
        message().headers,
        found.message.headers,
        "the place is nobody's header"
    );
    let death = |reason: &str, time: u64| {
        AMQPValue::FieldTable(table([
            ("reason", text(reason)),
            ("time", AMQPValue::Timestamp(time)),
        ]))
    };
    let deaths = vec![death("delivery_limit", 20), death("expired", 10)];
    let headers = table([("x-death", AMQPValue::FieldArray(deaths.into()))]);
    let properties = BasicProperties::default().with_headers(headers);
    let found = read(&properties, "", Vec::new());
    let expected = Death {
        reason: "delivery_limit".to_owned(),
        time: 20,
    };
    assert_eq!(Some(expected), found.death);
    assert!(found.came_before);
}

/// Goal: no text is too long for the wire, and none is cut within a character.
/// Method: write a message whose names and values are longer than AMQP has room for.
#[test]
fn long_names_are_cut() {
    let mut long = message();
    let name = "é".repeat(200);
    long.headers.insert("id".to_owned(), name.clone());
    long.headers.insert(format!("gantry-{name}"), name.clone());
    let properties = properties(&long, None);
    let id = properties.message_id().as_ref().unwrap().as_str();
    assert_eq!(254, id.len());
    let found = read(&properties, "", Vec::new());
    assert_eq!(name, found.message.headers["id"], "what is read is whole");
}

/// Goal: what others put into headers never makes a message that no frame has room for, and what we say of
/// it ourselves is never left out for it.
/// Method: one long header; many short ones, whose names are longer with our prefix; a key without end.
#[test]
fn headers_of_others_are_bounded() {
    let long = || [("long".to_owned(), "x".repeat(130_000))].into();
    let many = || (0..9_000).map(|it| (format!("h{it}"), "v".to_owned()));
    let cases: [(Headers, usize); 2] = [(long(), 1), (many().collect(), 2_000)];
    for (others, least) in cases {
        let mut message = message();
        message.key = "k".repeat(130_000);
        message.headers.extend(others);
        let all = message.headers.len();
        let error = "e".repeat(1_000);
        message
            .headers
            .insert("gantry-dead-error".to_owned(), error.clone());
        let written = properties(&message, Some(7));
        let table = written.headers().clone().unwrap();
        let bytes: usize = table
            .inner()
            .iter()
            .map(|(name, value)| {
                let AMQPValue::LongString(value) = value else {
                    return name.as_str().len() + 9;
                };
                name.as_str().len() + value.as_bytes().len() + 6
            })
            .sum();
        assert!(bytes < 100_000, "{bytes}");
        let read = read(&written, "", Vec::new()).message;
        assert_eq!(error, read.headers["gantry-dead-error"]);
        assert_eq!("00-ab-cd-01", read.headers["traceparent"]);
        let left_out: usize = read.headers["gantry-left-out"].parse().unwrap();
        assert!(left_out >= least && left_out < all, "{left_out}");
        // A copy of it leaves out no more.
        let again = properties(&read, Some(7));
        let again = super::read(&again, "", Vec::new()).message;
        assert!(read.headers == again.headers, "{}", again.headers.len());
    }
}

//! Every rule, both ways, through generated code.

use gantry::contract::{Validate, Violations};
use gantry_build_rules::{other, rules::v1::*};
use prost_types::{Duration, Timestamp};

/// The field and the rule of each violation, in order.
fn broken(message: &impl Validate) -> Vec<(String, &'static str)> {
    let mut violations = Violations::new();
    message.validate(&mut violations);
    violations
        .into_found()
        .into_iter()
        .map(|violation| (violation.field, violation.rule))
        .collect()
}

fn check(message: &impl Validate, expected: &[(&str, &'static str)], said: &str) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(field, rule)| ((*field).to_owned(), *rule))
        .collect();
    assert_eq!(broken(message), expected, "{said}");
}

/// For each field and rule, values that pass and values that do not.
macro_rules! cases {
    ($message:ident { $($field:ident $rule:literal: [$($good:expr),*] not [$($bad:expr),*];)* }) => {
        $(
            $({
                let good = $message { $field: Some($good.into()), ..$message::default() };
                check(&good, &[], concat!(stringify!($field), " = ", stringify!($good)));
            })*
            $({
                let bad = $message { $field: Some($bad.into()), ..$message::default() };
                let name = stringify!($field).trim_start_matches("r#");
                check(&bad, &[(name, $rule)], concat!(stringify!($field), " = ", stringify!($bad)));
            })*
        )*
    };
}

#[test]
fn texts() {
    cases!(Text {
        r#const "string.const": ["a\"b"] not ["", "ab"];
        len "string.len": ["abc", "äöü"] not ["", "ab", "abcd"];
        min_len "string.min_len": ["abc", "äöü", "abcd"] not ["", "äö"];
        not_empty "string.min_len": ["a"] not [""];
        max_len "string.max_len": ["", "abc", "äöü"] not ["abcd", "äöüß"];
        len_bytes "string.len_bytes": ["abcd", "äö"] not ["", "äöü"];
        min_bytes "string.min_bytes": ["abcd", "äö"] not ["", "abc"];
        max_bytes "string.max_bytes": ["", "äö"] not ["äöü"];
        pattern "string.pattern": ["a1", "abc7"] not ["", "a", "1", "a12", "xa1 ", "a٣"];
        prefix "string.prefix": ["ab", "abc"] not ["", "a", "cab"];
        suffix "string.suffix": ["ab", "cab"] not ["", "b", "abc"];
        contains "string.contains": ["ab", "cabc"] not ["", "acb"];
        not_contains "string.not_contains": ["", "acb"] not ["ab", "cabc"];
        r#in "string.in": ["a", "b"] not ["", "ab"];
        not_in "string.not_in": ["", "ab"] not ["a", "b"];
        email "string.email": ["a@example.com"] not ["", "a"];
        hostname "string.hostname": ["example.com"] not ["", "-"];
        ip "string.ip": ["1.2.3.4", "::1"] not ["", "a"];
        ipv4 "string.ipv4": ["1.2.3.4"] not ["", "::1"];
        ipv6 "string.ipv6": ["::1"] not ["", "1.2.3.4"];
        uri "string.uri": ["https://example.com/"] not ["", "/"];
        address "string.address": ["example.com", "1.2.3.4", "::1"] not ["", "a b"];
        uuid "string.uuid": ["01890a5d-ac96-774b-bcce-b302099a8057"] not ["", "01890a5dac96774bbcceb302099a8057"];
        tuuid "string.tuuid": ["01890a5dac96774bbcceb302099a8057"] not [""];
        ulid "string.ulid": ["01ARZ3NDEKTSV4RRFFQ69G5FAV"] not [""];
        nothing "": ["", "no email"] not [];
    });
}

#[test]
fn raw_bytes() {
    cases!(Raw {
        r#const "bytes.const": [b"\x00\xff"] not [b"", b"\x00"];
        len "bytes.len": [b"ab"] not [b"", b"abc"];
        min_len "bytes.min_len": [b"ab", b"abc"] not [b"", b"a"];
        max_len "bytes.max_len": [b"", b"ab"] not [b"abc"];
        prefix "bytes.prefix": [b"\x01\x02\x03"] not [b"", b"\x01"];
        suffix "bytes.suffix": [b"\x03\x01\x02"] not [b"", b"\x02"];
        contains "bytes.contains": [b"\x03\x01\x02\x03"] not [b"", b"\x01\x03\x02"];
        r#in "bytes.in": [b"a", b"bc"] not [b"", b"b"];
        not_in "bytes.not_in": [b"", b"b"] not [b"a", b"bc"];
        ip "bytes.ip": [[0; 4], [0; 16]] not [b"", [0; 5]];
        ipv4 "bytes.ipv4": [[0; 4]] not [b"", [0; 16]];
        ipv6 "bytes.ipv6": [[0; 16]] not [b"", [0; 4]];
        uuid "bytes.uuid": [[0; 16]] not [b"", [0; 4]];
    });
}

#[test]
fn numbers() {
    cases!(Numbers {
        r#const "int32.const": [-5] not [0, 5];
        lt "int32.lt": [i32::MIN, 9] not [10, i32::MAX];
        lte "int64.lte": [i64::MAX - 1] not [i64::MAX];
        gt "uint32.gt": [11_u32, u32::MAX] not [0_u32, 10_u32];
        gte "uint64.gte": [u64::MAX] not [u64::MAX - 1];
        gte_lte "sint32.gte_lte": [i32::MIN, -5] not [-4, i32::MAX];
        gt_lt "sint64.gt_lt": [6] not [5, 7];
        gt_lte "fixed32.gt_lte": [6_u32, 7_u32] not [5_u32, 8_u32];
        gte_lt "fixed64.gte_lt": [5_u64, 6_u64] not [4_u64, 7_u64];
        gt_lt_exclusive "sfixed32.gt_lt_exclusive": [4, 8] not [5, 6, 7];
        gte_lte_exclusive "sfixed64.gte_lte_exclusive": [5, 7] not [6];
        r#in "int32.in": [-1, 1] not [0];
        not_in "int32.not_in": [0] not [-1, 1];
        float_const "float.const": [0.1_f32] not [0.2_f32, f32::NAN];
        finite "double.finite": [0.0, f64::MAX] not [f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
        double_range "double.gte_lt": [-1.5, f64::MAX] not [-1.6, f64::INFINITY, f64::NAN];
        float_exclusive "float.gt_lt_exclusive": [4.9_f32, 7.1_f32] not [5.0_f32, 7.0_f32, f32::NAN];
        double_in "double.in": [0.1, 1e300] not [0.0, f64::NAN];
        truth "bool.const": [true] not [false];
    });
}

#[test]
fn enums() {
    cases!(Enums {
        r#const "enum.const": [Colour::Blue] not [Colour::Unspecified, 99];
        defined_only "enum.defined_only": [Colour::Unspecified, Colour::Green] not [3, -1];
        r#in "enum.in": [Colour::Red, Colour::Blue] not [Colour::Unspecified, Colour::Green];
        not_in "enum.not_in": [Colour::Unspecified, 99] not [Colour::Red, Colour::Blue];
    });
}

fn seconds(seconds: i64) -> Duration {
    Duration { seconds, nanos: 0 }
}

fn nanos(nanos: i32) -> Duration {
    Duration { seconds: 0, nanos }
}

fn moment(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

/// The moment this many seconds from now.
#[expect(
    clippy::disallowed_methods,
    reason = "the rules are about the wall clock"
)]
fn from_now(seconds: i64) -> Timestamp {
    let mut now = Timestamp::from(std::time::SystemTime::now());
    now.seconds += seconds;
    now
}

#[test]
fn times() {
    cases!(Times {
        r#const "duration.const": [Duration { seconds: 1, nanos: 5 }] not [seconds(1)];
        range "duration.gt_lte": [nanos(1), seconds(60)] not [nanos(0), nanos(-1), Duration { seconds: 60, nanos: 1 }];
        r#in "duration.in": [seconds(1), seconds(2)] not [seconds(3)];
        not_in "duration.not_in": [seconds(1)] not [seconds(-1)];
        moment "timestamp.const": [moment(7)] not [moment(8)];
        after "timestamp.gte": [moment(1_700_000_000)] not [moment(1_699_999_999)];
        past "timestamp.lt_now": [from_now(-600)] not [from_now(600)];
        future "timestamp.gt_now": [from_now(600)] not [from_now(-600)];
        near "timestamp.within": [from_now(-30), from_now(30)] not [from_now(-600), from_now(600)];
    });
}

#[test]
fn wrappers_have_the_rules_of_what_they_wrap() {
    let must = Some(false);
    check(
        &Wrapped {
            must,
            ..Wrapped::default()
        },
        &[],
        "not set",
    );
    let bad = Wrapped {
        text: Some("a".to_owned()),
        number: Some(5),
        raw: Some(vec![]),
        must: None,
    };
    let expected = [
        ("text", "string.min_len"),
        ("number", "int32.gt"),
        ("raw", "bytes.len"),
        ("must", "required"),
    ];
    check(&bad, &expected, "all broken");
}

/// A `Plain` that breaks nothing.
fn plain() -> Plain {
    Plain {
        always: "ab".to_owned(),
        required: "a".to_owned(),
        required_list: vec![0],
        required_map: [(String::new(), 0)].into(),
        required_enum: Colour::Red.into(),
        ..Plain::default()
    }
}

#[test]
fn fields_without_presence_are_always_checked() {
    check(&plain(), &[], "good");
    let expected = [
        ("always", "string.min_len"),
        ("required", "required"),
        ("required_list", "required"),
        ("required_map", "required"),
        ("required_enum", "required"),
    ];
    check(&Plain::default(), &expected, "all zero");
    let bad = Plain {
        ignored_when_empty: "a".to_owned(),
        ignored_when_zero: 1,
        required: "abc".to_owned(),
        ignored_double: 0.5,
        ..plain()
    };
    let expected = [
        ("ignored_when_empty", "string.min_len"),
        ("ignored_when_zero", "int32.gt"),
        ("required", "string.max_len"),
        ("ignored_double", "double.gt"),
    ];
    check(&bad, &expected, "not zero");
}

#[test]
fn fields_with_presence_are_checked_once_set() {
    let good = Present {
        required: Some(String::new()),
        required_leaf: Some(Leaf::default()),
        unchecked_leaf: Some(Leaf { number: -1 }),
        ..Present::default()
    };
    check(&good, &[], "good");
    let expected = [("required", "required"), ("required_leaf", "required")];
    check(&Present::default(), &expected, "nothing set");
    let bad = Present {
        text: Some(String::new()),
        required: Some("abc".to_owned()),
        zero_counts: Some(0),
        leaf: Some(Leaf { number: -1 }),
        required_leaf: Some(Leaf { number: -1 }),
        unchecked_leaf: None,
        named: Some(other::v1::Named::default()),
        innermost: Some(present::inner::Innermost { r#type: 1 }),
    };
    let expected = [
        ("text", "string.min_len"),
        ("required", "string.max_len"),
        ("zero_counts", "int32.gt"),
        ("leaf.number", "int32.gte"),
        ("required_leaf.number", "int32.gte"),
        ("named.name", "string.min_len"),
        ("innermost.type", "int32.lte"),
    ];
    check(&bad, &expected, "all broken");
}

#[test]
fn members_of_a_oneof_are_checked_once_set() {
    use choices::{Choice, Must, TypeOneOf};

    let good = |choice| Choices {
        choice,
        must: Some(Must::One(String::new())),
        r#type: Some(TypeOneOf::Forced(String::new())),
    };
    check(&good(None), &[], "none");
    check(&good(Some(Choice::Text("ab".to_owned()))), &[], "good text");
    check(&good(Some(Choice::Free(-1))), &[], "no rules");
    check(
        &Choices::default(),
        &[("must", "required"), ("forced", "required")],
        "required",
    );
    let other = Choices {
        r#type: Some(TypeOneOf::Unforced(String::new())),
        ..good(None)
    };
    check(&other, &[("forced", "required")], "another member");

    let text = good(Some(Choice::Text(String::new())));
    check(&text, &[("text", "string.min_len")], "bad text");
    let leaf = good(Some(Choice::Leaf(Leaf { number: -1 })));
    check(&leaf, &[("leaf.number", "int32.gte")], "bad leaf");
    let deep = good(Some(Choice::Again(Box::new(leaf))));
    check(
        &deep,
        &[("again.leaf.number", "int32.gte")],
        "bad leaf further in",
    );
}

#[test]
fn at_most_one_of_a_set_of_fields() {
    let good = AtMostOne {
        a: 1,
        ..AtMostOne::default()
    };
    check(&good, &[], "one, and none");
    let one_each = AtMostOne {
        leaf: Some(Leaf::default()),
        choice: Some(at_most_one::Choice::C(0)),
        ..AtMostOne::default()
    };
    check(&one_each, &[], "one each");
    let none = AtMostOne {
        choice: Some(at_most_one::Choice::D(0)),
        ..AtMostOne::default()
    };
    check(&none, &[("", "message.oneof")], "none of those that must");
    let many = AtMostOne {
        text: "a".to_owned(),
        numbers: vec![0],
        b: Some(0),
        choice: Some(at_most_one::Choice::C(0)),
        ..AtMostOne::default()
    };
    let expected = [
        ("text", "string.min_len"),
        ("", "message.oneof"),
        ("", "message.oneof"),
    ];
    check(&many, &expected, "two each");
}

#[test]
fn lists() {
    let texts = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
    let good = Lists {
        min_items: vec![1, 2],
        max_items: vec![1, 2],
        unique: texts(&["a", "b"]),
        unique_double: vec![0.0, 1.0, f64::NAN, f64::NAN],
        items: texts(&["ab", "cd"]),
        items_or_empty: texts(&["", "ab"]),
        leaves: vec![Leaf { number: 1 }],
        unchecked_leaves: vec![Leaf { number: -1 }],
        colours: vec![Colour::Green.into()],
        trees: vec![],
    };
    check(&good, &[], "good");
    check(&Lists::default(), &[], "empty");
    let bad = Lists {
        min_items: vec![1],
        max_items: vec![1, 2, 3],
        unique: texts(&["a", "b", "a"]),
        unique_double: vec![0.0, -0.0],
        items: texts(&["ab", "c", ""]),
        items_or_empty: texts(&["", "a"]),
        leaves: vec![Leaf { number: 1 }, Leaf { number: -1 }],
        colours: vec![3],
        ..Lists::default()
    };
    let expected = [
        ("min_items", "repeated.min_items"),
        ("max_items", "repeated.max_items"),
        ("unique", "repeated.unique"),
        ("unique_double", "repeated.unique"),
        ("items[1]", "string.min_len"),
        ("items[2]", "string.min_len"),
        ("items_or_empty[1]", "string.min_len"),
        ("leaves[1].number", "int32.gte"),
        ("colours[0]", "enum.defined_only"),
    ];
    check(&bad, &expected, "all broken");
}

#[test]
fn maps() {
    let counts = |keys: &[&str]| keys.iter().map(|key| ((*key).to_owned(), 0)).collect();
    let good = Maps {
        min_pairs: counts(&["a", "b"]),
        max_pairs: counts(&["a"]),
        keys: counts(&["ab"]),
        values: [(-1, "ab".to_owned())].into(),
        leaves: [(true, Leaf { number: 0 })].into(),
    };
    check(&good, &[], "good");
    check(&Maps::default(), &[], "empty");
    let bad = Maps {
        min_pairs: counts(&["a"]),
        max_pairs: counts(&["a", "b"]),
        keys: counts(&["a"]),
        values: [(-1, "a".to_owned())].into(),
        leaves: [(true, Leaf { number: -1 })].into(),
    };
    let expected = [
        ("min_pairs", "map.min_pairs"),
        ("max_pairs", "map.max_pairs"),
        (r#"keys["a"]"#, "string.min_len"),
        ("values[-1]", "string.min_len"),
        ("leaves[true].number", "int32.gte"),
    ];
    check(&bad, &expected, "all broken");
}

#[test]
fn messages_that_hold_themselves() {
    let leaf = || Tree {
        name: "leaf".to_owned(),
        ..Tree::default()
    };
    let bad = Tree::default;
    let tree = Tree {
        child: Some(Box::new(Tree {
            children: vec![leaf(), bad()],
            ..leaf()
        })),
        by_name: [("x".to_owned(), bad())].into(),
        ..leaf()
    };
    let expected = [
        ("child.children[1].name", "string.min_len"),
        (r#"by_name["x"].name"#, "string.min_len"),
    ];
    check(&tree, &expected, "deep");
    let list = Lists {
        trees: vec![leaf(), bad()],
        ..Lists::default()
    };
    check(&list, &[("trees[1].name", "string.min_len")], "in a list");
}

#[test]
fn names_that_rust_writes_otherwise_are_told_as_in_the_contract() {
    let bad = Named::default();
    let expected = [
        ("type", "int32.gt"),
        ("self", "int32.gt"),
        ("HTTPCode", "int32.gt"),
    ];
    check(&bad, &expected, "all zero");
}

#[test]
fn descriptions_are_sentences_for_the_caller() {
    fn said(message: &impl Validate) -> Vec<String> {
        let mut violations = Violations::new();
        message.validate(&mut violations);
        let found = violations.into_found().into_iter();
        found.map(|violation| violation.description).collect()
    }

    let texts = Text {
        r#const: Some(String::new()),
        not_empty: Some(String::new()),
        max_len: Some("abcd".to_owned()),
        pattern: Some(String::new()),
        r#in: Some(String::new()),
        uuid: Some(String::new()),
        ..Text::default()
    };
    let expected = [
        r#"must equal "a\"b""#,
        "must not be empty",
        "must have at most 3 characters",
        r"must match ^[a-z]+\d$",
        r#"must be one of "a", "b""#,
        "must be a UUID",
    ];
    assert_eq!(said(&texts), expected);

    let numbers = Numbers {
        lt: Some(10),
        gt_lte: Some(0),
        gt_lt_exclusive: Some(6),
        float_const: Some(0.0),
        ..Numbers::default()
    };
    let expected = [
        "must be less than 10",
        "must be greater than 5 and at most 7",
        "must be greater than 7 or less than 5",
        "must equal 0.1",
    ];
    assert_eq!(said(&numbers), expected);

    let others = Enums {
        r#in: Some(0),
        ..Enums::default()
    };
    assert_eq!(said(&others), ["must be one of COLOUR_RED, COLOUR_BLUE"]);
    let times = Times {
        range: Some(seconds(61)),
        after: Some(moment(0)),
        ..Times::default()
    };
    let expected = [
        "must be greater than 0s and at most 60s",
        "must be at least 2023-11-14T22:13:20Z",
    ];
    assert_eq!(said(&times), expected);
}

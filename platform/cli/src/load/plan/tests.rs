use bytes::Bytes;

use super::{super::exchange::Volume, *};

fn plan(weights: &[u32]) -> Plan {
    let methods = weights.iter().map(|weight| Method {
        name: String::new(),
        path: String::new(),
        weight: *weight,
        deadline: None,
        uri: Uri::default(),
        headers: HeaderMap::new(),
        headers_filled: Vec::new(),
        payloads: Vec::new(),
        one_answer: true,
        idempotency: Idempotency::Unknown,
        next: 0,
        credit: 0,
    });
    Plan {
        methods: methods.collect(),
    }
}

/// Goal: methods are called exactly as often as their weights say, mixed as evenly as it goes.
/// Method: two rounds of several weights; the longest run of one method.
#[test]
fn weights_are_kept_exactly_and_mixed() {
    for weights in [vec![1], vec![3, 1], vec![5, 1, 2], vec![1, 1, 1]] {
        let mut plan = plan(&weights);
        let total: u32 = weights.iter().sum();
        let chosen: Vec<_> = (0..2 * total).map(|_| plan.choose()).collect();
        for (index, weight) in weights.iter().enumerate() {
            let count = chosen.iter().filter(|it| **it == index).count();
            assert_eq!(usize::try_from(2 * weight).unwrap(), count, "{chosen:?}");
        }
    }
    let mut plan = plan(&[2, 2]);
    let chosen: Vec<_> = (0..4).map(|_| plan.choose()).collect();
    assert_eq!(vec![0, 1, 0, 1], chosen);
}

/// Goal: calls in flight at the end have the time they were given, and a bound without one.
/// Method: plans with and without deadlines.
#[test]
fn the_end_waits_as_long_as_calls_may_take() {
    let mut plan = plan(&[1, 1]);
    assert_eq!(LINGER + LINGER_MORE, plan.linger());
    plan.methods[0].deadline = Some(Duration::from_mins(1));
    assert_eq!(Duration::from_mins(1) + LINGER_MORE, plan.linger());
}

/// Goal: metadata is filled for each call where it has placeholders, and refused where that or the
/// rest of it makes no sense.
/// Method: one call of each kind of metadata; wrong keys, values and words.
#[test]
fn metadata_may_have_placeholders() {
    let pairs = [
        ("x-a", "1"),
        ("X-Request-Id", "load-{{n}}-{{uuid}}"),
        ("a-bin", "AAE="),
    ];
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let mut plan = plan(&[1]);
    let method = &mut plan.methods[0];
    (method.headers, method.headers_filled) = headers(&pairs, None).unwrap();
    method.payloads = vec![Payload::Framed(Bytes::new(), Volume::default())];
    let mut sent = |number| {
        let headers = method.exchange(number).unwrap().headers;
        assert_eq!(
            ("1", "AAE"),
            (text(&headers["x-a"]), text(&headers["a-bin"]))
        );
        text(&headers["x-request-id"]).to_owned()
    };
    let (first, second) = (sent(7), sent(8));
    assert!(first.starts_with("load-7-") && second.starts_with("load-8-"));
    assert_ne!(first["load-7-".len()..], second["load-8-".len()..]);

    let cases = [
        ("x-a", "{{m}}", "no placeholder {{m}}"),
        ("a-bin", "{{uuid}}", "has no placeholders"),
        ("a b", "{{n}}", "the key"),
        ("x-a", "\u{7}{{n}}", "the value"),
    ];
    for (key, value, words) in cases {
        let why = check_header(key, value).unwrap_err();
        assert!(why.contains(words), "{words} in {why}");
    }
}

fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap()
}

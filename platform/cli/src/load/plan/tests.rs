use std::cell::Cell;

use bytes::Bytes;
use gantry::contract::Idempotency;
use http::{HeaderMap, HeaderValue, Uri};

use super::{
    super::{exchange::Volume, requests::Payload},
    method::headers,
    *,
};

fn method() -> Method {
    Method {
        path: String::new(),
        target: 0,
        deadline: None,
        uri: Uri::default(),
        headers: HeaderMap::new(),
        headers_filled: Vec::new(),
        payloads: Vec::new(),
        one_answer: true,
        idempotency: Idempotency::Unknown,
        wish: None,
        next: Cell::new(0),
    }
}

fn plan_of(weights: &[u32], steps: impl Fn() -> Vec<Method>) -> Plan {
    let calls = weights.iter().map(|weight| Call {
        name: String::new(),
        weight: *weight,
        steps: steps().into(),
        credit: 0,
    });
    Plan {
        targets: Vec::new(),
        before: Vec::new(),
        calls: calls.collect(),
    }
}

fn plan(weights: &[u32]) -> Plan {
    plan_of(weights, || vec![method()])
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
/// Method: plans with and without deadlines, and with steps, each of which may take its time.
#[test]
fn the_end_waits_as_long_as_calls_may_take() {
    assert_eq!(LINGER + LINGER_MORE, plan(&[1, 1]).linger());
    let steps = || {
        let mut long = method();
        long.deadline = Some(Duration::from_mins(1));
        vec![method(), long]
    };
    let expected = Duration::from_mins(1) + LINGER + LINGER_MORE;
    assert_eq!(expected, plan_of(&[1], steps).linger());
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
        ("authorization", "Bearer {{token}}"),
    ];
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let mut method = method();
    let names = ["token".to_owned()];
    (method.headers, method.headers_filled) = headers(&pairs, None, &names).unwrap();
    let values = Values::from([("token".to_owned(), "t\"x".to_owned())]);
    method.payloads = vec![Payload::Framed(Bytes::new(), Volume::default())];
    let sent = |number| {
        let headers = method.exchange(number, &values).unwrap().headers;
        assert_eq!(
            ("1", "AAE"),
            (text(&headers["x-a"]), text(&headers["a-bin"]))
        );
        assert_eq!("Bearer t\"x", text(&headers["authorization"]));
        text(&headers["x-request-id"]).to_owned()
    };
    let (first, second) = (sent(7), sent(8));
    assert!(first.starts_with("load-7-") && second.starts_with("load-8-"));
    assert_ne!(first["load-7-".len()..], second["load-8-".len()..]);

    let cases = [
        ("x-a", "{{m}}", "no placeholder {{m}}"),
        (
            "x-a",
            "{{tokn}}",
            "(did you mean \"token\"?); there are {{n}}, {{uuid}} and {{token}}",
        ),
        ("a-bin", "{{uuid}}", "has no placeholders"),
        ("a b", "{{n}}", "the key"),
        ("x-a", "\u{7}{{n}}", "the value"),
    ];
    for (key, value, words) in cases {
        let why = check_header(key, value, &names).unwrap_err();
        assert!(why.contains(words), "{words} in {why}");
    }
}

fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap()
}

/// Goal: calls are told apart by whom they go to and how much they matter, up to a number.
/// Method: calls to two, of two criticalities; to more than are told apart.
#[test]
fn kinds_are_told_apart_and_bounded() {
    let whom = |number: usize| Whom {
        name: format!("w{number}"),
        retry: Vec::new(),
    };
    let call = |target: usize, criticality: &'static str| {
        let mut method = method();
        method.target = target;
        let key = gantry::caller::CRITICALITY.clone();
        method
            .headers
            .insert(key, HeaderValue::from_static(criticality));
        Call {
            name: String::new(),
            weight: 1,
            steps: vec![method].into(),
            credit: 0,
        }
    };
    let mut plan = plan(&[]);
    plan.targets = (0..20).map(whom).collect();
    plan.calls = vec![
        call(0, "CRITICAL"),
        call(1, "CRITICAL"),
        call(1, "SHEDDABLE"),
        call(1, "sheddable"),
    ];
    let (kinds, of) = plan.kinds();
    assert_eq!((3, vec![0, 1, 2, 2]), (kinds.len(), of));
    assert_eq!(
        ("w1", Some("SHEDDABLE")),
        (&*kinds[2].target, kinds[2].criticality)
    );

    plan.calls = (0..20).map(|target| call(target, "CRITICAL")).collect();
    let (kinds, of) = plan.kinds();
    assert_eq!(KINDS_MAX, kinds.len());
    assert_eq!("others", kinds[KINDS_MAX - 1].target);
    assert!(
        of[KINDS_MAX..].iter().all(|kind| *kind == KINDS_MAX - 1),
        "{of:?}"
    );
}

//! Paths, and the bounds of what is told.

use super::*;

struct Leaf;

impl Validate for Leaf {
    fn validate(&self, violations: &mut Violations) {
        violations.add("name", "string.min_len", "must not be empty");
        violations.add("", "message.oneof", "one must be set");
    }
}

struct Node;

impl Validate for Node {
    fn validate(&self, violations: &mut Violations) {
        violations.within("leaf", &Leaf);
        violations.within_element("leaves", At::Index(3), &Box::new(Leaf));
        violations.within_element("by_name", At::key(&"a\"b".to_owned()), &Leaf);
        violations.add_element("counts", &At::key(&7), "int32.gt", "must be greater than 7");
    }
}

#[test]
fn paths_lead_from_the_request_to_the_field() {
    let mut violations = Violations::new();
    violations.within("node", &Node);

    let fields: Vec<_> = violations
        .found()
        .iter()
        .map(|found| &*found.field)
        .collect();
    let expected = [
        "node.leaf.name",
        "node.leaf",
        "node.leaves[3].name",
        "node.leaves[3]",
        r#"node.by_name["a\"b"].name"#,
        r#"node.by_name["a\"b"]"#,
        "node.counts[7]",
    ];
    assert_eq!(fields, expected);
}

/// Goal: a caller cannot make the answer larger than the headers a peer takes.
/// Method: break very many rules, at places with long names, and measure the status as it is sent.
#[test]
fn what_is_told_fits_into_the_headers_of_an_answer() {
    let long: &'static str = "x".repeat(10_000).leak();
    let cases = [
        ("short", "must be set"),
        ("a_rather_long_name_of_a_field", "must be shorter"),
        (long, long),
    ];
    for (field, description) in cases {
        let mut violations = Violations::new();
        let mut tries = 0;
        while !violations.is_full() && tries < 1_000 {
            violations.add_element(field, &At::key(&long), "rule", description);
            tries += 1;
        }
        assert!(violations.is_full(), "{tries} violations did not fill it");
        assert!(violations.found().len() <= COUNT_MAX + 1);

        let status = crate::status::invalid_argument(
            violations
                .into_found()
                .into_iter()
                .map(|found| (found.field, found.description)),
        );
        let headers = status.into_http::<()>().headers().clone();
        let size: usize = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 32)
            .sum();
        assert!(size < 8_192, "{size} bytes of headers");
    }
}

#[test]
fn more_than_are_listed_are_said_to_be_there() {
    let mut violations = Violations::new();
    for _ in 0..COUNT_MAX {
        violations.add("f", "r", "d");
    }
    assert!(!violations.is_full());
    for _ in 0..3 {
        violations.add("f", "r", "d");
    }
    assert!(violations.is_full());
    let found = violations.into_found();
    assert_eq!(found.len(), COUNT_MAX + 1);
    assert_eq!(
        found[COUNT_MAX].description,
        "more rules are broken than are listed"
    );
}

//! What is said of an empty text that may not be empty.

use gantry::contract::{Validate as _, Violations};
use gantry_build_rules::rules::v1::Filled;

/// The field and the rule of each violation, in order.
fn broken(id: &str, code: &str) -> Vec<(String, &'static str)> {
    let message = Filled {
        id: id.to_owned(),
        code: code.to_owned(),
    };
    let mut violations = Violations::new();
    message.validate(&mut violations);
    let found = violations.into_found().into_iter();
    found
        .map(|violation| (violation.field, violation.rule))
        .collect()
}

/// Goal: an empty text is told once, by the rule on its length; of any other, every broken rule is.
/// Method: texts with several rules: as they should be, empty, and wrong in every way.
#[test]
fn an_empty_text_is_told_once() {
    let told = |expected: &[(&str, &'static str)]| -> Vec<_> {
        let owned = expected.iter();
        owned
            .map(|(field, rule)| ((*field).to_owned(), *rule))
            .collect()
    };
    assert_eq!(told(&[]), broken("ab", "AB"));
    let empty = [("id", "string.min_len"), ("code", "string.len")];
    assert_eq!(told(&empty), broken("", ""));
    let wrong = [
        ("id", "string.max_len"),
        ("id", "string.pattern"),
        ("id", "string.in"),
        ("code", "string.pattern"),
        ("code", "string.len"),
    ];
    assert_eq!(told(&wrong), broken("ABCDEF", "a"));
}

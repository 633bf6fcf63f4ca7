//! Regular expressions: the rule speaks RE2's language, the program Rust's.
//!
//! The two agree but for a few things, which are put right here or refused: RE2's `\d`, `\s`, `\w`
//! and `\b` know ASCII only, and inside brackets `[`, `&&`, `--` and `~~` are ordinary to it.

use regex_syntax::ast::{
    self, AssertionKind, Ast, ClassPerl, ClassPerlKind, ClassSet, ClassSetItem, Span, Visitor,
};

/// `pattern` as the regex crate has to be told it, or why that cannot be.
pub(super) fn translate(pattern: &str) -> Result<String, String> {
    let unreadable = |error: &dyn std::fmt::Display| {
        // The crate draws its errors over several lines; the last says what is wrong.
        let text = error.to_string();
        let line = text.lines().last().unwrap_or_default();
        let line = line.strip_prefix("error: ").unwrap_or(line).to_owned();
        format!("is no regular expression: {line}")
    };
    let parsed = ast::parse::Parser::new()
        .parse(pattern)
        .map_err(|error| unreadable(&error))?;
    let mut edits = ast::visit(&parsed, Edits::default())?;
    // From the back, so that earlier places stay where they are.
    edits.sort_by_key(|(span, _)| std::cmp::Reverse(span.start.offset));
    let mut translated = pattern.to_owned();
    for (span, text) in edits {
        translated.replace_range(span.start.offset..span.end.offset, text);
    }
    regex::Regex::new(&translated).map_err(|error| unreadable(&error))?;
    Ok(translated)
}

/// The places where the two languages differ, and what to write there.
#[derive(Default)]
struct Edits {
    found: Vec<(Span, &'static str)>,
}

impl Edits {
    fn class(&mut self, class: &ClassPerl) {
        let text = match (&class.kind, class.negated) {
            (ClassPerlKind::Digit, false) => "[0-9]",
            (ClassPerlKind::Digit, true) => "[^0-9]",
            (ClassPerlKind::Space, false) => r"[\t\n\f\r ]",
            (ClassPerlKind::Space, true) => r"[^\t\n\f\r ]",
            (ClassPerlKind::Word, false) => "[0-9A-Za-z_]",
            (ClassPerlKind::Word, true) => "[^0-9A-Za-z_]",
        };
        self.found.push((class.span, text));
    }
}

impl Visitor for Edits {
    type Output = Vec<(Span, &'static str)>;
    type Err = String;

    fn finish(self) -> Result<Self::Output, String> {
        Ok(self.found)
    }

    fn visit_pre(&mut self, node: &Ast) -> Result<(), String> {
        match node {
            Ast::ClassPerl(class) => self.class(class),
            Ast::ClassBracketed(class) => {
                if let ClassSet::BinaryOp(_) = class.kind {
                    return Err("has an operator inside brackets; escape it".to_owned());
                }
            }
            Ast::Assertion(assertion) => match assertion.kind {
                AssertionKind::WordBoundary => self.found.push((assertion.span, r"(?-u:\b)")),
                AssertionKind::NotWordBoundary => self.found.push((assertion.span, r"(?-u:\B)")),
                AssertionKind::StartLine
                | AssertionKind::EndLine
                | AssertionKind::StartText
                | AssertionKind::EndText => {}
                _ => return Err("has an assertion that RE2 does not know".to_owned()),
            },
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), String> {
        match item {
            ClassSetItem::Perl(class) => self.class(class),
            ClassSetItem::Bracketed(_) => {
                return Err("has brackets inside brackets; escape the inner ones".to_owned());
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::translate;

    #[test]
    fn classes_are_of_ascii_as_re2_has_them() {
        let cases = [
            (r"^\d+$", "12", "١٢"),
            (r"^\w+$", "az_9", "äz"),
            (r"^[\w-]+$", "a-z", "ä-z"),
            (r"^[^\d]$", "٣", "3"),
            (r"^[\D]$", "٣", "3"),
            (r"^\S$", "\u{2003}", " "),
            (r"^\S$", "\u{b}", "\t"),
            (r"\bend", "ä end", "an_end"),
            (r"\bend", "äend", "bend"),
        ];
        for (pattern, matching, other) in cases {
            let translated = translate(pattern).expect(pattern);
            let regex = regex::Regex::new(&translated).expect("checked by translate");
            assert!(
                regex.is_match(matching),
                "{pattern} should match {matching:?}"
            );
            assert!(
                !regex.is_match(other),
                "{pattern} should not match {other:?}"
            );
        }
    }

    #[test]
    fn other_patterns_are_left_as_they_are() {
        for pattern in [
            "^[a-z][a-z0-9-]{2,40}$",
            "(?i)a|b",
            "[[:alpha:]]+",
            r"\pL\.\\d",
        ] {
            assert_eq!(translate(pattern).as_deref(), Ok(pattern));
        }
    }

    #[test]
    fn what_the_languages_read_differently_is_refused() {
        let cases = [
            ("[a&&b]", "has an operator inside brackets; escape it"),
            (
                "[a[b]]",
                "has brackets inside brackets; escape the inner ones",
            ),
            (r"\b{start}a", "has an assertion that RE2 does not know"),
            ("a(", "is no regular expression: unclosed group"),
            (
                r"(a)\1",
                "is no regular expression: backreferences are not supported",
            ),
        ];
        for (pattern, why) in cases {
            assert_eq!(translate(pattern), Err(why.to_owned()), "{pattern}");
        }
    }
}

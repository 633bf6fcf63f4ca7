//! Templates of paths, as `google.api.http` has them.
//!
//! ```text
//! Template = "/" Segments [ ":" LITERAL ]
//! Segments = Segment { "/" Segment }
//! Segment  = "*" | "**" | LITERAL | "{" FieldPath [ "=" Segments ] "}"
//! ```

use std::fmt;

/// One part of a path between slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// These characters, decoded.
    Literal(String),
    /// Any one segment that is not empty.
    Single,
    /// All that follow, none included. Comes last.
    Rest,
}

/// Segments that make up the value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// The field, as it is written: `order.order_id`.
    pub field: String,
    /// The first of its segments.
    pub first: usize,
    /// How many there are in the template; the last may stand for more.
    pub count: usize,
    /// Whether its value is a path itself: more than one segment, or as many as there are.
    pub is_path: bool,
}

/// A path with places for fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// As it was written.
    pub text: String,
    /// Its segments.
    pub segments: Vec<Segment>,
    /// Its variables, in order.
    pub variables: Vec<Variable>,
    /// What follows the last segment after a colon.
    pub verb: Option<String>,
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the path `{text}` {what}")]
pub struct Malformed {
    text: String,
    what: String,
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// If it is not one.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let malformed = |what: String| Malformed {
            text: text.to_owned(),
            what,
        };
        let path = text
            .strip_prefix('/')
            .ok_or_else(|| malformed("does not begin with `/`".to_owned()))?;
        let (path, verb) = split_verb(path);
        let mut template = Self {
            text: text.to_owned(),
            segments: Vec::new(),
            variables: Vec::new(),
            verb: verb.map(str::to_owned),
        };
        if let Some(verb) = verb {
            check_literal(verb).map_err(malformed)?;
        }
        for part in outer_segments(path).map_err(malformed)? {
            template.add(part).map_err(malformed)?;
        }
        let rests = template.segments.iter().rev().skip(1);
        if rests.into_iter().any(|it| *it == Segment::Rest) {
            return Err(malformed("has something after `**`".to_owned()));
        }
        Ok(template)
    }

    fn add(&mut self, part: &str) -> Result<(), String> {
        let Some(inner) = part.strip_prefix('{') else {
            self.segments.push(segment(part)?);
            return Ok(());
        };
        let inner = inner.strip_suffix('}').ok_or_else(|| unclosed(part))?;
        let (field, pattern) = inner.split_once('=').unwrap_or((inner, "*"));
        let is_name = |name: &str| {
            let rest = name.trim_start_matches(|c: char| c.is_ascii_alphabetic() || c == '_');
            rest.len() < name.len() && rest.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if !field.split('.').all(is_name) {
            return Err(format!("has `{field}` where the name of a field belongs"));
        }
        if self.variables.iter().any(|it| it.field == field) {
            return Err(format!("has the field `{field}` twice"));
        }
        let first = self.segments.len();
        for inner in pattern.split('/') {
            if inner.contains(['{', '}']) {
                return Err(format!("has a variable inside of `{field}`"));
            }
            self.segments.push(segment(inner)?);
        }
        let count = self.segments.len() - first;
        self.variables.push(Variable {
            field: field.to_owned(),
            first,
            count,
            is_path: count > 1 || self.segments.last() == Some(&Segment::Rest),
        });
        Ok(())
    }

    /// The same for everything that it matches: templates that differ in names of variables alone
    /// are one.
    #[must_use]
    pub fn shape(&self) -> String {
        let mut shape = String::new();
        for segment in &self.segments {
            shape.push('/');
            shape.push_str(match segment {
                Segment::Literal(text) => text,
                Segment::Single => "*",
                Segment::Rest => "**",
            });
        }
        if let Some(verb) = &self.verb {
            shape.push(':');
            shape.push_str(verb);
        }
        shape
    }
}

/// What stands before the verb, and the verb: after a colon that is in no variable and has no slash
/// behind it.
fn split_verb(path: &str) -> (&str, Option<&str>) {
    match path.rfind(':') {
        Some(at) if !path[at..].contains(['/', '}']) => (&path[..at], Some(&path[at + 1..])),
        _ => (path, None),
    }
}

/// What is between slashes that are in no variable.
fn outer_segments(path: &str) -> Result<Vec<&str>, String> {
    let mut parts = Vec::new();
    let mut begin = 0;
    let mut inside = false;
    for (at, character) in path.char_indices() {
        match character {
            '{' if inside => return Err("has a variable inside of another".to_owned()),
            '{' => inside = true,
            '}' => inside = false,
            '/' if !inside => {
                parts.push(&path[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(unclosed(&path[begin..]));
    }
    parts.push(&path[begin..]);
    Ok(parts)
}

fn unclosed(part: &str) -> String {
    format!("has `{part}`, a variable that does not end with its segment")
}

fn segment(text: &str) -> Result<Segment, String> {
    match text {
        "*" => Ok(Segment::Single),
        "**" => Ok(Segment::Rest),
        _ => check_literal(text).map(Segment::Literal),
    }
}

/// A literal, decoded.
fn check_literal(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("has an empty segment".to_owned());
    }
    let foreign = |c: char| !(c.is_ascii_alphanumeric() || "-_.~!$&'()+,;=@%".contains(c));
    if let Some(found) = text.chars().find(|c| foreign(*c)) {
        return Err(format!("has `{found}` in `{text}`"));
    }
    super::percent::decode(text).map_err(|_| format!("has broken escapes in `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> (String, Vec<(String, usize, usize, bool)>) {
        let template = Template::parse(text).unwrap();
        let variables = template.variables.iter();
        let variables = variables.map(|it| (it.field.clone(), it.first, it.count, it.is_path));
        (template.shape(), variables.collect())
    }

    #[test]
    fn templates_are_read_as_written() {
        let variable =
            |field: &str, first, count, is_path| (field.to_owned(), first, count, is_path);
        let cases = [
            ("/v1/orders", "/v1/orders", vec![]),
            ("/v1/accounts:login", "/v1/accounts:login", vec![]),
            ("/*", "/*", vec![]),
            ("/**:all", "/**:all", vec![]),
            ("/v1/{id}", "/v1/*", vec![variable("id", 1, 1, false)]),
            (
                "/v1/{a.b_2}:x",
                "/v1/*:x",
                vec![variable("a.b_2", 1, 1, false)],
            ),
            (
                "/v1/{name=shelves/*/books/*}/{page}",
                "/v1/shelves/*/books/*/*",
                vec![variable("name", 1, 4, true), variable("page", 5, 1, false)],
            ),
            ("/{rest=**}", "/**", vec![variable("rest", 0, 1, true)]),
            ("/v1/{a=x}", "/v1/x", vec![variable("a", 1, 1, false)]),
            ("/v1/a%20b", "/v1/a b", vec![]),
        ];
        for (text, matched, variables) in cases {
            assert_eq!((matched.to_owned(), variables), shape(text), "{text}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused_with_the_reason() {
        let cases = [
            ("", "does not begin with `/`"),
            ("v1", "does not begin with `/`"),
            ("/", "has an empty segment"),
            ("/v1/", "has an empty segment"),
            ("/v1//x", "has an empty segment"),
            ("/v1:", "has an empty segment"),
            ("/v1:x:y", "has `:` in `v1:x`"),
            ("/v1:x/y", "has `:` in `v1:x`"),
            ("/**/x", "has something after `**`"),
            ("/{a=**}/{b}", "has something after `**`"),
            ("/{a", "does not end with its segment"),
            ("/{a}b", "does not end with its segment"),
            ("/{a={b}}", "a variable inside of another"),
            ("/{}", "has `` where the name of a field belongs"),
            ("/{1a}", "has `1a` where the name of a field belongs"),
            ("/{a.}", "has `a.` where the name of a field belongs"),
            ("/{a}/{a}", "has the field `a` twice"),
            ("/a*", "has `*` in `a*`"),
            ("/a?b", "has `?` in `a?b`"),
            ("/a%2", "has broken escapes in `a%2`"),
        ];
        for (text, reason) in cases {
            let error = Template::parse(text).expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}

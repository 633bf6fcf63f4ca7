//! The words that cases are written in.

use std::collections::BTreeMap;

/// The keys of a request, as the wire has them: first key, and end.
pub(super) type Keys = (Vec<u8>, Vec<u8>);

/// A line of a case: its words, in order, and what is said as `name=value` or as a flag.
pub(super) struct Words<'a> {
    line: &'a str,
    places: std::vec::IntoIter<&'a str>,
    base: i64,
    options: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    /// The words of `line`; the first `count` stand by their place. `base` is the revision that
    /// others are told from.
    pub(super) fn new(line: &'a str, count: usize, base: i64) -> Self {
        let mut words: Vec<_> = line.split_whitespace().collect();
        let options = words.split_off(count.min(words.len()));
        let options = options
            .into_iter()
            .map(|option| option.split_once('=').unwrap_or((option, "")));
        Self {
            line,
            places: words.into_iter(),
            base,
            options: options.collect(),
        }
    }

    pub(super) fn next(&mut self) -> &'a str {
        let next = self.places.next();
        next.unwrap_or_else(|| panic!("a word is missing: {}", self.line))
    }

    pub(super) fn bytes(&mut self) -> Vec<u8> {
        bytes(self.next())
    }

    pub(super) fn keys(&mut self) -> Keys {
        keys(self.next())
    }

    pub(super) fn number(&mut self) -> i64 {
        let word = self.next();
        self.parse(word)
    }

    /// A number, or a revision told from the base as `+3`.
    pub(super) fn parse(&self, word: &str) -> i64 {
        let number = word.strip_prefix('+');
        let parsed = number.unwrap_or(word).parse::<i64>();
        let parsed = parsed.unwrap_or_else(|_| panic!("{word} is no number: {}", self.line));
        if number.is_some() {
            self.base + parsed
        } else {
            parsed
        }
    }

    pub(super) fn flag(&mut self, name: &str) -> bool {
        self.options.remove(name).is_some()
    }

    pub(super) fn option(&mut self, name: &str) -> Option<&'a str> {
        self.options.remove(name)
    }

    /// A number given by name; 0 without.
    pub(super) fn named(&mut self, name: &str) -> i64 {
        match self.option(name) {
            Some(word) => self.parse(word),
            None => 0,
        }
    }

    /// Nothing may be left that was not understood.
    pub(super) fn end(self) {
        let left = self.options.keys().copied().chain(self.places);
        let left: Vec<_> = left.collect();
        assert!(left.is_empty(), "{left:?} not understood: {}", self.line);
    }
}

/// One key, `a..c` for a span, `a..` for all from there on, `a*` for a prefix.
pub(super) fn keys(word: &str) -> Keys {
    if let Some(prefix) = word.strip_suffix('*') {
        let mut end = bytes(prefix);
        let last = end.last_mut().expect("a prefix is not empty");
        *last += 1;
        return (bytes(prefix), end);
    }
    match word.split_once("..") {
        None => (bytes(word), Vec::new()),
        Some((from, "")) => (bytes(from), vec![0]),
        Some((from, to)) => (bytes(from), bytes(to)),
    }
}

/// `""` for none, `\0` for a zero byte, `x^500` for many.
pub(super) fn bytes(word: &str) -> Vec<u8> {
    if word == "\"\"" {
        return Vec::new();
    }
    if let Some((text, count)) = word.split_once('^') {
        return text.repeat(count.parse().expect("a number")).into_bytes();
    }
    word.replace("\\0", "\0").into_bytes()
}

/// As a case writes it.
pub(super) fn text(bytes: &[u8]) -> String {
    if bytes.len() > 40 {
        return format!("<{} bytes>", bytes.len());
    }
    if bytes.is_empty() {
        return "\"\"".to_owned();
    }
    String::from_utf8_lossy(bytes).replace('\0', "\\0")
}

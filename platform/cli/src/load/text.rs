//! Texts with placeholders: `{{n}}` is the number of the call, from 0; `{{uuid}}` is a new UUID
//! (v7) wherever it stands; other words are values of the plan, or what earlier answers were asked
//! for. Blanks inside the braces do not matter.
//!
//! Another word in double braces is refused, as it can only be a slip; JSON that means it may
//! write a brace as `\u007b`.

use std::{collections::BTreeMap, fmt::Write as _, ops::Range};

use uuid::Uuid;

use crate::failure::nearest;

/// What words stand for.
pub(crate) type Values = BTreeMap<String, String>;

/// A text to be filled for each call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Number,
    Uuid,
    Value(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Plain(String),
    Word(Word),
}

/// A text whose placeholders have been found.
#[derive(Debug)]
pub(crate) struct Marked<'a> {
    text: &'a str,
    places: Vec<(Range<usize>, Word)>,
}

/// A placeholder that does not exist.
#[derive(Debug)]
pub(crate) struct Unknown {
    /// Where in the text.
    pub(crate) offset: usize,
    pub(crate) why: String,
}

impl Text {
    /// The text of call `number`, with `values` as they are.
    pub(crate) fn fill(&self, number: u64, values: &Values) -> String {
        self.written(number, values, str::to_owned)
    }

    /// The same within JSON: a value stays inside its string, whatever it holds.
    pub(crate) fn fill_json(&self, number: u64, values: &Values) -> String {
        self.written(number, values, |value| {
            let quoted = serde_json::Value::from(value).to_string();
            quoted[1..quoted.len() - 1].to_owned()
        })
    }

    fn written(&self, number: u64, values: &Values, value: impl Fn(&str) -> String) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            let written = match piece {
                Piece::Plain(plain) => text.write_str(plain),
                Piece::Word(Word::Number) => write!(text, "{number}"),
                Piece::Word(Word::Uuid) => write!(text, "{}", Uuid::now_v7()),
                Piece::Word(Word::Value(name)) => {
                    let known = values.get(name).map_or("", String::as_str);
                    text.write_str(&value(known))
                }
            };
            written.expect("a string takes all that is written");
        }
        text
    }
}

impl<'a> Marked<'a> {
    /// Finds the placeholders in `text`; `names` are those of values.
    pub(crate) fn read(text: &'a str, names: &[String]) -> Result<Self, Unknown> {
        let mut places = Vec::new();
        let mut from = 0;
        while let Some(found) = text[from..].find("{{") {
            let start = from + found;
            let inner = &text[start + 2..];
            let word = inner.find("}}").map(|end| &inner[..end]);
            let Some(word) = word.filter(|word| is_word(word.trim())) else {
                from = start + 1;
                continue;
            };
            from = start + "{{}}".len() + word.len();
            let word = known(word.trim(), names).map_err(|why| Unknown { offset: start, why })?;
            places.push((start..from, word));
        }
        Ok(Self { text, places })
    }

    /// The text with digits of the same length in each place, to be read as what it will be.
    pub(crate) fn probe(&self) -> String {
        let mut probe = self.text.to_owned();
        for (range, _) in &self.places {
            let digits = format!("1{}", "0".repeat(range.len() - 1));
            probe.replace_range(range.clone(), &digits);
        }
        probe
    }

    /// What is in `range`; none if it has no placeholder.
    pub(crate) fn part(&self, range: &Range<usize>) -> Option<Text> {
        let mut pieces = Vec::new();
        let mut from = range.start;
        for (place, word) in &self.places {
            if range.contains(&place.start) {
                pieces.push(Piece::Plain(self.text[from..place.start].to_owned()));
                pieces.push(Piece::Word(word.clone()));
                from = place.end;
            }
        }
        pieces.push(Piece::Plain(self.text[from..range.end].to_owned()));
        (pieces.len() > 1).then_some(Text { pieces })
    }

    /// All of it; none if it has no placeholder.
    pub(crate) fn whole(&self) -> Option<Text> {
        self.part(&(0..self.text.len()))
    }
}

pub(crate) fn is_word(text: &str) -> bool {
    let of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !text.is_empty() && text.chars().all(of_word)
}

fn known(word: &str, names: &[String]) -> Result<Word, String> {
    match word {
        "n" => Ok(Word::Number),
        "uuid" => Ok(Word::Uuid),
        _ if names.iter().any(|name| name == word) => Ok(Word::Value(word.to_owned())),
        _ => {
            let all = ["n", "uuid"].into_iter();
            let all: Vec<_> = all.chain(names.iter().map(String::as_str)).collect();
            let near = nearest(word, all.iter().copied());
            let known: Vec<_> = all.iter().map(|name| format!("{{{{{name}}}}}")).collect();
            let (last, others) = known.split_last().expect("there are two at least");
            let known = format!("there are {} and {last}", others.join(", "));
            Err(format!("no placeholder {{{{{word}}}}}{near}; {known}"))
        }
    }
}

//! Reads the tables of a plan by key, and collects everything that is wrong with them.

use std::{fs, ops::Range, path::Path, time::Duration};

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use crate::{
    args::file_of,
    failure::nearest,
    load::plan::{Origin, check_header},
};

/// A plan's text, and what is wrong with it.
pub(super) struct Reader<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
    /// By line.
    pub(super) faults: Vec<(usize, String)>,
}

impl Reader<'_> {
    /// The tables written as `[[key]]`, with their places; a fault for whatever else `key` is.
    pub(super) fn tables<'t>(
        &mut self,
        table: &'t DeTable<'_>,
        key: &str,
        count_max: usize,
    ) -> Vec<(&'t DeTable<'t>, Range<usize>)> {
        let Some(value) = table.get(key) else {
            return Vec::new();
        };
        let DeValue::Array(list) = value.get_ref() else {
            self.fault(&value.span(), format!("{key}: write each as [[{key}]]"));
            return Vec::new();
        };
        if list.len() > count_max {
            let why = format!("{} [[{key}]]; {count_max} at most", list.len());
            self.fault(&value.span(), why);
            return Vec::new();
        }
        self.each_table(list, key)
    }

    fn each_table<'t>(
        &mut self,
        list: &'t DeArray<'_>,
        key: &str,
    ) -> Vec<(&'t DeTable<'t>, Range<usize>)> {
        let mut tables = Vec::new();
        for one in list {
            if let DeValue::Table(table) = one.get_ref() {
                tables.push((table, one.span()));
            } else {
                self.fault(&one.span(), format!("{key}: write each as [[{key}]]"));
            }
        }
        tables
    }

    pub(super) fn string(&mut self, table: &DeTable<'_>, key: &str) -> Option<String> {
        let value = table.get(key)?;
        if let DeValue::String(text) = value.get_ref()
            && !text.is_empty()
        {
            return Some(text.clone().into_owned());
        }
        self.fault(&value.span(), format!("{key}: write it as a string"));
        None
    }

    /// A string that is there, or a fault where it is not.
    pub(super) fn needed(
        &mut self,
        table: &DeTable<'_>,
        span: &Range<usize>,
        (key, whose): (&str, &str),
    ) -> Option<String> {
        if !table.contains_key(key) {
            self.fault(span, format!("{whose} without {key}"));
        }
        self.string(table, key)
    }

    /// A time, as `500ms`.
    pub(super) fn time(&mut self, table: &DeTable<'_>, key: &str) -> Option<Duration> {
        let text = self.string(table, key)?;
        humantime::parse_duration(&text)
            .map_err(|error| {
                let why = format!("{key} \"{text}\": {error}; write it as 500ms or 2s");
                self.fault_of(table, key, why);
            })
            .ok()
    }

    /// A time that is above nothing, and up to `most`.
    pub(super) fn time_above_zero(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
        most: Duration,
    ) -> Option<Duration> {
        let time = self.time(table, key)?;
        if time.is_zero() || time > most {
            let most = humantime::format_duration(most);
            self.fault_of(table, key, format!("{key}: above 0s and up to {most}"));
            return None;
        }
        Some(time)
    }

    /// A number from `range`.
    pub(super) fn number(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
        (least, most): (f64, f64),
    ) -> Option<f64> {
        let value = table.get(key)?;
        let number = match value.get_ref() {
            DeValue::Integer(number) => number.as_str().replace('_', "").parse().ok(),
            DeValue::Float(number) => number.as_str().replace('_', "").parse().ok(),
            _ => None,
        };
        let number = number.filter(|number: &f64| *number >= least && *number <= most);
        if number.is_none() {
            let why = format!("{key}: a number from {least} to {most}");
            self.fault(&value.span(), why);
        }
        number
    }

    /// One of some words.
    pub(super) fn word<T>(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
        known: &[(&str, T)],
    ) -> Option<T>
    where
        T: Copy,
    {
        let text = self.string(table, key)?;
        let found = known
            .iter()
            .find(|(word, _)| word.eq_ignore_ascii_case(&text));
        if found.is_none() {
            let words: Vec<_> = known.iter().map(|(word, _)| *word).collect();
            let near = nearest(&text, words.iter().copied());
            let words = words.join(", ");
            let why = format!("{key} \"{text}\": expected one of {words}{near}");
            self.fault_of(table, key, why);
        }
        found.map(|(_, value)| *value)
    }

    /// The texts in an array.
    pub(super) fn strings(&mut self, table: &DeTable<'_>, key: &str) -> Option<Vec<String>> {
        let value = table.get(key)?;
        let texts = match value.get_ref() {
            DeValue::Array(list) => list.iter().map(|it| it.get_ref().as_str()).collect(),
            _ => None,
        };
        let texts: Option<Vec<&str>> = texts;
        if texts.is_none() {
            self.fault(
                &value.span(),
                format!("{key}: write it as [\"one\", \"two\"]"),
            );
        }
        texts.map(|texts| texts.into_iter().map(str::to_owned).collect())
    }

    /// The pairs of a table, each value as a text, with its place.
    pub(super) fn pairs(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
    ) -> Vec<(String, String, Range<usize>)> {
        let Some(value) = table.get(key) else {
            return Vec::new();
        };
        let DeValue::Table(pairs) = value.get_ref() else {
            let why = format!("{key}: write it as {{ key = \"value\" }}");
            self.fault(&value.span(), why);
            return Vec::new();
        };
        let mut read = Vec::new();
        for (name, value) in pairs {
            let name = name.get_ref().to_string();
            if let DeValue::String(text) = value.get_ref() {
                read.push((name, text.clone().into_owned(), value.span()));
            } else {
                let why = format!("{key} {name}: write it as a string");
                self.fault(&value.span(), why);
            }
        }
        read
    }

    /// The metadata of a table; `names` are the values that it may name.
    pub(super) fn metadata(
        &mut self,
        table: &DeTable<'_>,
        names: &[String],
    ) -> Vec<(String, String)> {
        let mut metadata = Vec::new();
        for (name, text, span) in self.pairs(table, "metadata") {
            if let Err(why) = check_header(&name, &text, names) {
                self.fault(&span, format!("metadata {name}: {why}"));
            }
            metadata.push((name, text));
        }
        metadata
    }

    /// The text of the requests, and where faults in it are.
    pub(super) fn request(&mut self, table: &DeTable<'_>, line: usize) -> (Option<String>, Origin) {
        let place = table
            .get("request")
            .map_or(line, |value| self.line(&value.span()));
        let inline = Origin::Argument(format!("{}:{place}: request", self.path.display()));
        let Some(text) = self.string(table, "request") else {
            return (None, inline);
        };
        let Some(file) = file_of(&text) else {
            return (Some(text), inline);
        };
        // Beside the plan, so that the two can be kept together.
        let file = self.path.parent().unwrap_or(Path::new("")).join(file);
        match fs::read_to_string(&file) {
            Ok(text) => (Some(text), Origin::File(file)),
            Err(error) => {
                let why = format!("request: read {}: {error}", file.display());
                self.faults.push((place, why));
                (None, inline)
            }
        }
    }

    pub(super) fn refuse_unknown(&mut self, table: &DeTable<'_>, known: &[&str], whose: &str) {
        for key in table.keys() {
            let name = key.get_ref();
            if !known.contains(&name.as_ref()) {
                let near = nearest(name, known.iter().copied());
                self.fault(&key.span(), format!("{name}: no key of {whose}{near}"));
            }
        }
    }

    /// A fault at the value of `key`.
    pub(super) fn fault_of(&mut self, table: &DeTable<'_>, key: &str, why: String) {
        let span = table.get(key).map(Spanned::span).unwrap_or_default();
        self.fault(&span, why);
    }

    pub(super) fn fault(&mut self, place: &Range<usize>, why: String) {
        let line = self.line(place);
        self.faults.push((line, why));
    }

    pub(super) fn line(&self, place: &Range<usize>) -> usize {
        let before = self.text.as_bytes().iter().take(place.start);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    /// `file:line`.
    pub(super) fn place(&self, span: &Range<usize>) -> String {
        format!("{}:{}", self.path.display(), self.line(span))
    }
}

//! The file of a scenario: several methods, each with a weight, requests, metadata and deadline
//! of its own.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::plan::{Origin, Wanted};
use crate::{
    args::file_of,
    failure::{Failure, nearest},
};

/// Methods in one scenario.
const CALLS_MAX: usize = 100;

/// A weight at most.
const WEIGHT_MAX: u32 = 1_000_000;

const KEYS: [&str; 3] = ["deadline", "metadata", "calls"];
const CALL_KEYS: [&str; 6] = [
    "name", "method", "weight", "request", "metadata", "deadline",
];

/// Reads the scenario at `path`.
///
/// # Errors
///
/// Everything wrong with it at once, a line for each, with its place.
pub(crate) fn read(path: &Path) -> Result<Vec<Wanted>, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("read {}: {error}", path.display())))?;
    parse(path, &text).map_err(|faults| {
        let lines = faults
            .into_iter()
            .map(|(line, why)| format!("{}:{line}: {why}", path.display()));
        Failure::usage(lines.collect::<Vec<_>>().join("\n"))
    })
}

fn parse(path: &Path, text: &str) -> Result<Vec<Wanted>, Vec<(usize, String)>> {
    let mut reader = Reader {
        path,
        text,
        faults: Vec::new(),
    };
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let place = error.span().unwrap_or_default();
        reader.fault(&place, error.message().to_owned());
    }
    let wanted = if errors.is_empty() {
        reader.scenario(root.get_ref())
    } else {
        Vec::new()
    };
    if reader.faults.is_empty() {
        Ok(wanted)
    } else {
        reader.faults.sort();
        Err(reader.faults)
    }
}

/// Reads a scenario, and collects what is wrong with it.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    /// By line.
    faults: Vec<(usize, String)>,
}

/// What calls have that say nothing themselves.
struct Common {
    deadline: Option<Duration>,
    metadata: Vec<(String, String)>,
}

impl Reader<'_> {
    fn scenario(&mut self, root: &DeTable<'_>) -> Vec<Wanted> {
        self.refuse_unknown(root, &KEYS, "a scenario");
        let common = Common {
            deadline: self.deadline(root),
            metadata: self.metadata(root),
        };
        let Some(calls) = root.get("calls") else {
            self.fault(&(0..0), "no [[calls]] in it".to_owned());
            return Vec::new();
        };
        let tables = match calls.get_ref() {
            DeValue::Array(list) if list.is_empty() => {
                self.fault(&calls.span(), "no [[calls]] in it".to_owned());
                return Vec::new();
            }
            DeValue::Array(list) if list.len() <= CALLS_MAX => list.iter(),
            DeValue::Array(list) => {
                let why = format!("{} [[calls]]; {CALLS_MAX} at most", list.len());
                self.fault(&calls.span(), why);
                return Vec::new();
            }
            _ => {
                self.fault(&calls.span(), "calls: write each as [[calls]]".to_owned());
                return Vec::new();
            }
        };
        let mut wanted: Vec<Wanted> = Vec::new();
        for table in tables {
            let DeValue::Table(call) = table.get_ref() else {
                self.fault(&table.span(), "calls: write each as [[calls]]".to_owned());
                continue;
            };
            let Some(call) = self.call(call, table.span(), &common) else {
                continue;
            };
            if wanted.iter().any(|other| other.name == call.name) {
                let why = format!(
                    "a second call named \"{}\"; give it another name",
                    call.name
                );
                self.fault(&table.span(), why);
            }
            wanted.push(call);
        }
        wanted
    }

    fn call(&mut self, call: &DeTable<'_>, span: Range<usize>, common: &Common) -> Option<Wanted> {
        self.refuse_unknown(call, &CALL_KEYS, "[[calls]]");
        let line = self.line(&span);
        let (request, origin) = self.request(call, line);
        let mut headers = common.metadata.clone();
        for (key, value) in self.metadata(call) {
            headers.retain(|(known, _)| !known.eq_ignore_ascii_case(&key));
            headers.push((key, value));
        }
        let weight = self.weight(call);
        let deadline = self.deadline(call).or(common.deadline);
        let name = self.string(call, "name");
        let Some(method) = self.string(call, "method") else {
            if !call.contains_key("method") {
                self.fault(&span, "[[calls]] without a method".to_owned());
            }
            return None;
        };
        Some(Wanted {
            place: Some(format!("{}:{line}", self.path.display())),
            name: name.unwrap_or_else(|| method.clone()),
            method,
            weight,
            request,
            origin,
            headers,
            deadline,
        })
    }

    /// The text of the requests, and where faults in it are.
    fn request(&mut self, call: &DeTable<'_>, line: usize) -> (Option<String>, Origin) {
        let place = call
            .get("request")
            .map_or(line, |value| self.line(&value.span()));
        let inline = Origin::Argument(format!("{}:{place}: request", self.path.display()));
        let Some(text) = self.string(call, "request") else {
            return (None, inline);
        };
        let Some(file) = file_of(&text) else {
            return (Some(text), inline);
        };
        // Beside the scenario, so that the two can be kept together.
        let file: PathBuf = self.path.parent().unwrap_or(Path::new("")).join(file);
        match fs::read_to_string(&file) {
            Ok(text) => (Some(text), Origin::File(file)),
            Err(error) => {
                let why = format!("request: read {}: {error}", file.display());
                self.faults.push((place, why));
                (None, inline)
            }
        }
    }

    fn string(&mut self, table: &DeTable<'_>, key: &str) -> Option<String> {
        let value = table.get(key)?;
        if let DeValue::String(text) = value.get_ref()
            && !text.is_empty()
        {
            return Some(text.clone().into_owned());
        }
        self.fault(&value.span(), format!("{key}: write it as a string"));
        None
    }

    fn deadline(&mut self, table: &DeTable<'_>) -> Option<Duration> {
        let text = self.string(table, "deadline")?;
        let read = humantime::parse_duration(&text);
        let read = read
            .map_err(|error| error.to_string())
            .and_then(super::not_zero);
        read.map_err(|why| {
            let span = table.get("deadline").map(Spanned::span).unwrap_or_default();
            self.fault(
                &span,
                format!("deadline \"{text}\": {why}; write it as 500ms or 2s"),
            );
        })
        .ok()
    }

    fn weight(&mut self, table: &DeTable<'_>) -> u32 {
        let Some(value) = table.get("weight") else {
            return 1;
        };
        let weight = match value.get_ref() {
            DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        let weight = weight.filter(|weight| (1..=WEIGHT_MAX).contains(weight));
        weight.unwrap_or_else(|| {
            self.fault(
                &value.span(),
                format!("weight: a number from 1 to {WEIGHT_MAX}"),
            );
            1
        })
    }

    fn metadata(&mut self, table: &DeTable<'_>) -> Vec<(String, String)> {
        let Some(value) = table.get("metadata") else {
            return Vec::new();
        };
        let DeValue::Table(pairs) = value.get_ref() else {
            let why = "metadata: write it as { key = \"value\" }".to_owned();
            self.fault(&value.span(), why);
            return Vec::new();
        };
        let mut metadata = Vec::new();
        for (key, value) in pairs {
            let name = key.get_ref().to_string();
            let DeValue::String(text) = value.get_ref() else {
                self.fault(
                    &value.span(),
                    format!("metadata {name}: write it as a string"),
                );
                continue;
            };
            if let Err(why) = super::plan::check_header(&name, text) {
                self.fault(&value.span(), format!("metadata {name}: {why}"));
            }
            metadata.push((name, text.clone().into_owned()));
        }
        metadata
    }

    fn refuse_unknown(&mut self, table: &DeTable<'_>, known: &[&str], whose: &str) {
        for key in table.keys() {
            let name = key.get_ref();
            if !known.contains(&name.as_ref()) {
                let near = nearest(name, known.iter().copied());
                self.fault(&key.span(), format!("{name}: no key of {whose}{near}"));
            }
        }
    }

    fn fault(&mut self, place: &Range<usize>, why: String) {
        let line = self.line(place);
        self.faults.push((line, why));
    }

    fn line(&self, place: &Range<usize>) -> usize {
        let before = self.text.as_bytes().iter().take(place.start);
        1 + before.filter(|byte| **byte == b'\n').count()
    }
}

#[cfg(test)]
mod tests;

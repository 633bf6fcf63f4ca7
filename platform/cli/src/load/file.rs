//! The file of a plan: whom a run calls, what, how often, and what is done to them meanwhile.

mod calls;
mod harms;
mod reader;

use std::{fs, path::Path, time::Duration};

use gantry::retry;
use toml::de::DeTable;

use self::{calls::Common, reader::Reader};
use super::{
    RATE_MAX,
    harm::Planned,
    plan::{Step, Wanted},
    rates::{Rates, Stage},
    tally::DURATION_MAX,
    text::{Values, is_word},
};
use crate::failure::{Failure, nearest};

/// Stages in one plan.
const STAGES_MAX: usize = 100;

const KEYS: [&str; 11] = [
    "description",
    "target",
    "deadline",
    "metadata",
    "criticality",
    "retry",
    "values",
    "before",
    "calls",
    "stages",
    "faults",
];
const STAGE_KEYS: [&str; 4] = ["duration", "rate", "from", "to"];

/// What a file says of a run.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct File {
    /// What it is for, in a line.
    pub(crate) description: Option<String>,
    /// Whom calls go to that do not say so themselves.
    pub(crate) target: Option<String>,
    /// Texts that requests and metadata may name, made once for the run.
    pub(crate) values: Vec<(String, String)>,
    /// Calls made once before the run, in order.
    pub(crate) before: Vec<Step>,
    pub(crate) calls: Vec<Wanted>,
    /// How many calls are due, over time; none where the command line has to say.
    pub(crate) stages: Vec<Stage>,
    /// What is done to instances meanwhile.
    pub(crate) faults: Vec<Planned>,
}

/// Reads the plan at `path`.
///
/// # Errors
///
/// Everything wrong with it at once, a line for each, with its place.
pub(crate) fn read(path: &Path) -> Result<File, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("read {}: {error}", path.display())))?;
    parse(path, &text).map_err(|faults| {
        let lines = faults
            .into_iter()
            .map(|(line, why)| format!("{}:{line}: {why}", path.display()));
        Failure::usage(lines.collect::<Vec<_>>().join("\n"))
    })
}

/// What `text` says that it is for, whatever else is in it.
pub(crate) fn description(text: &str) -> Option<String> {
    let table: toml::Table = text.parse().ok()?;
    Some(table.get("description")?.as_str()?.to_owned())
}

fn parse(path: &Path, text: &str) -> Result<File, Vec<(usize, String)>> {
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
    let file = if errors.is_empty() {
        reader.file(root.get_ref())
    } else {
        File::default()
    };
    if reader.faults.is_empty() {
        Ok(file)
    } else {
        reader.faults.sort();
        Err(reader.faults)
    }
}

impl Reader<'_> {
    fn file(&mut self, root: &DeTable<'_>) -> File {
        self.refuse_unknown(root, &KEYS, "a plan");
        let description = self.string(root, "description");
        let target = self.string(root, "target");
        let values = self.values(root);
        let mut names: Vec<_> = values.iter().map(|(name, _)| name.clone()).collect();
        let mut common = Common {
            deadline: self.deadline(root),
            headers: Vec::new(),
            retry: self.retry(root),
            target: None,
        };
        let before = self.steps(root, "before", &common, &mut names);
        // The calls before the run may be there to learn what the metadata of all others says.
        common.headers = self.headers(root, &names);
        let stages = self.stages(root);
        let faults = self.harms(root, Rates::total(&stages));
        File {
            description,
            target,
            values,
            before,
            calls: self.calls(root, &common, &names),
            stages,
            faults,
        }
    }

    fn values(&mut self, root: &DeTable<'_>) -> Vec<(String, String)> {
        let mut values = Vec::new();
        for (name, text, span) in self.pairs(root, "values") {
            self.check_name("values", &name, &span);
            // What is made for a call makes no sense once for all; the number would be that of none.
            let read = super::text::Marked::read(&text, &[]);
            if let Err(unknown) = read {
                self.fault(&span, format!("values {name}: {}", unknown.why));
            }
            values.push((name, text));
        }
        values
    }

    /// Whether a value may be called so.
    fn check_name(&mut self, key: &str, name: &str, span: &std::ops::Range<usize>) {
        if !is_word(name) {
            let why = format!("{key} {name}: a name has letters, digits and _ alone");
            self.fault(span, why);
        } else if ["n", "uuid"].contains(&name) {
            let why = format!("{key} {name}: {{{{{name}}}}} is taken; give it another name");
            self.fault(span, why);
        }
    }

    fn deadline(&mut self, table: &DeTable<'_>) -> Option<Duration> {
        let deadline = self.time(table, "deadline")?;
        let read = super::not_zero(deadline);
        read.map_err(|why| self.fault_of(table, "deadline", format!("deadline \"0s\": {why}")))
            .ok()
    }

    fn retry(&mut self, table: &DeTable<'_>) -> Option<Vec<retry::Code>> {
        let names = self.strings(table, "retry")?;
        let mut codes = Vec::new();
        for name in names {
            match super::retry_code(&name) {
                Ok(code) => codes.push(code),
                Err(why) => {
                    let known = retry::Code::ALL.map(retry::Code::as_str);
                    let near = nearest(&name, known);
                    self.fault_of(table, "retry", format!("retry {name}: {why}{near}"));
                }
            }
        }
        Some(codes)
    }

    fn stages(&mut self, root: &DeTable<'_>) -> Vec<Stage> {
        let mut stages = Vec::new();
        // Where a ramp begins that does not say so.
        let mut last = 0.0;
        for (table, span) in self.tables(root, "stages", STAGES_MAX) {
            self.refuse_unknown(table, &STAGE_KEYS, "[[stages]]");
            if !table.contains_key("duration") {
                self.fault(&span, "[[stages]] without duration".to_owned());
            }
            let time = self.time_above_zero(table, "duration", DURATION_MAX);
            let rates = (0.0, RATE_MAX);
            let hold = self.number(table, "rate", rates);
            let from = self.number(table, "from", rates);
            let to = self.number(table, "to", rates);
            let says = |key: &str| table.contains_key(key);
            match (says("rate"), says("from"), says("to")) {
                (true, false, false) | (false, _, true) => {}
                _ => {
                    let why = "[[stages]]: give it a rate that stays, or from and to: a rate that \
                               changes, from the end of the stage before without from";
                    self.fault(&span, why.to_owned());
                }
            }
            let to = hold.or(to).unwrap_or_default();
            stages.push(Stage {
                from: hold.or(from).unwrap_or(last),
                to,
                time: time.unwrap_or_default(),
            });
            last = to;
        }
        if Rates::total(&stages) > DURATION_MAX {
            let most = humantime::format_duration(DURATION_MAX);
            let why = format!("stages: {most} at most together");
            self.fault_of(root, "stages", why);
        }
        stages
    }
}

impl File {
    /// The values of a run, made now.
    pub(crate) fn values(&self) -> Values {
        let none = Values::new();
        let made = self.values.iter().map(|(name, text)| {
            let marked = super::text::Marked::read(text, &[]);
            let whole = marked.ok().and_then(|marked| marked.whole());
            let text = whole.map_or_else(|| text.clone(), |whole| whole.fill(0, &none));
            (name.clone(), text)
        });
        made.collect()
    }
}

#[cfg(test)]
mod tests;

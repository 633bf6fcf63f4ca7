//! The calls of a plan: one method each, or steps that follow each other.

use std::{ops::Range, time::Duration};

use gantry::{
    caller::{CRITICALITY, Criticality},
    retry,
};
use toml::de::{DeTable, DeValue};

use super::Reader;
use crate::load::plan::{Step, Wanted};

/// Calls in one plan.
const CALLS_MAX: usize = 100;

/// Steps in one call, and calls before the run.
const STEPS_MAX: usize = 20;

/// A weight at most.
const WEIGHT_MAX: u32 = 1_000_000;

/// What every step has.
const STEP_KEYS: [&str; 9] = [
    "method",
    "target",
    "request",
    "metadata",
    "criticality",
    "deadline",
    "retry",
    "keep",
    "expect",
];

/// What a call has beside them.
const CALL_KEYS: [&str; 3] = ["name", "weight", "steps"];

/// What steps have that say nothing themselves.
#[derive(Clone, Default)]
pub(super) struct Common {
    pub(super) deadline: Option<Duration>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) retry: Option<Vec<retry::Code>>,
    pub(super) target: Option<String>,
}

impl Reader<'_> {
    pub(super) fn calls(
        &mut self,
        root: &DeTable<'_>,
        common: &Common,
        names: &[String],
    ) -> Vec<Wanted> {
        let mut wanted: Vec<Wanted> = Vec::new();
        let faults = self.faults.len();
        let tables = self.tables(root, "calls", CALLS_MAX);
        if tables.is_empty() && self.faults.len() == faults {
            let span = root.get("calls").map(toml::Spanned::span);
            self.fault(&span.unwrap_or_default(), "no [[calls]] in it".to_owned());
        }
        for (table, span) in tables {
            let Some(call) = self.call(table, &span, common, names) else {
                continue;
            };
            if wanted.iter().any(|other| other.name == call.name) {
                let why = format!(
                    "a second call named \"{}\"; give it another name",
                    call.name
                );
                self.fault(&span, why);
            }
            wanted.push(call);
        }
        wanted
    }

    fn call(
        &mut self,
        table: &DeTable<'_>,
        span: &Range<usize>,
        common: &Common,
        names: &[String],
    ) -> Option<Wanted> {
        let known = [&STEP_KEYS[..], &CALL_KEYS[..]].concat();
        self.refuse_unknown(table, &known, "[[calls]]");
        let weight = self.weight(table);
        let name = self.string(table, "name");
        let mut names = names.to_vec();
        let steps = if table.contains_key("steps") {
            for key in ["method", "request", "keep", "expect"] {
                if table.contains_key(key) {
                    let why = format!("{key}: of a call with steps, each step says it");
                    self.fault_of(table, key, why);
                }
            }
            let common = self.common(table, common, &names);
            self.steps(table, "steps", &common, &mut names)
        } else {
            let step = self.step(table, span, ("[[calls]]", common), &mut names);
            step.into_iter().collect()
        };
        let first = steps.first()?;
        Some(Wanted {
            name: name.unwrap_or_else(|| first.method.clone()),
            weight,
            steps,
        })
    }

    /// Steps written as `[[key]]`; adds to `names` what they keep.
    pub(super) fn steps(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
        common: &Common,
        names: &mut Vec<String>,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        for (step, span) in self.tables(table, key, STEPS_MAX) {
            let whose = format!("[[{key}]]");
            self.refuse_unknown(step, &STEP_KEYS, &whose);
            steps.extend(self.step(step, &span, (&whose, common), names));
        }
        steps
    }

    fn step(
        &mut self,
        table: &DeTable<'_>,
        span: &Range<usize>,
        (whose, common): (&str, &Common),
        names: &mut Vec<String>,
    ) -> Option<Step> {
        let (request, origin) = self.request(table, self.line(span));
        let Common {
            deadline,
            headers,
            retry,
            target,
        } = self.common(table, common, names);
        let mut keep = Vec::new();
        for (name, path, span) in self.pairs(table, "keep") {
            self.check_name("keep", &name, &span);
            keep.push((name, path));
        }
        let expect = self.pairs(table, "expect").into_iter();
        let expect = expect.map(|(path, value, _)| (path, value)).collect();
        let method = self.needed(table, span, ("method", whose))?;
        names.extend(keep.iter().map(|(name, _)| name.clone()));
        Some(Step {
            place: Some(self.place(span)),
            target,
            method,
            request,
            origin,
            headers,
            deadline,
            retry,
            keep,
            expect,
        })
    }

    /// What `table` says, or else `common`.
    fn common(&mut self, table: &DeTable<'_>, common: &Common, names: &[String]) -> Common {
        let mut headers = common.headers.clone();
        for (key, value) in self.headers(table, names) {
            headers.retain(|(known, _)| !known.eq_ignore_ascii_case(&key));
            headers.push((key, value));
        }
        Common {
            deadline: self.deadline(table).or(common.deadline),
            headers,
            retry: self.retry(table).or_else(|| common.retry.clone()),
            target: self
                .string(table, "target")
                .or_else(|| common.target.clone()),
        }
    }

    /// The metadata of a table, with what it says of how much its calls matter.
    pub(super) fn headers(
        &mut self,
        table: &DeTable<'_>,
        names: &[String],
    ) -> Vec<(String, String)> {
        let mut headers = self.metadata(table, names);
        let words = Criticality::ALL.map(|it| (it.as_str(), it));
        if let Some(criticality) = self.word(table, "criticality", &words) {
            let key = CRITICALITY.as_str();
            headers.retain(|(known, _)| !known.eq_ignore_ascii_case(key));
            headers.push((key.to_owned(), criticality.as_str().to_owned()));
        }
        headers
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
}

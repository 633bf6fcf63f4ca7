//! The faults of a plan: what is done to instances while they are called.

use std::{ops::Range, time::Duration};

use gantry::{contract::Pattern, fault, status};
use gantry_api::admin::v1::Fault;
use toml::de::DeTable;

use super::Reader;
use crate::load::{
    harm::{Harm, Planned},
    tally::DURATION_MAX,
};

/// Faults in one plan.
const FAULTS_MAX: usize = 100;

/// What says when and to whom.
const KEYS: [&str; 4] = ["at", "for", "whom", "do"];

/// What says how calls fail, as `gantry fault` has it.
const CALLS_KEYS: [&str; 8] = [
    "method",
    "delay",
    "delay_percent",
    "fail",
    "code",
    "abort",
    "drop",
    "metadata",
];

/// What can be done to a process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    Stop,
    Kill,
    Pause,
}

impl Reader<'_> {
    /// `total` is how long the stages are; none where the command line says.
    pub(super) fn harms(&mut self, root: &DeTable<'_>, total: Duration) -> Vec<Planned> {
        let mut planned: Vec<Planned> = Vec::new();
        for (table, span) in self.tables(root, "faults", FAULTS_MAX) {
            let Some(one) = self.planned(table, &span) else {
                continue;
            };
            if let Some(other) = planned.iter().find(|other| clash(other, &one)) {
                let why = format!(
                    "[[faults]]: the end of this one would end that of {}, or the other way round; \
                     have one begin after the other",
                    other.place
                );
                self.fault(&span, why);
            }
            if !total.is_zero() && one.at >= total {
                let over = humantime::format_duration(total);
                self.fault_of(table, "at", format!("at: the stages are over after {over}"));
            }
            planned.push(one);
        }
        planned
    }

    fn planned(&mut self, table: &DeTable<'_>, span: &Range<usize>) -> Option<Planned> {
        let known = [&KEYS[..], &CALLS_KEYS[..]].concat();
        self.refuse_unknown(table, &known, "[[faults]]");
        let deeds = [
            ("stop", Deed::Stop),
            ("kill", Deed::Kill),
            ("pause", Deed::Pause),
        ];
        let deed = self.word(table, "do", &deeds);
        let harm = match deed {
            _ if !table.contains_key("do") => Some(Harm::Calls(self.calls_fault(table, span))),
            None => None,
            Some(deed) => {
                self.nothing_of_calls(table);
                Some(match deed {
                    Deed::Stop => Harm::Stop,
                    Deed::Kill => Harm::Kill,
                    Deed::Pause => Harm::Pause,
                })
            }
        };
        let at = self.time(table, "at");
        if !table.contains_key("at") {
            let why = "[[faults]] without at: how long after the beginning, as at = \"10s\"";
            self.fault(span, why.to_owned());
        }
        let time = self.time_above_zero(table, "for", DURATION_MAX);
        if deed == Some(Deed::Kill) {
            if table.contains_key("for") {
                let why = "for: a process that is killed stays so; `gantry up` starts the next one";
                self.fault_of(table, "for", why.to_owned());
            }
        } else if !table.contains_key("for") {
            let why = "[[faults]] without for: how long it goes on, as for = \"20s\"";
            self.fault(span, why.to_owned());
        }
        let whom = self.needed(table, span, ("whom", "[[faults]]"))?;
        Some(Planned {
            place: self.place(span),
            whom,
            at: at?.min(DURATION_MAX),
            time: time.unwrap_or(Duration::ZERO),
            harm: harm?,
        })
    }

    /// Refuses what only a fault of calls has.
    fn nothing_of_calls(&mut self, table: &DeTable<'_>) {
        for key in CALLS_KEYS {
            if table.contains_key(key) {
                let why = format!("{key}: beside `do` it says nothing; make it a fault of its own");
                self.fault_of(table, key, why);
            }
        }
    }

    /// A fault of calls, checked as the process will that it is switched on in.
    fn calls_fault(&mut self, table: &DeTable<'_>, span: &Range<usize>) -> Fault {
        let faults = self.faults.len();
        let mut percent = |key: &str| self.number(table, key, (0.0, 100.0)).unwrap_or_default();
        let (fail, abort, drop) = (percent("fail"), percent("abort"), percent("drop"));
        let late = self.number(table, "delay_percent", (0.0, 100.0));
        let delay = self.time(table, "delay");
        let pattern = self.string(table, "method");
        let pattern = pattern.unwrap_or_else(|| "*".to_owned());
        if pattern.parse::<Pattern>().is_err() {
            let why = "method: expected package.Service/Method, package.Service/* or *";
            self.fault_of(table, "method", why.to_owned());
        }
        let code = self.string(table, "code");
        if let Some(name) = &code
            && status::code_named(name).is_none_or(|code| code == tonic::Code::Ok)
        {
            let why = format!("code {name}: expected a gRPC code other than OK, as INTERNAL");
            self.fault_of(table, "code", why);
        }
        let metadata = self.string(table, "metadata");
        if let Some(text) = &metadata
            && text.parse::<fault::Metadata>().is_err()
        {
            let why = "metadata: expected \"name: value\", whose calls alone are meant";
            self.fault_of(table, "metadata", why.to_owned());
        }
        let config = fault::Config {
            delay_percent: delay.map_or(0.0, |_| late.unwrap_or(100.0)),
            delay: delay.unwrap_or_default(),
            fail_percent: fail,
            abort_percent: abort,
            drop_percent: drop,
            ..fault::Config::default()
        };
        if let Err((key, reason)) = config.judge() {
            self.fault(span, format!("{key}: {reason}"));
        } else if !config.is_on() && self.faults.len() == faults {
            let why = "[[faults]] that does nothing: give it delay, fail, abort or drop, or do";
            self.fault(span, why.to_owned());
        }
        Fault {
            pattern,
            delay_percent: config.delay_percent,
            delay: config.delay.try_into().ok(),
            fail_percent: fail,
            code: code.unwrap_or_default(),
            abort_percent: abort,
            drop_percent: drop,
            metadata: metadata.unwrap_or_default(),
            left: None,
        }
    }
}

/// Whether two are the same to somebody at the same time: a fault takes the place of another of its
/// methods, and ends with it.
fn clash(one: &Planned, other: &Planned) -> bool {
    let both = match (&one.harm, &other.harm) {
        (Harm::Calls(one), Harm::Calls(other)) => one.pattern == other.pattern,
        (Harm::Stop, Harm::Stop) | (Harm::Pause, Harm::Pause) => true,
        _ => false,
    };
    let of = |service: &str, name: &str| {
        let rest = name.strip_prefix(service);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let same = of(&one.whom, &other.whom) || of(&other.whom, &one.whom);
    let meet = one.at < other.at + other.time && other.at < one.at + one.time;
    both && same && meet
}

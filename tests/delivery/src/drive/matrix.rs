//! How all rounds went: what was done, on which broker and database, and what came of it.

use std::{collections::BTreeMap, fmt};

use super::{Combination, Harm};
use crate::{
    evidence::{Evidence, Summary},
    judge::Fault,
};

/// How all rounds went; shown as a table in Markdown.
#[derive(Debug, Clone, Default)]
pub struct Matrix {
    rows: BTreeMap<Combination, Rows>,
}

/// Those of one broker and database.
#[derive(Debug, Clone, Default)]
struct Rows {
    /// By what was done.
    done: BTreeMap<String, Row>,
    whole: Row,
}

/// How something went that was done, in all rounds in which it was.
#[derive(Debug, Clone, Copy, Default)]
pub struct Row {
    rounds: u64,
    /// How long it took.
    micros: u64,
    faults: u64,
    summary: Summary,
}

impl Matrix {
    /// Whether there was no fault.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.rows.values().all(|rows| rows.whole.faults == 0)
    }

    /// Adds a round. What is wrong is told of what was done when that was written down that it is about.
    pub(super) fn add(&mut self, on: Combination, evidence: &Evidence, faults: &[Fault]) {
        let rows = self.rows.entry(on).or_default();
        rows.whole.rounds += 1;
        rows.whole.summary.add(evidence.summary());
        for strike in &evidence.strikes {
            let row = rows.done.entry(strike.name.clone()).or_default();
            row.rounds += 1;
            let micros = strike.time.end - strike.time.start;
            let micros = u64::try_from(micros).unwrap_or_default();
            row.micros += micros;
            rows.whole.micros += micros;
            row.summary.add(evidence.summary_of(strike));
        }
        for fault in faults {
            rows.whole.faults += 1;
            if let Some(strike) = evidence.strike_of(fault) {
                rows.done.entry(strike.name.clone()).or_default().faults += 1;
            }
        }
    }

    /// Adds a round that did not come to its end while it was at `doing`.
    pub(super) fn broken(&mut self, on: Combination, doing: &str) {
        let rows = self.rows.entry(on).or_default();
        rows.whole.rounds += 1;
        rows.whole.faults += 1;
        if Harm::named(doing).is_some() {
            rows.done.entry(doing.to_owned()).or_default().faults += 1;
        }
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [on, done] = ["on", "done to it"];
        write!(
            f,
            "| {on:<17} | {done:<15} | rounds | seconds | events | deliveries | duplicates "
        )?;
        writeln!(f, "| rewritten | redelivered | known | dead | faults |")?;
        writeln!(
            f,
            "|{:-<19}|{:-<17}|{:->7}:|{:->8}:|{:->7}:|{:->11}:|{:->11}:|{:->10}:|{:->12}:|{:->6}:|{:->5}:|{:->7}:|",
            "", "", "", "", "", "", "", "", "", "", "", "",
        )?;
        for (on, rows) in &self.rows {
            let harms = Harm::all().into_iter().map(Harm::name);
            let known = harms.filter_map(|name| Some((name, rows.done.get(name)?)));
            for (name, row) in known.chain([("in all", &rows.whole)]) {
                writeln!(f, "| {:<17} | {name:<15} | {row} |", on.to_string())?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary {
            committed,
            deliveries,
            duplicates,
            doubled,
            redelivered,
            deduplicated,
            dead,
            ..
        } = self.summary;
        write!(
            f,
            "{:>6} | {:>7} | {committed:>6} | {deliveries:>10} | {duplicates:>10} | {doubled:>9} | \
             {redelivered:>11} | {deduplicated:>5} | {dead:>4} | {:>6}",
            self.rounds,
            self.micros / 1_000_000,
            self.faults,
        )
    }
}

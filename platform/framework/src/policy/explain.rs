//! Says what holds for one method, and why.

use std::collections::BTreeSet;

use super::Policy;
use crate::{
    config::{self, Entry, Origin, Sources},
    contract::Pattern,
};

/// The section of the configuration that holds the table.
const SECTION: &str = "policies";

/// What holds for one method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The configured patterns that say something of it, the most specific first.
    pub patterns: Vec<String>,
    /// Every key of a policy.
    pub values: Vec<Value>,
}

/// One key of a policy, and who had the last word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The key within a policy, as in `timeout`.
    pub key: String,
    /// Its value in TOML; nothing where it is not set.
    pub value: Option<String>,
    /// The pattern that says so; nothing for a default.
    pub pattern: Option<String>,
    /// Where that stands.
    pub origin: Origin,
    /// What it is for, line by line.
    pub doc: &'static [&'static str],
}

/// Explains the policy of `method`, `package.Service/Method`, by the `entries` of the
/// configuration in force.
///
/// # Panics
///
/// If the defaults of a policy break its own rules, which tests rule out.
#[must_use]
pub fn explain(entries: &[Entry], method: &str) -> Explained {
    let defaults = config::load::<Policy>(Sources::new());
    let defaults = defaults.expect("the defaults are fine by themselves");
    let values = defaults.entries().iter().map(|default| {
        let (pattern, entry) = match last_word(entries, method, &default.key) {
            Some((pattern, entry)) => (Some(pattern.to_string()), entry),
            None => (None, default),
        };
        Value {
            key: default.key.clone(),
            value: entry.value.clone(),
            pattern,
            origin: entry.origin.clone(),
            doc: default.doc,
        }
    });
    let values: Vec<_> = values.collect();
    let saying: BTreeSet<_> = values.iter().filter_map(|it| it.pattern.clone()).collect();
    let patterns = Pattern::Method(method.to_owned()).lineage();
    let patterns = patterns.map(|pattern| pattern.to_string());
    Explained {
        patterns: patterns.filter(|it| saying.contains(it)).collect(),
        values,
    }
}

/// Who has the last word on `key` of the policy of `method`, if anybody says anything, and the entry
/// that says so.
pub(super) fn last_word<'a>(
    entries: &'a [Entry],
    method: &str,
    key: &str,
) -> Option<(Pattern, &'a Entry)> {
    let mut lineage = Pattern::Method(method.to_owned()).lineage();
    lineage.find_map(|pattern| {
        let path = format!("{}.{key}", path(&pattern));
        let said = |entry: &&Entry| entry.key == path && entry.origin != Origin::Default;
        let entry = entries.iter().find(said)?;
        Some((pattern, entry))
    })
}

/// The section of a pattern.
pub(super) fn path(pattern: &Pattern) -> String {
    config::path([SECTION, &pattern.to_string()])
}

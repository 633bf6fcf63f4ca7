//! Reads typed settings out of the merged layers, and notes everything on the way: each key with
//! its value and origin, and each fault.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    ops::{Bound, RangeBounds},
};

use ::config::{Value, ValueKind};

use super::{
    Apply, Entry, Fault, Given, Key, Mismatch, Origin, Section, Setting,
    hold::Running,
    layers::Origins,
    tree::{self, ANY, Table},
};

/// What the sections of a configuration say about it while they read it.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) entries: Vec<Entry>,
    pub(super) faults: Vec<Fault>,
    /// Everything that may be written, by full path.
    pub(super) known: BTreeMap<String, Known>,
    /// Maps and optional sections, whose members come and go.
    pub(super) groups: Vec<Group>,
}

impl Notes {
    /// The configuration that these notes are about, as it runs.
    pub(super) fn running(self, table: Table, origins: Origins) -> Running {
        Running {
            table,
            origins,
            entries: self.entries,
            groups: self.groups,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Section,
    Key,
    Secret,
}

/// A map of sections, or an optional section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) steps: Vec<String>,
    pub(super) apply: Apply,
    /// Whether its members have names of their own.
    pub(super) named: bool,
}

/// How maps and optional sections are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// What the layers say.
    Values,
    /// What the layers say as far as they could be read: too little to judge one key by another.
    Part,
    /// Once each, to describe their keys.
    Describe,
}

/// Reads one section; given to [`Section::read`].
pub struct Reader<'a> {
    notes: &'a RefCell<Notes>,
    origins: &'a Origins,
    mode: Mode,
    steps: Vec<String>,
    table: Option<&'a Table>,
    faults_before: usize,
}

/// Without the values, which may be secrets.
impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("section", &tree::join(&self.steps))
            .finish_non_exhaustive()
    }
}

impl<'a> Reader<'a> {
    pub(super) fn root(
        table: &'a Table,
        origins: &'a Origins,
        notes: &'a RefCell<Notes>,
        mode: Mode,
    ) -> Self {
        Self {
            notes,
            origins,
            mode,
            steps: Vec::new(),
            table: Some(table),
            faults_before: 0,
        }
    }

    /// A second reader of the same section, for [`Both`](super::Both).
    pub(super) fn again(&self) -> Self {
        Self {
            steps: self.steps.clone(),
            faults_before: self.notes.borrow().faults.len(),
            ..*self
        }
    }

    /// Reads one key; `default` where no layer gives it or what is given is at fault.
    pub fn key<T: Setting>(&mut self, key: Key, default: T) -> T {
        self.read(key, default, T::limits().as_deref(), |_| true)
    }

    /// Reads one key that must be within `range`.
    ///
    /// # Panics
    ///
    /// If `default` is not: a mistake in the program, not in a configuration.
    pub fn within<T>(&mut self, key: Key, default: T, range: impl RangeBounds<T>) -> T
    where
        T: Setting + PartialOrd,
    {
        assert!(
            range.contains(&default),
            "the default of {} is out of its range",
            key.name
        );
        let limits = in_words(&range);
        self.read(key, default, Some(&limits), |value| range.contains(value))
    }

    fn read<T: Setting>(
        &mut self,
        key: Key,
        default: T,
        limits: Option<&str>,
        fits: impl Fn(&T) -> bool,
    ) -> T {
        let known = if T::SECRET { Known::Secret } else { Known::Key };
        let steps = self.declare(key.name, known);
        let given = self.given(key.name);
        let shown = default.show();
        let understood = given.and_then(|given| self.understand(&steps, given, limits, fits));
        let (value, origin) = match (understood, given) {
            (Some(value), Some(given)) => (value, self.origins.of(given)),
            _ => (default, Origin::Default),
        };
        self.notes.borrow_mut().entries.push(Entry {
            key: tree::join(&steps),
            steps,
            value: value.show(),
            identity: value.identity(),
            default: shown,
            kind: describe::<T>(limits),
            origin,
            apply: key.apply,
            doc: key.doc,
            pending: None,
        });
        value
    }

    fn understand<T: Setting>(
        &self,
        steps: &[String],
        given: &Value,
        limits: Option<&str>,
        fits: impl Fn(&T) -> bool,
    ) -> Option<T> {
        let origin = self.origins.of(given);
        let view = Given::new(given, !matches!(origin, Origin::File { .. }));
        let read = if T::SECRET && origin == Origin::Flag {
            Err(Mismatch::because(
                "every user of the machine can read a command line",
            ))
        } else {
            T::read(view)
        };
        let mismatch = match read {
            Ok(value) if fits(&value) => return Some(value),
            Ok(_) => Mismatch::default(),
            Err(mismatch) => mismatch,
        };
        let shown = if T::SECRET || mismatch.unshown {
            String::new()
        } else {
            format!(" = {}", view.show())
        };
        let limits = limits.map_or_else(String::new, |limits| format!(" {limits}"));
        let path = tree::join(steps);
        let mut reason = format!("{path}{shown}: expected {}{limits}", T::expected());
        if let Some(because) = mismatch.because {
            reason.push_str("; ");
            reason.push_str(&because);
        }
        self.fault(origin, path, reason);
        None
    }

    /// Reads a section within this one.
    pub fn section<S: Section>(&mut self, name: &'static str, default: S) -> S {
        let steps = self.declare(name, Known::Section);
        let table = self.table_of(&steps, self.given(name));
        S::read(&mut self.within_section(steps, table), default)
    }

    /// Reads a section that need not be there.
    pub fn optional<S: Section>(&mut self, key: Key) -> Option<S> {
        let steps = self.declare(key.name, Known::Section);
        self.note_group(&steps, key.apply, false);
        let table = self.table_of(&steps, self.given(key.name));
        if table.is_none() && self.mode != Mode::Describe {
            return None;
        }
        Some(S::read(
            &mut self.within_section(steps, table),
            S::default(),
        ))
    }

    /// Reads sections by name.
    pub fn map<S: Section>(&mut self, key: Key) -> BTreeMap<String, S> {
        let steps = self.declare(key.name, Known::Section);
        self.note_group(&steps, key.apply, true);
        let members: Vec<(&str, Option<&Value>)> = match (self.mode, self.given(key.name)) {
            (Mode::Describe, _) => vec![(ANY, None)],
            (Mode::Values | Mode::Part, given) => {
                let table = self.table_of(&steps, given).into_iter().flatten();
                table
                    .map(|(name, value)| (name.as_str(), Some(value)))
                    .collect()
            }
        };
        // In the order of the names, so that what is shown does not change by itself.
        let members: BTreeMap<_, _> = members.into_iter().collect();
        let mut sections = BTreeMap::new();
        for (name, given) in members {
            let mut inside = steps.clone();
            inside.push(name.to_owned());
            self.note(&inside, Known::Section);
            let table = self.table_of(&inside, given);
            let default = match S::member(name, &sections) {
                Ok(default) => default,
                Err(reason) if self.mode != Mode::Describe => {
                    let path = tree::join(&inside);
                    let origin = given.map_or(Origin::Default, |given| self.origin_within(given));
                    self.fault(origin, path.clone(), format!("{path}: {reason}"));
                    S::default()
                }
                Err(_) => S::default(),
            };
            let section = S::read(&mut self.within_section(inside, table), default);
            sections.insert(name.to_owned(), section);
        }
        sections
    }

    /// Applies the rules of a section that is read, if each of its keys is fine by itself.
    pub fn check<S: Section>(&mut self, section: &S) {
        let fine = self.notes.borrow().faults.len() == self.faults_before;
        if fine && self.mode != Mode::Part {
            section.validate(&mut Check { reader: self });
        }
    }

    fn given(&self, name: &str) -> Option<&'a Value> {
        self.table.and_then(|table| table.get(name))
    }

    fn within_section(&self, steps: Vec<String>, table: Option<&'a Table>) -> Reader<'a> {
        Reader {
            steps,
            table,
            faults_before: self.notes.borrow().faults.len(),
            ..*self
        }
    }

    fn table_of(&self, steps: &[String], given: Option<&'a Value>) -> Option<&'a Table> {
        let given = given?;
        if let ValueKind::Table(table) = &given.kind {
            return Some(table);
        }
        let path = tree::join(steps);
        let reason = format!("{path}: expected a section with keys of its own, not a value");
        self.fault(self.origins.of(given), path, reason);
        None
    }

    /// Makes `name` known in this section.
    ///
    /// # Panics
    ///
    /// If it is known already: two structs that are read from one section share no key.
    fn declare(&self, name: &str, known: Known) -> Vec<String> {
        let steps = self.inside(name);
        let before = self.note(&steps, known);
        assert!(before.is_none(), "{} is declared twice", tree::join(&steps));
        steps
    }

    fn note(&self, steps: &[String], known: Known) -> Option<Known> {
        let path = tree::join(steps);
        self.notes.borrow_mut().known.insert(path, known)
    }

    fn note_group(&self, steps: &[String], apply: Apply, named: bool) {
        self.notes.borrow_mut().groups.push(Group {
            steps: steps.to_owned(),
            apply,
            named,
        });
    }

    fn inside(&self, name: &str) -> Vec<String> {
        let mut steps = self.steps.clone();
        steps.push(name.to_owned());
        steps
    }

    /// Where a value comes from, or the first of those that a section holds.
    fn origin_within(&self, value: &Value) -> Origin {
        let ValueKind::Table(table) = &value.kind else {
            return self.origins.of(value);
        };
        // In the order of the names, so that it is the same each time.
        let first = table.iter().min_by_key(|(name, _)| name.as_str());
        first.map_or(Origin::Default, |(_, value)| self.origin_within(value))
    }

    fn fault(&self, origin: Origin, key: String, reason: String) {
        self.notes.borrow_mut().faults.push(Fault {
            origin,
            key,
            reason,
        });
    }
}

/// Collects what breaks the rules of one section; given to [`Section::validate`].
#[derive(Debug)]
pub struct Check<'a, 'b> {
    reader: &'a Reader<'b>,
}

impl Check<'_, '_> {
    /// Refuses the value of `key`, a key of this section, or of one within it as in `retry.pause`.
    ///
    /// `reason` completes "key = value: …": what is wrong, and what is expected instead.
    pub fn refuse(&mut self, key: &str, reason: impl std::fmt::Display) {
        // A secret's entry does not show it either.
        let shown = self.entry(key).and_then(|entry| entry.value);
        let shown = shown.map_or_else(String::new, |shown| format!(" = {shown}"));
        self.fault(key, &format!("{shown}: {reason}"));
    }

    /// Refuses the value of `key` as it does not go with those of `others`, at the first of them that
    /// is given here. Where none is, a map's member has them all from another one, which is refused
    /// itself.
    ///
    /// `reason` is as in [`Check::refuse`].
    pub fn refuse_together(&mut self, key: &str, others: &[&str], reason: impl std::fmt::Display) {
        let keys = std::iter::once(key).chain(others.iter().copied());
        let mut origins = keys.filter_map(|key| self.given_at(key));
        let Some(origin) = origins.next() else {
            return;
        };
        let shown = self.entry(key).and_then(|entry| entry.value);
        let shown = shown.map_or_else(String::new, |shown| format!(" = {shown}"));
        let path = self.path(key);
        let reason = format!("{path}{shown}: {reason}");
        self.reader.fault(origin, path, reason);
    }

    /// Whether some layer gives `key` of this section, or of one within it.
    #[must_use]
    pub fn is_given(&self, key: &str) -> bool {
        self.given_at(key).is_some()
    }

    /// The name of the section; of a member of a map its own.
    #[must_use]
    pub fn name(&self) -> &str {
        self.reader.steps.last().map_or("", String::as_str)
    }

    fn given_at(&self, key: &str) -> Option<Origin> {
        let origin = self.entry(key)?.origin;
        (origin != Origin::Default).then_some(origin)
    }

    /// As [`Check::refuse`], without the value: it holds a secret where none belongs.
    pub fn refuse_unshown(&mut self, key: &str, reason: impl std::fmt::Display) {
        self.fault(key, &format!(": {reason}"));
    }

    fn path(&self, key: &str) -> String {
        let mut steps = self.reader.steps.clone();
        steps.extend(key.split('.').map(str::to_owned));
        tree::join(&steps)
    }

    fn entry(&self, key: &str) -> Option<Entry> {
        let path = self.path(key);
        let notes = self.reader.notes.borrow();
        let mut entries = notes.entries.iter();
        entries.find(|entry| entry.key == path).cloned()
    }

    fn fault(&mut self, key: &str, rest: &str) {
        let path = self.path(key);
        let origin = self.entry(key).map(|entry| entry.origin);
        let origin = origin.unwrap_or(Origin::Default);
        let reason = format!("{path}{rest}");
        self.reader.fault(origin, path, reason);
    }
}

/// A type and its bounds, as the table of keys shows them.
fn describe<T: Setting>(limits: Option<&str>) -> String {
    match limits {
        Some(limits) => format!("{} {limits}", T::kind()),
        None => T::kind().into_owned(),
    }
}

fn in_words<T: Setting>(range: &impl RangeBounds<T>) -> String {
    let show = |bound: &T| bound.show().unwrap_or_default();
    match (range.start_bound(), range.end_bound()) {
        (Bound::Unbounded, Bound::Unbounded) => String::new(),
        (Bound::Unbounded, Bound::Included(end)) => format!("up to {}", show(end)),
        (Bound::Unbounded, Bound::Excluded(end)) => format!("below {}", show(end)),
        (Bound::Included(start), Bound::Included(end)) => {
            format!("from {} to {}", show(start), show(end))
        }
        (Bound::Included(start), Bound::Unbounded) => format!("of {} or more", show(start)),
        (Bound::Included(start), Bound::Excluded(end)) => {
            format!("from {} to below {}", show(start), show(end))
        }
        (Bound::Excluded(start), _) => format!("above {}", show(start)),
    }
}

//! Turns each source into a layer of values with their origins, and lays them over each other.

use std::{borrow::Cow, collections::BTreeMap, ffi::OsString, sync::Arc};

use ::config::{Source, Value, ValueKind};
use toml::de::{DeTable, DeValue};

use super::{
    Fault, Origin,
    tree::{self, Table, is_bare},
};

/// Sections within sections at most; far more than anyone declares.
const DEPTH_MAX: usize = 32;

/// What is before each variable's name.
pub(super) const PREFIX: &str = "GANTRY_";

/// Where each value comes from. The library that merges the layers carries a text with a value;
/// ours is the position in this list.
#[derive(Debug, Clone, Default)]
pub(super) struct Origins {
    list: Vec<Origin>,
}

impl Origins {
    fn note(&mut self, origin: Origin) -> String {
        if self.list.last() != Some(&origin) {
            self.list.push(origin);
        }
        (self.list.len() - 1).to_string()
    }

    /// A value that other layers gave, with its origins noted here.
    pub(super) fn adopt(&mut self, value: &Value, theirs: &Self) -> Value {
        let kind = match &value.kind {
            ValueKind::Table(table) => {
                let inside = table.iter();
                ValueKind::Table(
                    inside
                        .map(|(name, value)| (name.clone(), self.adopt(value, theirs)))
                        .collect(),
                )
            }
            ValueKind::Array(values) => {
                let values = values.iter();
                ValueKind::Array(values.map(|value| self.adopt(value, theirs)).collect())
            }
            other => other.clone(),
        };
        Value::new(Some(&self.note(theirs.of(value))), kind)
    }

    /// The origin of a value out of one of the layers.
    pub(super) fn of(&self, value: &Value) -> Origin {
        let position = value.origin().and_then(|text| text.parse::<usize>().ok());
        position
            .and_then(|position| self.list.get(position).cloned())
            .unwrap_or(Origin::Default)
    }
}

/// Something that a layer says, whether or not a later one says otherwise.
#[derive(Debug, Clone)]
pub(super) struct Said {
    /// The section it is said in.
    pub(super) parent: String,
    /// The key or section.
    pub(super) name: String,
    pub(super) origin: Origin,
    pub(super) table: bool,
    /// The origin as values carry it.
    note: String,
}

impl Said {
    fn new(steps: &[String], origin: Origin, note: String, table: bool) -> Self {
        let (name, parents) = steps.split_last().expect("what is said has a name");
        Self {
            parent: tree::join(parents),
            name: tree::segment(name),
            origin,
            table,
            note,
        }
    }

    /// The full path.
    pub(super) fn path(&self) -> String {
        if self.parent.is_empty() {
            return self.name.clone();
        }
        format!("{}.{}", self.parent, self.name)
    }
}

/// The layers so far, lowest first.
#[derive(Default)]
pub(super) struct Layers {
    stack: Vec<Layer>,
    pub(super) origins: Origins,
    pub(super) said: Vec<Said>,
    pub(super) faults: Vec<Fault>,
    /// Whether a whole text could not be understood, so that what is read lacks its values.
    pub(super) incomplete: bool,
}

#[derive(Debug, Clone)]
struct Layer {
    values: Table,
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Table, ::config::ConfigError> {
        Ok(self.values.clone())
    }
}

impl Layers {
    /// Lays the layers over each other.
    pub(super) fn merge(&self) -> Table {
        let mut builder = ::config::Config::builder();
        for layer in &self.stack {
            builder = builder.add_source(layer.clone());
        }
        let merged = builder.build().and_then(|merged| merged.collect());
        let mut merged =
            merged.expect("layers collect without fail, and a merge of tables is a table");
        let tables = self.said.iter().filter(|said| said.table);
        let tables = tables
            .map(|said| (said.path(), said.note.as_str()))
            .collect();
        stamp(&mut merged, &mut Vec::new(), &tables);
        merged
    }

    /// Adds a text in TOML.
    pub(super) fn text(&mut self, name: &Arc<str>, text: &str) {
        let place = Place { name, text };
        let (table, errors) = DeTable::parse_recoverable(text);
        if let Some(error) = errors.first() {
            // The first alone: what follows it is often its echo.
            let start = error.span().map_or(0, |span| span.start);
            self.fault(
                place.point(start),
                "",
                format!("not TOML: {}", error.message()),
            );
            self.incomplete = true;
            return;
        }
        let mut steps = Vec::new();
        let values = self.table(&place, &mut steps, table.into_inner());
        self.stack.push(Layer { values });
    }

    fn table(&mut self, place: &Place<'_>, steps: &mut Vec<String>, table: DeTable<'_>) -> Table {
        let mut values = Table::new();
        for (key, value) in table {
            let origin = place.line(key.span().start);
            let name = key.into_inner().into_owned();
            steps.push(name.clone());
            let is_table = matches!(value.get_ref(), DeValue::Table(_));
            let note = self.origins.note(origin.clone());
            self.said
                .push(Said::new(steps, origin, note.clone(), is_table));
            let value = self.value(place, steps, &note, value.into_inner());
            steps.pop();
            // The merge takes names at the root apart at dots and brackets; such a name is
            // unknown in any case, and is reported from `said`.
            if is_bare(&name) || !steps.is_empty() {
                values.insert(name, value);
            }
        }
        values
    }

    fn value(
        &mut self,
        place: &Place<'_>,
        steps: &mut Vec<String>,
        note: &String,
        value: DeValue<'_>,
    ) -> Value {
        let kind = match value {
            DeValue::Table(table) => ValueKind::Table(self.table(place, steps, table)),
            DeValue::Array(values) => ValueKind::Array(
                values
                    .into_iter()
                    .map(|value| self.value(place, steps, note, value.into_inner()))
                    .collect(),
            ),
            DeValue::String(text) => ValueKind::String(text.into_owned()),
            DeValue::Boolean(switch) => ValueKind::Boolean(switch),
            DeValue::Integer(number) => {
                let digits = number.as_str().replace('_', "");
                // A number that no integer holds is no valid value anywhere: shown as it is.
                i128::from_str_radix(&digits, number.radix())
                    .map_or(ValueKind::Float(f64::NAN), ValueKind::I128)
            }
            DeValue::Float(number) => {
                let digits = number.as_str().replace('_', "");
                ValueKind::Float(digits.parse().unwrap_or(f64::NAN))
            }
            // No setting is a date; as text it is refused or kept like any other.
            DeValue::Datetime(date) => ValueKind::String(date.to_string()),
        };
        Value::new(Some(note), kind)
    }

    /// Adds the variables whose names begin with [`PREFIX`].
    pub(super) fn variables(&mut self, variables: &[(OsString, OsString)]) {
        let mut by_path: BTreeMap<String, (&str, &str)> = BTreeMap::new();
        for (name, value) in variables {
            let lossy = name.to_string_lossy();
            let Some(rest) = lossy.strip_prefix(PREFIX) else {
                continue;
            };
            let origin = Origin::Variable(lossy.to_string());
            let capitals = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            if rest.is_empty() || !rest.chars().all(capitals) {
                let reason = "expected a name in capitals, digits and underscores";
                self.fault(origin, "", reason.to_owned());
                continue;
            }
            let path = rest.to_lowercase().replace("__", ".");
            match (name.to_str(), value.to_str()) {
                (Some(name), Some(value)) => {
                    by_path.insert(path, (name, value));
                }
                _ => self.fault(origin, &path, format!("{path}: expected valid Unicode")),
            }
        }
        let mut values = Table::new();
        for (path, (name, value)) in &by_path {
            let inside = by_path.iter().find(|(other, _)| is_within(other, path));
            let origin = Origin::Variable((*name).to_owned());
            if let Some((_, (other, _))) = inside {
                let reason = format!("{path} is given whole here and in part by {other}; keep one");
                self.fault(origin, path, reason);
                continue;
            }
            if !by_path.keys().any(|whole| is_within(path, whole)) {
                self.place(&mut values, path, &origin, value);
            }
        }
        self.stack.push(Layer { values });
    }

    /// Adds overrides of the form `section.key=value`; of two for one key the later holds.
    pub(super) fn flags(&mut self, flags: &[String]) {
        for flag in flags {
            let Some((path, value)) = flag.split_once('=') else {
                // Not repeated: it may be a secret.
                let reason = "expected section.key=value".to_owned();
                self.fault(Origin::Flag, "", reason);
                continue;
            };
            let mut values = Table::new();
            self.place(&mut values, path.trim(), &Origin::Flag, value);
            self.stack.push(Layer { values });
        }
    }

    /// Puts a value where its dotted path says.
    fn place(&mut self, values: &mut Table, path: &str, origin: &Origin, value: &str) {
        let steps: Vec<_> = path.split('.').map(str::to_owned).collect();
        let note = self.origins.note(origin.clone());
        let said = Said::new(&steps, origin.clone(), note.clone(), false);
        self.said.push(said);
        // A path with such a step is no key's; it is reported from `said`.
        if steps.len() <= DEPTH_MAX && steps.iter().all(|step| is_bare(step)) {
            let value = Value::new(Some(&note), value);
            tree::set(values, &steps, value);
        }
    }

    /// Notes that a whole text is not to be had.
    pub(super) fn unreadable(&mut self, origin: Origin, reason: &str) {
        self.fault(origin, "", format!("cannot be read: {reason}"));
        self.incomplete = true;
    }

    fn fault(&mut self, origin: Origin, path: &str, reason: String) {
        self.faults.push(Fault {
            origin,
            key: path.to_owned(),
            reason,
        });
    }
}

/// Gives sections the origins that they lost in the merge: where they were last begun, or where
/// one of their values comes from.
fn stamp(table: &mut Table, steps: &mut Vec<String>, tables: &BTreeMap<String, &str>) {
    for (name, value) in table.iter_mut() {
        let ValueKind::Table(inside) = &mut value.kind else {
            continue;
        };
        steps.push(name.clone());
        stamp(inside, steps, tables);
        let begun = tables.get(&tree::join(steps)).copied();
        let mut values = inside.values().filter_map(Value::origin);
        let note = begun.or_else(|| values.next()).map(str::to_owned);
        *value = Value::new(note.as_ref(), std::mem::take(inside));
        steps.pop();
    }
}

fn is_within(path: &str, whole: &str) -> bool {
    let rest = path.strip_prefix(whole);
    rest.is_some_and(|rest| rest.starts_with('.'))
}

/// The variable that gives a key.
pub(super) fn variable_of(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "__").to_uppercase())
}

/// A text that positions point into.
struct Place<'a> {
    name: &'a Arc<str>,
    text: &'a str,
}

impl Place<'_> {
    fn line(&self, offset: usize) -> Origin {
        Origin::File {
            name: Arc::clone(self.name),
            line: 1 + self.before(offset).matches('\n').count(),
            column: 0,
        }
    }

    fn point(&self, offset: usize) -> Origin {
        let before = self.before(offset);
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        Origin::File {
            name: Arc::clone(self.name),
            line: 1 + before.matches('\n').count(),
            column: 1 + before[start..].chars().count(),
        }
    }

    fn before(&self, offset: usize) -> Cow<'_, str> {
        let bytes = &self.text.as_bytes()[..offset.min(self.text.len())];
        String::from_utf8_lossy(bytes)
    }
}

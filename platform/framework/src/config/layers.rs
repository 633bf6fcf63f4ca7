//! Turns each source into a layer of values with their origins, and lays them over each other.

use std::{borrow::Cow, collections::BTreeMap, ffi::OsString, sync::Arc};

use ::config::{Map, Source, Value, ValueKind};
use toml::de::{DeTable, DeValue};

use super::{
    Fault, Origin,
    reader::{Table, segment},
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
    pub(super) path: String,
    pub(super) origin: Origin,
    pub(super) table: bool,
}

/// The layers so far, lowest first.
#[derive(Debug, Clone, Default)]
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
        merged.expect("layers collect without fail, and a merge of tables is a table")
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
        let values = self.table(&place, "", table.into_inner());
        self.stack.push(Layer { values });
    }

    fn table(&mut self, place: &Place<'_>, path: &str, table: DeTable<'_>) -> Table {
        let mut values = Map::new();
        for (key, value) in table {
            let origin = place.line(key.span().start);
            let inside = join(path, key.get_ref());
            self.said.push(Said {
                path: inside.clone(),
                origin: origin.clone(),
                table: matches!(value.get_ref(), DeValue::Table(_)),
            });
            // The merge takes names at the root apart at dots and brackets; such a name is
            // unknown in any case, and is reported from `said`.
            if path.is_empty() && inside != *key.get_ref() {
                continue;
            }
            let value = self.value(place, &inside, &origin, value.into_inner());
            values.insert(key.into_inner().into_owned(), value);
        }
        values
    }

    fn value(
        &mut self,
        place: &Place<'_>,
        path: &str,
        origin: &Origin,
        value: DeValue<'_>,
    ) -> Value {
        let kind = match value {
            DeValue::Table(table) => ValueKind::Table(self.table(place, path, table)),
            DeValue::Array(values) => ValueKind::Array(
                values
                    .into_iter()
                    .map(|value| self.value(place, path, origin, value.into_inner()))
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
        Value::new(Some(&self.origins.note(origin.clone())), kind)
    }

    /// Adds the variables whose names begin with [`PREFIX`].
    pub(super) fn variables(&mut self, variables: &[(OsString, OsString)]) {
        let mut named: BTreeMap<String, (String, Value)> = BTreeMap::new();
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| has_prefix(name)) else {
                continue;
            };
            let origin = Origin::Variable(name.to_owned());
            let path = name[PREFIX.len()..].to_lowercase().replace("__", ".");
            let Some(value) = value.to_str() else {
                self.fault(origin, &path, "the value is not valid Unicode".to_owned());
                continue;
            };
            if let Some((other, _)) = named.get(&path) {
                let reason = format!("{path} is given twice, also by {other}; keep one");
                self.fault(origin, &path, reason);
                continue;
            }
            let value = Value::new(Some(&self.origins.note(origin)), value);
            named.insert(path, (name.to_owned(), value));
        }
        let paths: Vec<_> = named.keys().cloned().collect();
        let mut values = Map::new();
        for (path, (name, value)) in named {
            let within = format!("{path}.");
            if paths.iter().any(|other| other.starts_with(&within)) {
                let reason = format!(
                    "{path} is a section here and a value there: {PREFIX}… names keys inside it too"
                );
                self.fault(Origin::Variable(name), &path, reason);
                continue;
            }
            self.place(&mut values, &path, Origin::Variable(name), value);
        }
        self.stack.push(Layer { values });
    }

    /// Adds overrides of the form `section.key=value`; of two for one key the later holds.
    pub(super) fn flags(&mut self, flags: &[String]) {
        for flag in flags {
            let Some((path, value)) = flag.split_once('=') else {
                let reason = format!("{flag:?}: expected section.key=value");
                self.fault(Origin::Flag, "", reason);
                continue;
            };
            let mut values = Map::new();
            let value = Value::new(Some(&self.origins.note(Origin::Flag)), value);
            self.place(&mut values, path.trim(), Origin::Flag, value);
            self.stack.push(Layer { values });
        }
    }

    /// Puts a value where its dotted path says.
    fn place(&mut self, values: &mut Table, path: &str, origin: Origin, value: Value) {
        self.said.push(Said {
            path: path.to_owned(),
            origin,
            table: false,
        });
        let steps: Vec<&str> = path.split('.').collect();
        // A path with such a step is no key's; it is reported from `said`.
        if steps.len() > DEPTH_MAX || steps.iter().any(|step| segment(step) != *step) {
            return;
        }
        let (last, parents) = steps.split_last().expect("a split has at least one part");
        let mut table = values;
        for step in parents {
            let parent = table
                .entry((*step).to_owned())
                .or_insert_with(|| Value::new(None, Table::new()));
            let ValueKind::Table(inside) = &mut parent.kind else {
                return;
            };
            table = inside;
        }
        table.insert((*last).to_owned(), value);
    }

    pub(super) fn fault(&mut self, origin: Origin, path: &str, reason: String) {
        self.faults.push(Fault {
            origin,
            key: path.to_owned(),
            reason,
        });
    }
}

/// Whether a variable is meant for us. In capitals alone: that is how variables are written.
fn has_prefix(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// The variable that gives a key.
pub(super) fn variable_of(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "__").to_uppercase())
}

fn join(path: &str, name: &str) -> String {
    let name = segment(name);
    if path.is_empty() {
        return name;
    }
    format!("{path}.{name}")
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

//! Paths of keys, and the tree of values that they point into.

use ::config::{Value, ValueKind};

use super::given::quoted;

/// One section's values by name.
pub(super) type Table = ::config::Map<String, Value>;

/// Stands for every name of a map where its keys are described.
pub(super) const ANY: &str = "<name>";

/// One step of a path; quoted where it would not read as one.
pub(super) fn segment(name: &str) -> String {
    if is_bare(name) || name == ANY {
        return name.to_owned();
    }
    quoted(name)
}

/// Whether `name` stands in a path as it is.
pub(super) fn is_bare(name: &str) -> bool {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !name.is_empty() && name.chars().all(bare)
}

/// A path as people read it.
pub(super) fn join(steps: &[String]) -> String {
    let steps: Vec<_> = steps.iter().map(|step| segment(step)).collect();
    steps.join(".")
}

/// The value at a path, if there is one.
pub(super) fn get<'a>(table: &'a Table, steps: &[String]) -> Option<&'a Value> {
    let (last, parents) = steps.split_last()?;
    let mut table = table;
    for step in parents {
        let ValueKind::Table(inside) = &table.get(step)?.kind else {
            return None;
        };
        table = inside;
    }
    table.get(last)
}

/// The names of the section at a path; none if there is no section.
pub(super) fn names<'a>(table: &'a Table, steps: &[String]) -> Vec<&'a String> {
    let Some(ValueKind::Table(inside)) = get(table, steps).map(|value| &value.kind) else {
        return Vec::new();
    };
    let mut names: Vec<_> = inside.keys().collect();
    names.sort();
    names
}

/// Puts a value at a path. Sections on the way are made where they are missing; a value in the
/// way stays.
pub(super) fn set(table: &mut Table, steps: &[String], value: Value) {
    let Some((last, parents)) = steps.split_last() else {
        return;
    };
    let mut table = table;
    for step in parents {
        let parent = table
            .entry(step.clone())
            .or_insert_with(|| Value::new(None, Table::new()));
        let ValueKind::Table(inside) = &mut parent.kind else {
            return;
        };
        table = inside;
    }
    table.insert(last.clone(), value);
}

/// Takes away what is at a path.
pub(super) fn remove(table: &mut Table, steps: &[String]) {
    let Some((last, parents)) = steps.split_last() else {
        return;
    };
    let mut table = table;
    for step in parents {
        let Some(ValueKind::Table(inside)) = table.get_mut(step).map(|value| &mut value.kind)
        else {
            return;
        };
        table = inside;
    }
    table.remove(last);
}

//! Finds what is written and means nothing, and guesses what was meant.

use std::collections::BTreeMap;

use super::{
    Fault, Origin,
    fault::nearest,
    layers::{PREFIX, Said, variable_of},
    reader::Known,
};

/// What `said` names and `known` does not; of a whole unknown section, its name alone.
pub(super) fn find(said: &[Said], known: &BTreeMap<String, Known>) -> Vec<Fault> {
    said.iter().filter_map(|said| judge(said, known)).collect()
}

fn judge(said: &Said, known: &BTreeMap<String, Known>) -> Option<Fault> {
    let path = said.path();
    let in_file = matches!(said.origin, Origin::File { .. });
    let reason = match (known.get(&path), known.get(&said.parent)) {
        (Some(Known::Section), _) if !said.table => {
            format!("{path}: expected a section with keys of its own, not a value")
        }
        (Some(_), _) => return None,
        // The one thing a secret holds besides text.
        (None, Some(Known::Secret)) if said.name == "file" => return None,
        // What is inside a key's value is for that key to judge.
        (None, Some(Known::Key)) if in_file => return None,
        // Files name each step of a path, so what is inside an unknown section is not news; the
        // environment and the command line name the whole path at once.
        (None, None) if in_file && !said.parent.is_empty() => return None,
        (None, _) => unknown(said, &path, known),
    };
    Some(Fault {
        origin: said.origin.clone(),
        key: path,
        reason,
    })
}

fn unknown(said: &Said, path: &str, known: &BTreeMap<String, Known>) -> String {
    let what = if said.table { "section" } else { "key" };
    let meant = match &said.origin {
        Origin::Variable(name) => {
            let variables: Vec<_> = keys(known).map(variable_of).collect();
            nearest(name, variables.iter().map(String::as_str)).map(str::to_owned)
        }
        Origin::Flag => nearest(path, keys(known)).map(str::to_owned),
        Origin::File { .. } | Origin::Default => meant_in_file(said, known),
    };
    let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
    match &said.origin {
        Origin::Variable(_) => {
            format!("unknown {what} {path}{meant} (every {PREFIX} variable names a key)")
        }
        _ => format!("unknown {what} {path}{meant}"),
    }
}

/// The nearest name in the same section, else a key of this very name in another one.
fn meant_in_file(said: &Said, known: &BTreeMap<String, Known>) -> Option<String> {
    let siblings = known.keys().filter_map(|other| {
        let rest = other.strip_prefix(&said.parent)?;
        let rest = if said.parent.is_empty() {
            rest
        } else {
            rest.strip_prefix('.')?
        };
        (!rest.contains('.')).then_some(rest)
    });
    if let Some(sibling) = nearest(&said.name, siblings) {
        return Some(sibling.to_owned());
    }
    let elsewhere = format!(".{}", said.name);
    let mut same = keys(known).filter(|other| other.ends_with(&elsewhere));
    same.next().map(str::to_owned)
}

fn keys(known: &BTreeMap<String, Known>) -> impl Iterator<Item = &str> {
    let keys = known.iter().filter(|(_, known)| **known != Known::Section);
    keys.map(|(path, _)| path.as_str())
}

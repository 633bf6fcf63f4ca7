//! Plans that a project has ready, by name: `config/load/NAME.toml`. What they call is the project's
//! affair.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::file;
use crate::{
    current_folder,
    failure::{Failure, nearest},
    project::Project,
};

/// Where they are, in a project.
const FOLDER: &str = "config/load";

/// How the name of a plan's file ends.
const SUFFIX: &str = ".toml";

/// The plan that is called `name`; a name that ends as a file's is one.
pub(crate) fn find(name: &Path) -> Result<PathBuf, Failure> {
    let text = name.to_string_lossy();
    if text.ends_with(SUFFIX) {
        return Ok(name.to_owned());
    }
    let folder = Project::root(&current_folder()?)?.join(FOLDER);
    let known = all(&folder);
    if !known.contains_key(&*text) {
        let near = nearest(&text, known.keys().map(String::as_str));
        let names: Vec<_> = known.keys().map(String::as_str).collect();
        let there = if names.is_empty() {
            "there is none".to_owned()
        } else {
            format!("there are {}", names.join(", "))
        };
        let folder = folder.display();
        let text = format!("--scenario {text}: no such plan in {folder}{near}; {there}");
        return Err(Failure::usage(text));
    }
    Ok(folder.join(format!("{text}{SUFFIX}")))
}

/// The scenarios of the project at hand, for the help; nothing where there is no project.
pub(crate) fn help() -> String {
    let root = current_folder().and_then(|folder| Project::root(&folder));
    let known = root.map(|root| all(&root.join(FOLDER))).unwrap_or_default();
    if known.is_empty() {
        return String::new();
    }
    let width = known.keys().map(String::len).max().unwrap_or_default();
    let lines = known.iter().map(|(name, description)| {
        let line = format!("  {name:width$}  {description}");
        line.trim_end().to_owned()
    });
    let lines: Vec<_> = lines.collect();
    format!("Scenarios of this project:\n{}", lines.join("\n"))
}

/// The plans in `folder`, with what they say that they are for.
fn all(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let plans = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let name = name.strip_suffix(SUFFIX)?.to_owned();
        let text = fs::read_to_string(entry.path()).ok()?;
        Some((name, file::description(&text).unwrap_or_default()))
    });
    plans.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the help lists what is there, and a slip is told the nearest.
    /// Method: a folder with plans, one of them broken, and something else.
    #[test]
    fn plans_are_listed_with_what_they_are_for() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        file("browse.toml", "description = \"People look around.\"\n");
        file("broken.toml", "[[");
        file("notes.md", "");
        let known = all(folder.path());
        let expected = [("broken", ""), ("browse", "People look around.")];
        let expected = expected.map(|(name, what)| (name.to_owned(), what.to_owned()));
        assert_eq!(BTreeMap::from(expected), known);
        assert!(all(&folder.path().join("nowhere")).is_empty());
    }
}

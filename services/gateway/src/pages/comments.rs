//! What contracts say in words.

use std::collections::HashMap;

use prost_reflect::FileDescriptor;

/// The comments of files, each read once.
#[derive(Debug, Default)]
pub(super) struct Comments {
    /// By the name of the file, and the place in it.
    files: HashMap<String, HashMap<Vec<i32>, String>>,
}

impl Comments {
    /// What stands before the thing at `path` of `file`; empty where nothing does, or the file came
    /// without comments.
    pub(super) fn of(&mut self, file: &FileDescriptor, path: &[i32]) -> String {
        let name = file.name().to_owned();
        let places = self.files.entry(name).or_insert_with(|| read(file));
        places.get(path).cloned().unwrap_or_default()
    }
}

fn read(file: &FileDescriptor) -> HashMap<Vec<i32>, String> {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let places = info.map(|it| it.location.as_slice()).unwrap_or_default();
    places
        .iter()
        .filter(|place| !place.leading_comments().trim().is_empty())
        .map(|place| {
            let lines = place.leading_comments().lines().map(str::trim);
            (
                place.path.clone(),
                lines.collect::<Vec<_>>().join("\n").trim().to_owned(),
            )
        })
        .collect()
}

/// The first sentence of `text`.
pub(super) fn summary(text: &str) -> String {
    let first = text
        .split("\n\n")
        .next()
        .unwrap_or_default()
        .replace('\n', " ");
    match first.find(". ") {
        Some(end) => first[..=end].to_owned(),
        None => first,
    }
}

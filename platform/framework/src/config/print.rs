//! Shows a configuration to people: the values in use, and the keys there are.

use std::fmt::Write as _;

use super::{
    Entry, Section,
    layers::Origins,
    read,
    reader::Mode,
    tree::{self, Table},
};

/// Beyond this width a value does not push the remarks of its section to the right.
const ALIGNED_MAX: usize = 48;

/// The entries as TOML, each with its documentation, when it applies and where it comes from.
pub(super) fn toml(entries: &[Entry]) -> String {
    let mut text = String::new();
    for (path, entries) in by_section(entries) {
        if !path.is_empty() {
            let gap = if text.is_empty() { "" } else { "\n" };
            put(&mut text, format_args!("{gap}[{path}]\n"));
        }
        let lines: Vec<_> = entries.iter().map(|entry| assignment(entry)).collect();
        let widths = lines.iter().map(|line| line.chars().count());
        let width = widths.filter(|width| *width <= ALIGNED_MAX).max();
        for (entry, line) in entries.iter().zip(&lines) {
            for doc in entry.doc {
                put(&mut text, format_args!("# {}\n", doc.trim()));
            }
            let width = width.unwrap_or_default();
            put(
                &mut text,
                format_args!("{line:width$}  # {}\n", remark(entry)),
            );
        }
    }
    text
}

/// A table of all keys in Markdown, one for each section.
///
/// What it says does not depend on any source but the program's text.
///
/// ```
/// gantry::config::section! {
///     /// Bounds.
///     pub struct Limits {
///         /// Calls in flight at most.
///         pub calls_max: u32 = 100, in 1..=1_000, live;
///     }
/// }
/// assert_eq!(
///     "| key | type | default | change | meaning |\n\
///      | --- | --- | --- | --- | --- |\n\
///      | `calls_max` | whole number from 1 to 1000 | `100` | live | Calls in flight at most. |\n",
///     gantry::config::markdown::<Limits>(),
/// );
/// ```
#[must_use]
pub fn markdown<C: Section>() -> String {
    let (_, notes) = read::<C>(&Table::new(), &Origins::default(), Mode::Describe);
    let mut text = String::new();
    for (path, entries) in by_section(&notes.entries) {
        if !path.is_empty() {
            let gap = if text.is_empty() { "" } else { "\n" };
            put(&mut text, format_args!("{gap}### `[{path}]`\n\n"));
        }
        text.push_str(
            "| key | type | default | change | meaning |\n| --- | --- | --- | --- | --- |\n",
        );
        for entry in entries {
            text.push_str(&row(entry));
        }
    }
    text
}

fn row(entry: &Entry) -> String {
    let doc: Vec<_> = entry.doc.iter().map(|line| line.trim()).collect();
    let default = entry.default.as_ref();
    let cells = [
        format!("`{}`", name(entry)),
        entry.kind.clone(),
        default.map_or_else(String::new, |default| format!("`{default}`")),
        entry.apply.to_string(),
        doc.join(" "),
    ];
    let cells = cells.map(|cell| cell.replace('|', "\\|"));
    format!("| {} |\n", cells.join(" | "))
}

fn assignment(entry: &Entry) -> String {
    match &entry.value {
        Some(value) => format!("{} = {value}", name(entry)),
        // TOML has no word for it.
        None => format!("# {} is not set", name(entry)),
    }
}

fn remark(entry: &Entry) -> String {
    let mut remark = format!("{}, {}", entry.apply, entry.origin);
    if let Some(pending) = &entry.pending {
        let value = pending.value.as_deref().unwrap_or("not set");
        put(
            &mut remark,
            format_args!("; after a restart {value} from {}", pending.origin),
        );
    }
    remark
}

fn name(entry: &Entry) -> String {
    entry
        .steps
        .last()
        .map_or_else(String::new, |name| tree::segment(name))
}

/// The entries of each section together: sections in the order of their first key, each before
/// the sections within it, the root first.
fn by_section(entries: &[Entry]) -> Vec<(String, Vec<&Entry>)> {
    let mut sections: Vec<(&[String], usize, Vec<&Entry>)> = Vec::new();
    for (position, entry) in entries.iter().enumerate() {
        let steps = entry
            .steps
            .split_last()
            .map_or(&[][..], |(_, parents)| parents);
        match sections.iter_mut().find(|(other, ..)| *other == steps) {
            Some((.., entries)) => entries.push(entry),
            None => sections.push((steps, position, vec![entry])),
        }
    }
    // A section with keys after those of its inner sections takes the place of the first of them.
    let firsts: Vec<_> = sections
        .iter()
        .map(|(steps, ..)| {
            let inside = sections
                .iter()
                .filter(|(other, ..)| other.starts_with(steps));
            let first = inside.map(|(_, position, _)| *position).min();
            (first.unwrap_or_default(), steps.len())
        })
        .collect();
    let mut order: Vec<_> = firsts.into_iter().zip(sections).collect();
    order.sort_by_key(|(first, _)| *first);
    order
        .into_iter()
        .map(|(_, (steps, _, entries))| (tree::join(steps), entries))
        .collect()
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a string takes any text");
}

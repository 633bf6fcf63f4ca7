//! Where the instructions of a call are spent, by callgrind's own account.

use std::collections::{BTreeMap, HashMap};

/// Instructions by the room of the code that they belong to.
pub(crate) type Rooms = BTreeMap<String, f64>;

/// How many segments of a path name a room of the platform: its crate, a module and one within.
const SEGMENTS: usize = 3;
/// How functions of libc begin that allocate, free, copy and compare.
const OF_MEMORY: [&str; 7] = [
    "malloc",
    "free",
    "realloc",
    "calloc",
    "_int_",
    "__mem",
    "unlink_chunk",
];

/// What callgrind wrote, by room. Instructions of code that was inlined belong to the function that it
/// was inlined into.
///
/// # Errors
///
/// If that does not come to the total that it names.
pub(crate) fn by_room(text: &str) -> Result<BTreeMap<String, u64>, String> {
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut rooms = BTreeMap::new();
    let mut current = "other".to_owned();
    let mut is_of_callee = false;
    let mut total = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            current = room_of(resolve(&mut names, name));
        } else if let Some(name) = line.strip_prefix("cfn=") {
            // Said once in full, whoever comes first.
            resolve(&mut names, name);
        } else if let Some(all) = line.strip_prefix("totals: ") {
            total = all.trim().parse::<u64>().ok();
        } else if line.starts_with("calls=") {
            is_of_callee = true;
        } else if let Some(cost) = cost(line)
            && !std::mem::take(&mut is_of_callee)
        {
            *rooms.entry(current.clone()).or_default() += cost;
        }
    }
    let sum = rooms.values().sum();
    if total != Some(sum) {
        return Err(format!(
            "callgrind counted {total:?} instructions, of which {sum} were understood"
        ));
    }
    Ok(rooms)
}

/// `(7) name`, or `(7)` for one that was named before.
fn resolve<'a>(names: &mut HashMap<&'a str, &'a str>, said: &'a str) -> &'a str {
    match said.split_once(' ') {
        Some((id, name)) => {
            names.insert(id, name);
            name
        }
        None => names.get(said).copied().unwrap_or(said),
    }
}

/// The instructions of a line that tells of some: a position, and how many.
fn cost(line: &str) -> Option<u64> {
    let (position, cost) = line.split_once(' ')?;
    let is_position =
        position.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first));
    cost.parse().ok().filter(|_| is_position)
}

/// The room of a function: of generic code of others, that of the platform's type it works on.
fn room_of(function: &str) -> String {
    let own = ["gantry::", "gateway::"];
    let found = own.iter().filter_map(|own| function.find(own)).min();
    if let Some(start) = found {
        let is_path = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == ':';
        let path = &function[start..];
        let path = &path[..path.find(|it| !is_path(it)).unwrap_or(path.len())];
        let modules = path
            .split("::")
            .filter(|it| it.starts_with(|first: char| first.is_ascii_lowercase()));
        return modules.take(SEGMENTS).collect::<Vec<_>>().join("::");
    }
    if OF_MEMORY.iter().any(|it| function.starts_with(it)) {
        return "libc: memory".to_owned();
    }
    let path = function.trim_start_matches(['<', '&', '(', '[']);
    match path.split_once("::") {
        Some((library, _))
            if library
                .chars()
                .all(|it| it.is_ascii_alphanumeric() || it == '_') =>
        {
            library.to_owned()
        }
        _ => "other".to_owned(),
    }
}

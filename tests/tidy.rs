//! The rules of ARCHITECTURE.md that a program can check.
//!
//! Each rule is one test; its failure lists every place that breaks it, as `file:line: why`.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const FRAMEWORK: &str = "platform/framework/src";

/// A source file: its path from the root, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The lines before unit tests begin, numbered from 1.
    fn production(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = self.path.ends_with("/tests.rs") || self.path.contains("/tests/");
        self.text
            .lines()
            .take_while(move |line| !tests && !line.starts_with("#[cfg(test)]"))
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// Production lines without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.production()
            .map(|(number, line)| (number, line.split("//").next().unwrap_or_default()))
    }

    /// The framework module this file belongs to.
    fn module(&self) -> Option<&str> {
        let rest = self.path.strip_prefix(FRAMEWORK)?.strip_prefix('/')?;
        let module = rest.split('/').next()?;
        Some(module.strip_suffix(".rs").unwrap_or(module))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for folder in folders {
        walk(&root().join(folder), &mut found);
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(!found.is_empty(), "no source files under {folders:?}");
    found
}

fn walk(folder: &Path, found: &mut Vec<Source>) {
    for entry in
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    {
        let path: PathBuf = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() && !["target", "node_modules", ".tools"].contains(&name.as_ref()) {
            walk(&path, found);
        } else if name.ends_with(".rs") {
            found.push(Source {
                path: path.strip_prefix(root()).unwrap().display().to_string(),
                text: fs::read_to_string(&path).unwrap(),
            });
        }
    }
}

fn everything() -> Vec<Source> {
    sources(&["proto", "platform", "services", "tests"])
}

fn framework() -> Vec<Source> {
    sources(&[FRAMEWORK])
}

#[track_caller]
fn expect_none(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}\n  {}\n", broken.join("\n  "));
}

/// Every `file:line` of `sources` whose code holds one of `words`, outside the files `allowed`.
fn occurrences(sources: &[Source], words: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources {
        if allowed.iter().any(|path| source.path.contains(path)) {
            continue;
        }
        for (number, line) in source.code() {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                broken.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    broken
}

/// One row of the module table.
struct Room {
    layer: u8,
    beside: BTreeSet<String>,
}

fn table() -> BTreeMap<String, Room> {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut rooms = BTreeMap::new();
    for line in page.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, layer, module, _, beside, _] = cells.as_slice() else {
            continue;
        };
        let Ok(layer) = layer.parse() else { continue };
        let beside = beside.split('`').filter(|word| !word.trim().is_empty());
        let room = Room {
            layer,
            beside: beside.map(str::to_owned).collect(),
        };
        rooms.insert(module.trim_matches('`').to_owned(), room);
    }
    assert!(
        rooms.len() > 10,
        "the module table of ARCHITECTURE.md was not found"
    );
    rooms
}

/// Goal: arrows between framework modules point to lower layers, or to a named neighbour.
/// Method: every `crate::module` in code against the table of ARCHITECTURE.md.
#[test]
fn modules_use_lower_layers_only() {
    let rooms = table();
    let mut broken = Vec::new();
    for source in framework() {
        let Some(module) = source.module().filter(|module| *module != "lib") else {
            continue;
        };
        let Some(room) = rooms.get(module) else {
            broken.push(format!("{}: `{module}` is not in the table", source.path));
            continue;
        };
        for (number, used) in used_modules(&source) {
            let Some(other) = rooms.get(&used) else {
                continue;
            };
            let fine = used == module || other.layer < room.layer || room.beside.contains(&used);
            if !fine {
                broken.push(format!(
                    "{}:{number}: {module} must not use {used}",
                    source.path
                ));
            }
        }
    }
    expect_none(
        &broken,
        "a module uses what its layer may not (ARCHITECTURE.md)",
    );
}

/// The modules a file names by `crate::`, in single and grouped imports alike.
fn used_modules(source: &Source) -> Vec<(usize, String)> {
    let mut used = Vec::new();
    let mut in_group = false;
    for (number, line) in source.code() {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            if let Some(group) = rest.strip_prefix('{') {
                in_group = !group.contains("};");
                used.extend(heads(group).map(|head| (number, head)));
            } else {
                used.extend(heads(rest).take(1).map(|head| (number, head)));
            }
        }
        // A grouped import over several lines names one module at the start of each line.
        if in_group && !line.contains("crate::") {
            let indent = line.len() - line.trim_start().len();
            if indent == 4 {
                used.extend(heads(line.trim()).take(1).map(|head| (number, head)));
            }
            in_group = !line.starts_with("};");
        }
    }
    used
}

fn heads(text: &str) -> impl Iterator<Item = String> {
    text.split(',')
        .map(|part| {
            part.trim()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        })
        .filter(|head: &String| !head.is_empty())
}

/// Goal: the table names every module there is, and no other.
/// Method: the `pub mod` lines of the framework's root.
#[test]
fn the_table_names_every_module() {
    let text = fs::read_to_string(root().join(FRAMEWORK).join("lib.rs")).unwrap();
    let modules: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect();
    let rooms: BTreeSet<_> = table().into_keys().collect();
    assert_eq!(
        modules, rooms,
        "framework modules (left) and ARCHITECTURE.md (right)"
    );
}

/// Goal: the framework serves any service.
/// Method: no name of a service of this repository, and no proto, in it.
#[test]
fn the_framework_names_no_service() {
    let services = fs::read_dir(root().join("services")).unwrap();
    let names: Vec<_> = services
        .map(|entry| format!("{}::", entry.unwrap().file_name().to_string_lossy()))
        .collect();
    let mut words: Vec<&str> = names.iter().map(String::as_str).collect();
    words.extend(["shop.", "shop_proto", "include_proto!"]);
    let broken = occurrences(&framework(), &words, &[]);
    expect_none(&broken, "the framework names a service");
}

/// Goal: one module reads the environment.
/// Method: `std::env` readers elsewhere in the platform and its services.
#[test]
fn only_config_reads_the_environment() {
    let words = [
        "env::var(",
        "env::var_os(",
        "env::vars",
        "env::set_var",
        "env::remove_var",
    ];
    let allowed = [
        "platform/framework/src/config",
        // Build scripts are told by cargo through the environment.
        "platform/build/",
        "build.rs",
        "tests/",
    ];
    let broken = occurrences(&everything(), &words, &allowed);
    expect_none(&broken, "only `config` reads the environment");
}

/// Goal: nothing is spawned untracked.
/// Method: what spawns outside the three places that own what they spawn.
#[test]
fn only_owners_spawn() {
    let words = ["tokio::spawn(", "task::spawn(", "TokioExecutor"];
    let allowed = [
        "platform/framework/src/shutdown/tasks.rs",
        "platform/framework/src/call.rs",
        "platform/framework/src/transport/server/calls.rs",
        // The peer of tests.
        "platform/framework/src/transport/wire.rs",
    ];
    let broken = occurrences(&sources(&["platform", "services"]), &words, &allowed);
    expect_none(&broken, "a task is spawned that nobody owns");
}

/// Goal: one module of the framework picks gRPC codes.
/// Method: constructors of `tonic::Status` elsewhere.
#[test]
fn only_status_picks_codes() {
    let constructors = [
        "new",
        "cancelled",
        "unknown",
        "invalid_argument",
        "deadline_exceeded",
        "not_found",
        "already_exists",
        "permission_denied",
        "resource_exhausted",
        "failed_precondition",
        "aborted",
        "out_of_range",
        "unimplemented",
        "internal",
        "unavailable",
        "data_loss",
        "unauthenticated",
        "with_details",
        "with_error_details",
    ];
    let words: Vec<_> = constructors
        .iter()
        .flat_map(|name| {
            [
                format!(" Status::{name}("),
                format!("(Status::{name}("),
                format!("tonic::Status::{name}("),
            ]
        })
        .collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let allowed = ["src/status.rs", "src/status/", "src/testing"];
    let broken = occurrences(&framework(), &words, &allowed);
    expect_none(&broken, "only `status` picks a gRPC code");
}

/// Goal: metrics of the platform are spelled in one place.
/// Method: string literals with our prefixes elsewhere in the framework.
#[test]
fn only_names_spells_metrics() {
    let words = [
        "\"gantry_",
        "\"rpc_server_",
        "\"rpc_client_",
        "\"grpc_client_",
        "\"process_",
    ];
    let broken = occurrences(
        &framework(),
        &words,
        &["src/names.rs", "src/names/", "src/testing"],
    );
    expect_none(&broken, "only `names` spells the name of a metric");
}

/// Goal: every file can be read at once, and every function on one screen.
/// Method: count lines; a function ends at the closing brace of its own indentation.
#[test]
fn files_and_functions_stay_short() {
    let mut broken = Vec::new();
    for source in everything() {
        let lines: Vec<_> = source.text.lines().collect();
        if lines.len() > FILE_LINES_MAX {
            broken.push(format!("{}: {} lines", source.path, lines.len()));
        }
        for (index, line) in lines.iter().enumerate() {
            let Some(length) = function_length(&lines[index..], line) else {
                continue;
            };
            if length > FUNCTION_LINES_MAX {
                broken.push(format!("{}:{}: {length} lines", source.path, index + 1));
            }
        }
    }
    expect_none(&broken, "a file over 500 lines or a function over 70");
}

fn function_length(rest: &[&str], line: &str) -> Option<usize> {
    let code = line.trim_start();
    let begins = [
        "fn ",
        "pub fn ",
        "pub(crate) fn ",
        "pub(super) fn ",
        "async fn ",
        "pub async fn ",
        "const fn ",
        "pub const fn ",
        "pub(crate) async fn ",
        "pub(super) async fn ",
    ];
    let declared = code.ends_with(';');
    if declared || !begins.iter().any(|begin| code.starts_with(begin)) {
        return None;
    }
    let close = format!("{}}}", &line[..line.len() - code.len()]);
    let end = rest
        .iter()
        .position(|line| *line == close || (line.ends_with(';') && line.len() == close.len()))?;
    let declared_only = rest[..end].iter().all(|line| !line.ends_with('{'));
    (!declared_only).then_some(end + 1)
}

/// Goal: a stranger learns a file's purpose from its first line.
/// Method: `//!` first, everywhere; no `mod.rs`.
#[test]
fn every_file_says_what_it_is_for() {
    let mut broken = Vec::new();
    for source in everything() {
        let included = source.path.starts_with("tests/outside/");
        let first = source.text.lines().next().unwrap_or_default();
        let unit_tests = source.path.ends_with("/tests.rs") || source.path.contains("/tests/");
        if !first.starts_with("//!") && !unit_tests && !included {
            broken.push(format!("{}:1: no //! purpose", source.path));
        }
        if source.path.ends_with("/mod.rs") {
            broken.push(format!(
                "{}: use x.rs and x/ instead of mod.rs",
                source.path
            ));
        }
    }
    expect_none(&broken, "a file without a purpose");
}

/// Goal: no test is switched off, and none is named for being a test.
/// Method: look for the attribute and the prefix.
#[test]
fn tests_run_and_are_named_by_behaviour() {
    let ignore = concat!("#[ign", "ore");
    let prefix = concat!("fn te", "st_");
    let mut broken = Vec::new();
    for source in everything() {
        for (index, line) in source.text.lines().enumerate() {
            let code = line.trim_start();
            if code.starts_with(ignore) || code.contains(prefix) {
                broken.push(format!("{}:{}: {code}", source.path, index + 1));
            }
        }
    }
    expect_none(&broken, "a test that does not run, or is named `test_`");
}

/// Goal: work to be done carries a number; nothing unfinished is left silently.
/// Method: look for the usual words without an issue number, and for macros that panic as unfinished.
#[test]
fn nothing_unfinished_is_left_behind() {
    let words = [
        "TODO:",
        "TODO ",
        "FIXME",
        "XXX",
        concat!("unimpl", "emented!("),
        concat!("to", "do!("),
    ];
    let mut broken = Vec::new();
    for source in everything() {
        if source.path == "tests/tidy.rs" {
            continue;
        }
        for (index, line) in source.text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                broken.push(format!("{}:{}: {word}", source.path, index + 1));
            }
        }
    }
    expect_none(&broken, "unfinished work without an issue number");
}

/// Goal: every crate lives under the same lints.
/// Method: each member's manifest inherits them.
#[test]
fn every_crate_inherits_the_lints() {
    let mut broken = Vec::new();
    for group in ["platform", "services"] {
        for entry in fs::read_dir(root().join(group)).unwrap() {
            let manifest = entry.unwrap().path().join("Cargo.toml");
            let text = fs::read_to_string(&manifest).unwrap();
            if !text.contains("[lints]\nworkspace = true") {
                broken.push(manifest.display().to_string());
            }
        }
    }
    expect_none(&broken, "a crate without `[lints] workspace = true`");
}

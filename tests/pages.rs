//! README and docs say what the code does: what can be set, what is measured of events, and what a
//! stranger's project looks like.

use std::{fs, path::Path};

use gantry::config;
use gantry_events::{Config, broker};

config::section! {
    /// What a service with events has to set beside its database.
    struct Settings {
        /// What carries events.
        broker: section broker::Config;
        /// How they are published and consumed.
        events: section Config;
    }
}

/// Where the tables begin.
const SETTINGS: &str = "### `[broker]`";

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Goal: the page and the code never disagree.
/// Method: write its tables anew; where that changes it, it is mended and the test fails once.
#[test]
fn the_page_says_what_can_be_set() {
    let kept = read("docs/events.md");
    let written = kept.find(SETTINGS).map_or(&*kept, |at| &kept[..at]);
    let all = config::markdown::<Settings>();
    let at = all.find(SETTINGS).expect("a table of the broker");
    let fresh = format!("{}\n\n{}", written.trim_end(), &all[at..]);
    if fresh != kept {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/events.md");
        fs::write(&path, &fresh).expect("write the page");
        panic!("docs/events.md was out of step and has been written anew; commit it");
    }
}

/// Goal: who follows the README has the projects that are built and run outside the repository.
/// Method: every file of theirs is on the page, but for what a comment says of the file, and paths.
#[test]
fn the_readme_shows_the_strangers_projects() {
    let page = read("README.md");
    for file in [
        "build.rs",
        "proto/hello/v1/hello.proto",
        "src/main.rs",
        "events/build.rs",
        "events/gantry.toml",
        "events/proto/tally/v1/tally.proto",
        "events/src/main.rs",
    ] {
        let text = read(&format!("tests/outside/{file}"));
        let code = text.lines().skip_while(|line| line.starts_with("//!"));
        let code = code.collect::<Vec<_>>().join("\n");
        let shown = page.contains(&format!("\n{}\n```", code.trim()));
        assert!(shown, "README.md has another tests/outside/{file}");
    }
    for file in ["Cargo.toml", "events/Cargo.toml"] {
        let text = read(&format!("tests/outside/{file}"));
        let (_, needed) = text.split_once("[dependencies]").expect("dependencies");
        let (needed, _) = needed
            .split_once("\n[workspace]")
            .expect("its own workspace");
        for line in needed.lines() {
            let line = line.replace("../../../platform", "…/platform");
            let line = line.replace("../../platform", "…/platform");
            assert!(page.contains(&line), "README.md has not: {line} of {file}");
        }
    }
}

/// Goal: operators find each metric of events on the page, and none that is not there.
/// Method: the names in the code and those in the page's table.
#[test]
fn the_page_has_every_metric_of_events() {
    let page = read("docs/operating-events.md");
    let (_, table) = page.split_once("## Metrics of events").expect("a table");
    let (table, _) = table.split_once("\n#").expect("more of the page");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut shown: Vec<_> = rows
        .filter_map(|row| row.split(['`', '{']).next())
        .collect();
    shown.sort_unstable();
    let code = read("platform/framework/src/names/metric/messaging.rs");
    let lines = code.lines().map(str::trim);
    let names = lines.filter_map(|line| line.strip_prefix('"')?.strip_suffix("\","));
    let mut names: Vec<_> = names.filter(|name| !name.contains(' ')).collect();
    names.sort_unstable();
    assert!(names.len() > 20, "{names:?}");
    assert_eq!(names, shown, "names in the code, and those on the page");
}

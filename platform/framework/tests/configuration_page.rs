//! docs/configuration.md says what the code says.

use std::{fs, path::Path};

use gantry::{app::Platform, breaker, config};

const HEAD: &str = "\
# Configuration

Every key of the platform, the same in every service; a service's own keys stand beside them in the same files and are
shown, with all values and where each is from, by `SERVICE --print-config`. Written by
`cargo test -p gantry --test configuration_page`; do not edit. Services with events have `[broker]` and `[events]` as well:
[events.md](events.md#settings).

Layers, the later over the earlier: defaults, `config/default.toml`, `config/<service>.toml`, `config/local.toml`,
`GANTRY_<SECTION>__<KEY>` from the environment, `--set section.key=value`. A key marked *live* takes effect within a
second of a change in a file, or of SIGHUP; a change of another is reported as pending until the next start. An invalid
change is refused as a whole: the last good configuration stays, and the log says file, line and reason.

";

const BREAKERS: &str = "
### Breakers: `[….breaker]`

A service that stops asking what keeps failing says so in a section of these keys, as payments in `[bank.breaker]`; its
defaults may be others.

";

/// All of it.
fn page() -> String {
    let platform = config::markdown::<Platform>();
    let breaker = config::markdown::<breaker::Config>();
    format!("{HEAD}{platform}{BREAKERS}{breaker}")
}

/// Goal: the page and the code never disagree.
/// Method: write it anew; where that changes it, it is mended and the test fails once.
#[test]
fn the_page_says_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let fresh = page();
    let kept = fs::read_to_string(&path).unwrap_or_default();
    if fresh != kept {
        fs::write(&path, &fresh).expect("write the page");
        panic!("docs/configuration.md was out of step and has been written anew; commit it");
    }
}

/// Goal: no time can be set so long that a moment that far from now cannot be computed.
/// Method: every key that holds a duration says its longest.
#[test]
fn every_duration_is_bounded() {
    let page = page();
    let durations: Vec<_> = page
        .lines()
        .filter(|row| row.contains("| duration"))
        .collect();
    assert!(durations.len() > 20, "{durations:?}");
    let unbounded = |row: &&&str| !row.contains(" to \"");
    let unbounded: Vec<_> = durations.iter().filter(unbounded).collect();
    assert!(unbounded.is_empty(), "{unbounded:#?}");
}
